/* SPDX-License-Identifier: MPL-2.0 */
/*
 * secret.h - layer 1: memory for key material.
 *
 * Role     Whole pages of their own: locked (never swapped) and left out of core dumps. The lock
 *          may be refused (RLIMIT_MEMLOCK); that is a debug message, not an error. Some wiped pages are kept
 *          for the next keys: 16, none under ASan.
 * Threads  Any.
 */
#ifndef MLS_CRYPTO_SECRET_H
#define MLS_CRYPTO_SECRET_H

#include "mlsdisk/mlsdisk.h"

void *mls_secret_alloc(size_t bytes);		/* zeroed, page-aligned; NULL: no memory */
void mls_secret_free(void *secret, size_t bytes);	/* wipes; NULL is fine */

/* How many pages are kept from now on; for tests that count them, or open a million disks. */
void mls_secret_keep(unsigned max);

#endif
