/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_store.h - a trusted store in memory, whose advance can fail or be cut off.
 *
 * Role     What it holds outlives the disk, like the real register: it is the test's struct. A copy of
 *          the struct's `held` and `trust` is a copy of the register (a backup, for instance).
 * Cut      At the advance at which power goes off, keep_at_cut says whether the new value stays.
 * Threads  As in mlsdisk.h: the disk calls one at a time.
 */
#ifndef MLS_TEST_STORE_H
#define MLS_TEST_STORE_H

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/test_power.h"

struct test_store {
	struct mls_trusted_store base;	/* first */
	struct test_power *power;	/* borrowed; NULL: never fails by itself */
	bool keep_at_cut;
	bool held;			/* false: read answers MLS_ENOENT */
	struct mls_trust trust;
	int read_err;			/* what read answers instead; 0: the truth */
	uint64_t nr_advances, fail_at;	/* the fail_at-th advance fails with MLS_EIO; 0: never */
	bool fail_sticky, fail_keeps;	/* keeps: a failed advance leaves the new value all the same */
};

void test_store_init(struct test_store *store, struct test_power *power);

#endif
