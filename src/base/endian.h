/* SPDX-License-Identifier: MPL-2.0 */
/* endian.h - below all layers: little-endian numbers in byte arrays, any alignment. */
#ifndef MLS_BASE_ENDIAN_H
#define MLS_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t mls_get_le16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return le16toh(v);
}

static inline uint32_t mls_get_le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return le32toh(v);
}

static inline uint64_t mls_get_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return le64toh(v);
}

static inline uint64_t mls_get_le48(const uint8_t *p)
{
	return mls_get_le32(p) | (uint64_t)mls_get_le16(p + 4) << 32;
}

static inline void mls_put_le16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof v);
}

static inline void mls_put_le32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof v);
}

static inline void mls_put_le64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof v);
}

/* What doesn't fit is cut off. */
static inline void mls_put_le48(uint8_t *p, uint64_t v)
{
	mls_put_le32(p, (uint32_t)v);
	mls_put_le16(p + 4, (uint16_t)(v >> 32));
}

#endif
