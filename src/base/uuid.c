/* SPDX-License-Identifier: MPL-2.0 */
/* uuid.c - names of disks: random, and as text. */
#include "base/rand.h"

int mls_uuid_new(uint8_t uuid[MLS_UUID_BYTES])
{
	int err = mls_rand_bytes(uuid, MLS_UUID_BYTES);

	if (err)
		return err;
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);	/* RFC 4122: version 4 ... */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);	/* ... of the usual variant */
	return 0;
}

void mls_uuid_format(char text[MLS_UUID_TEXT_BYTES], const uint8_t uuid[MLS_UUID_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	char *p = text;

	for (unsigned i = 0; i < MLS_UUID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid[i] >> 4];
		*p++ = digits[uuid[i] & 15];
	}
	*p = '\0';
}
