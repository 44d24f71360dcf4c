/* SPDX-License-Identifier: MPL-2.0 */
/*
 * quick_disks.c - what costs most when a tiny disk is opened and checked a million times, made cheap.
 *
 * Method   Key memory is kept from one disk to the next, all of it and under ASan too, instead of mapped, locked and
 *          unmapped: that was a third of the time. The linker puts this pthread_create in place of the real one
 *          (MLS_QUICK_DISKS in Makemodule.am): no thread can be started, so that the check of the data, which starts
 *          some, does it by itself; the campaigns that link this ask for no other (inline_work). Other tests run all
 *          of this as it is.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>

#include "1-crypto/secret.h"

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*work)(void *), void *arg);

__attribute__((constructor)) static void keep_key_memory(void)
{
	mls_secret_keep(UINT_MAX);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*work)(void *), void *arg)
{
	(void)thread;
	(void)attr;
	(void)work;
	(void)arg;
	return EAGAIN;
}
