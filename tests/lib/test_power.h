/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_power.h - one power supply for several doubles: it goes off at the Nth operation.
 *
 * crash_dev counts each transfer of a write and each flush; test_store counts each advance. With one
 * struct test_power for both, "between the device's flush and the store's advance" is just another N.
 *
 * The operation at which power goes off is in flight: it may have had its effect, in part or whole,
 * and its caller never learns. All later ones have none.
 */
#ifndef MLS_TEST_POWER_H
#define MLS_TEST_POWER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct test_power {
	_Atomic uint64_t nr_ops;	/* so far */
	uint64_t cut_at;		/* 1: at the first operation; 0: never */
	bool swallow;			/* after the cut operations answer 0, not MLS_EIO */
	_Atomic bool off;
};

enum test_power_state { TEST_POWER_ON, TEST_POWER_CUT_HERE, TEST_POWER_OFF };

/* Count one operation. NULL: power never fails. */
enum test_power_state test_power_op(struct test_power *power);

/* Power is back; it goes off again at the cut_at-th operation from now (0: never). */
void test_power_on(struct test_power *power, uint64_t cut_at);

#endif
