/* SPDX-License-Identifier: MPL-2.0 */
/*
 * secret.c - memory for key material; see secret.h.
 *
 * A page for each key is 4 KiB for some dozens of keys: cheaper than an allocator that would have
 * to be as careful as this.
 *
 * Each segment and each victim of the cleaner has a key for some microseconds, a thousand a second. To map, lock and unmap
 * a page costs more than such a key is used for, and unmapping interrupts every processor that runs a thread of ours. So
 * some wiped pages are kept, locked as they are. Not under ASan: there whoever uses a key that is gone shall hit a hole.
 */
#include "1-crypto/secret.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/asan.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

#define PAGE_BYTES MLS_BLOCK_BYTES
#define KEPT_DEFAULT (MLS_ASAN ? 0u : 16u)

/* A kept page; all zeros behind. */
struct page {
	struct page *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct page *kept;
static unsigned nr_kept, max_kept = KEPT_DEFAULT;

static void *take_kept(void)
{
	struct page *page;

	pthread_mutex_lock(&lock);
	page = kept;
	if (page) {
		kept = page->next;
		nr_kept--;
	}
	pthread_mutex_unlock(&lock);
	if (page)
		page->next = NULL;
	return page;
}

static bool keep(struct page *page)
{
	bool keeps;

	pthread_mutex_lock(&lock);
	keeps = nr_kept < max_kept;
	if (keeps) {
		page->next = kept;
		kept = page;
		nr_kept++;
	}
	pthread_mutex_unlock(&lock);
	return keeps;
}

static void *map(size_t bytes)
{
	void *secret = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (secret == MAP_FAILED)
		return NULL;
	if (mlock(secret, bytes) != 0)
		mls_debug("key memory can't be locked, it may reach swap: %s", strerror(errno));
	if (madvise(secret, bytes, MADV_DONTDUMP) != 0)
		mls_debug("key memory can't be kept out of core dumps: %s", strerror(errno));
	return secret;
}

void *mls_secret_alloc(size_t bytes)
{
	void *secret = NULL;

	MLS_INVARIANT(bytes > 0);
	if (bytes <= PAGE_BYTES)
		secret = take_kept();
	return secret ? secret : map(bytes);
}

void mls_secret_free(void *secret, size_t bytes)
{
	if (!secret)
		return;
	mls_wipe(secret, bytes);
	if (bytes > PAGE_BYTES || !keep(secret))
		munmap(secret, bytes);
}

void mls_secret_keep(unsigned max)
{
	pthread_mutex_lock(&lock);
	max_kept = max;
	while (nr_kept > max) {
		struct page *page = kept;

		kept = page->next;
		nr_kept--;
		munmap(page, PAGE_BYTES);
	}
	pthread_mutex_unlock(&lock);
}
