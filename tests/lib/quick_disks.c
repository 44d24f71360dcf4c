/* SPDX-License-Identifier: MPL-2.0 */
/*
 * quick_disks.c - what costs most when a tiny disk is opened and checked a million times, made cheap.
 *
 * Method   The linker puts these in place of the real ones (MLS_QUICK_DISKS in Makemodule.am). Key memory is kept
 *          from one disk to the next, instead of mapped, locked and unmapped: that was a third of the time. No
 *          thread can be started, so that the check of the data, which starts some, does it by itself; the
 *          campaigns that link this ask for no other (inline_work). Other tests run all of this as it is.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"

struct page {
	struct page *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct page *pages;

void *__wrap_mls_secret_alloc(size_t bytes);
void __wrap_mls_secret_free(void *secret, size_t bytes);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*work)(void *), void *arg);

void *__wrap_mls_secret_alloc(size_t bytes)
{
	struct page *page;

	MLS_INVARIANT(bytes > 0 && bytes <= MLS_BLOCK_BYTES);
	pthread_mutex_lock(&lock);
	page = pages;
	if (page)
		pages = page->next;
	pthread_mutex_unlock(&lock);
	if (!page)
		page = mls_blocks_alloc(1);
	if (page)
		memset(page, 0, bytes > sizeof *page ? bytes : sizeof *page);
	return page;
}

void __wrap_mls_secret_free(void *secret, size_t bytes)
{
	struct page *page = secret;

	if (!secret)
		return;
	mls_wipe(secret, bytes);
	pthread_mutex_lock(&lock);
	page->next = pages;
	pages = page;
	pthread_mutex_unlock(&lock);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*work)(void *), void *arg)
{
	(void)thread;
	(void)attr;
	(void)work;
	(void)arg;
	return EAGAIN;
}
