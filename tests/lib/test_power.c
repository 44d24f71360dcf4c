/* SPDX-License-Identifier: MPL-2.0 */
/* test_power.c - one power supply for several doubles; see test_power.h. */
#include "tests/lib/test_power.h"

#include <stddef.h>

enum test_power_state test_power_op(struct test_power *power)
{
	uint64_t n;

	if (!power)
		return TEST_POWER_ON;
	if (atomic_load(&power->off))
		return TEST_POWER_OFF;
	n = atomic_fetch_add(&power->nr_ops, 1) + 1;
	if (power->cut_at == 0 || n < power->cut_at)
		return TEST_POWER_ON;
	atomic_store(&power->off, true);
	return n == power->cut_at ? TEST_POWER_CUT_HERE : TEST_POWER_OFF;
}

void test_power_on(struct test_power *power, uint64_t cut_at)
{
	atomic_store(&power->nr_ops, 0);
	power->cut_at = cut_at;
	atomic_store(&power->off, false);
}
