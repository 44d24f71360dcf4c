/* SPDX-License-Identifier: MPL-2.0 */
/*
 * secret.c - memory for key material; see secret.h.
 *
 * A page for each key is 4 KiB for some dozens of keys: cheaper than an allocator that would have
 * to be as careful as this.
 */
#include "1-crypto/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

void *mls_secret_alloc(size_t bytes)
{
	void *secret = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MLS_INVARIANT(bytes > 0);
	if (secret == MAP_FAILED)
		return NULL;
	if (mlock(secret, bytes) != 0)
		mls_debug("key memory can't be locked, it may reach swap: %s", strerror(errno));
	if (madvise(secret, bytes, MADV_DONTDUMP) != 0)
		mls_debug("key memory can't be kept out of core dumps: %s", strerror(errno));
	return secret;
}

void mls_secret_free(void *secret, size_t bytes)
{
	if (!secret)
		return;
	mls_wipe(secret, bytes);
	munmap(secret, bytes);
}
