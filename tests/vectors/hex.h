/* SPDX-License-Identifier: MPL-2.0 */
/* hex.h - vectors as they are published -> bytes. */
#ifndef MLS_VECTORS_HEX_H
#define MLS_VECTORS_HEX_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Number of bytes; a vector that doesn't fit or isn't hex is a mistake in the test. */
static inline size_t from_hex(const char *hex, uint8_t *out, size_t cap)
{
	size_t n = strlen(hex) / 2, i;

	ck_assert_uint_le(n, cap);
	ck_assert_uint_eq(n * 2, strlen(hex));
	for (i = 0; i < n; i++) {
		unsigned byte;

		ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

#endif
