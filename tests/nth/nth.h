/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nth.h - the Nth call of one kind fails.
 *
 * Role     Everything that can fail under the library has one switch: device reads, writes and flushes,
 *          memory, OpenSSL's own memory (CRYPTO_set_mem_functions), the trusted store, the random source,
 *          thread creation, and the system calls under the library's own device and store. Memory,
 *          threads and system calls are interposed by the linker (-Wl,--wrap), so only calls of the
 *          library and of the test itself count, not those of libc.
 * Loop     arm(kind, n), do it, nth_disarm; nth_fired says whether there was an nth call at all. When it
 *          is false, n has passed the end, and the loop is done.
 * Threads  The counters are atomic; arm and disarm from one thread.
 */
#ifndef MLS_TEST_NTH_H
#define MLS_TEST_NTH_H

#include <stdbool.h>
#include <stdint.h>

#include "mlsdisk/mlsdisk.h"

enum nth_kind { NTH_READ, NTH_WRITE, NTH_FLUSH, NTH_MEMORY, NTH_CRYPTO, NTH_STORE, NTH_RANDOM, NTH_THREAD,
		NTH_SYSTEM, NR_NTH_KINDS };

extern const char *const nth_kind_name[NR_NTH_KINDS];

/* The n-th call of this kind from now fails; sticky: all later ones, too. */
void nth_arm(enum nth_kind kind, uint64_t n, bool sticky);
void nth_disarm(void);
bool nth_fired(void);

/* Transfers that reached the device although a flush had failed since nth_arm. */
uint64_t nth_writes_after_failed_flush(void);

/* Doubles ask this at each call. */
bool nth_due(enum nth_kind kind);

/* What is held now, by the library and the test. */
struct nth_resources {
	int64_t allocations, crypto;	/* not freed; crypto: OpenSSL's, some of which it keeps for the next call */
	unsigned fds, threads;
};
struct nth_resources nth_resources(void);

/* A device over inner (borrowed), a store over inner (borrowed), and the random source. A failing transfer
 * does half of its bytes; a failing advance may have happened: keep says whether it has. */
struct mls_block_dev *nth_dev_new(struct mls_block_dev *inner);
struct mls_trusted_store *nth_store_new(struct mls_trusted_store *inner);
void nth_store_keeps(bool keeps);
void nth_watch_random(void);
void nth_watch_crypto(void);	/* before OpenSSL's first allocation */

#endif
