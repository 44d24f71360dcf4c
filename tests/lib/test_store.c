/* SPDX-License-Identifier: MPL-2.0 */
/* test_store.c - a trusted store in memory; see test_store.h. */
#include "tests/lib/test_store.h"

#include <string.h>

static int store_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	struct test_store *s = (struct test_store *)store;

	if (s->read_err)
		return s->read_err;
	if (!s->held)
		return MLS_ENOENT;
	*trust = s->trust;
	return 0;
}

static int store_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	struct test_store *s = (struct test_store *)store;
	enum test_power_state state = test_power_op(s->power);
	uint64_t n;

	if (state == TEST_POWER_OFF)
		return s->power->swallow ? 0 : MLS_EIO;
	n = ++s->nr_advances;
	if (s->fail_at && (n == s->fail_at || (n > s->fail_at && s->fail_sticky))) {
		if (s->fail_keeps) {
			s->trust = *trust;
			s->held = true;
		}
		return MLS_EIO;
	}
	if (state == TEST_POWER_ON || s->keep_at_cut) {
		s->trust = *trust;
		s->held = true;
	}
	return state == TEST_POWER_ON || s->power->swallow ? 0 : MLS_EIO;
}

static void store_destroy(struct mls_trusted_store *store)
{
	(void)store;
}

static const struct mls_trusted_store_ops store_ops = {
	.read = store_read,
	.advance = store_advance,
	.destroy = store_destroy,
};

void test_store_init(struct test_store *store, struct test_power *power)
{
	memset(store, 0, sizeof *store);
	store->base.ops = &store_ops;
	store->power = power;
}
