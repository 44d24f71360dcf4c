/* SPDX-License-Identifier: MPL-2.0 */
/* sync_gather.c - waiting for company before a round; see sync_gather.h. */
#include "5-disk/sync_gather.h"

#include <errno.h>
#include <time.h>

#include "5-disk/latency.h"
#include "base/err.h"

#define PATIENCE_SHARE 2u		/* of a round's time */
#define PATIENCE_MAX_NS 1000000u	/* a slow device, or one long round, must not make this a pause */

void mls_sync_gather_init(struct mls_sync_gather *gather)
{
	pthread_condattr_t attr;

	*gather = (struct mls_sync_gather){ .nr_expected = 1 };
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&gather->all_here, &attr);
	pthread_condattr_destroy(&attr);
}

void mls_sync_gather_join(struct mls_sync_gather *gather)
{
	if (++gather->nr_here == gather->nr_expected)
		pthread_cond_signal(&gather->all_here);
}

unsigned mls_sync_gather_begin(struct mls_sync_gather *gather, pthread_mutex_t *lock)
{
	uint64_t patience = gather->round_ns / PATIENCE_SHARE, until;
	struct timespec at;
	unsigned nr;
	int error = 0;

	MLS_INVARIANT(gather->nr_here > 0);
	until = mls_now_ns() + (patience < PATIENCE_MAX_NS ? patience : PATIENCE_MAX_NS);
	at = (struct timespec){ .tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000) };
	while (gather->nr_here < gather->nr_expected && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&gather->all_here, lock, &at);
	nr = gather->nr_here;
	gather->nr_here = 0;
	return nr;
}

void mls_sync_gather_end(struct mls_sync_gather *gather, unsigned nr_served, uint64_t round_ns)
{
	gather->nr_expected = nr_served + gather->nr_here;
	gather->round_ns = round_ns;
}
