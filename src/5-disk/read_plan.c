/* SPDX-License-Identifier: MPL-2.0 */
/* read_plan.c - which transfers bring the blocks of one read; see read_plan.h. */
#include "5-disk/read_plan.h"

#include "4-lsm/record.h"
#include "base/buf.h"
#include "base/err.h"

#define GAP_MAX 2u		/* blocks that are read and left: half of what a transfer costs */

struct placed {
	uint64_t hba;
	uint32_t i;
};

/* Neighbours on BACKING, gaps included: blocks order[first] to order[last]. */
struct span {
	uint32_t first, last;
	bool fits;		/* it is as it's wanted in out */
};

/* ---- Buffers ---- */

int mls_read_pool_init(struct mls_read_pool *pool, unsigned nr)
{
	MLS_INVARIANT(nr <= MLS_READ_BUFS_MAX);
	pool->blocks = mls_blocks_alloc((uint64_t)nr * MLS_READ_BUF_BLOCKS);
	if (!pool->blocks)
		return MLS_ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	for (pool->nr_free = 0; pool->nr_free < nr; pool->nr_free++)
		pool->free[pool->nr_free] = mls_block_at(pool->blocks, (uint64_t)pool->nr_free * MLS_READ_BUF_BLOCKS);
	return 0;
}

void mls_read_pool_release(struct mls_read_pool *pool)
{
	if (!pool->blocks)
		return;
	pthread_mutex_destroy(&pool->lock);
	mls_blocks_free(pool->blocks);
}

static uint8_t *buf_take(struct mls_read_pool *pool)
{
	uint8_t *buf;

	pthread_mutex_lock(&pool->lock);
	buf = pool->nr_free ? pool->free[--pool->nr_free] : NULL;
	pthread_mutex_unlock(&pool->lock);
	return buf;
}

static void buf_give(struct mls_read_pool *pool, uint8_t *buf)
{
	pthread_mutex_lock(&pool->lock);
	pool->free[pool->nr_free++] = buf;
	pthread_mutex_unlock(&pool->lock);
}

/* ---- As it comes ---- */

/* Add block i; it joins the transfer before if it follows it here and there. */
static void add_straight(struct mls_read_plan *plan, uint64_t hba, uint8_t *data)
{
	struct mls_io *last = plan->nr_ios ? &plan->ios[plan->nr_ios - 1] : NULL;

	if (last && last->hba + last->nr_blocks == hba && mls_block_at(last->data, last->nr_blocks) == data)
		last->nr_blocks++;
	else
		plan->ios[plan->nr_ios++] = (struct mls_io){ hba, 1, 0, data };
}

void mls_read_plan_make_straight(struct mls_read_plan *plan, const uint64_t *hbas, uint32_t nr, uint8_t *out)
{
	plan->extra = NULL;
	plan->nr_ios = 0;
	for (uint32_t i = 0; i < nr; i++) {
		plan->at[i] = mls_block_at(out, i);
		if (hbas[i] != MLS_HBA_NONE)
			add_straight(plan, hbas[i], plan->at[i]);
	}
}

/* ---- In order of place ---- */

/* By insertion: long pieces are in order already. */
static uint32_t sort_placed(const uint64_t *hbas, uint32_t nr, struct placed *order)
{
	uint32_t nr_placed = 0;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t at = nr_placed;

		if (hbas[i] == MLS_HBA_NONE)
			continue;
		for (; at > 0 && order[at - 1].hba > hbas[i]; at--)
			order[at] = order[at - 1];
		order[at] = (struct placed){ hbas[i], i };
		nr_placed++;
	}
	return nr_placed;
}

static uint32_t span_blocks(const struct span *span, const struct placed *order)
{
	return (uint32_t)(order[span->last].hba - order[span->first].hba) + 1;
}

/* *extra: blocks of all that don't fit. */
static unsigned find_spans(const struct placed *order, uint32_t nr, uint32_t gap_max, struct span *spans,
			   uint32_t *extra)
{
	unsigned nr_spans = 0;

	for (uint32_t k = 0; k < nr; k++) {
		struct span *span = nr_spans ? &spans[nr_spans - 1] : NULL;
		uint64_t step = k ? order[k].hba - order[k - 1].hba : 0;

		if (!span || step - 1 > gap_max) {	/* 0 - 1: the same place twice, which only a damaged index has */
			spans[nr_spans++] = (struct span){ k, k, true };
			continue;
		}
		span->fits &= step == 1 && order[k].i == order[k - 1].i + 1;
		span->last = k;
	}
	*extra = 0;
	for (unsigned s = 0; s < nr_spans; s++)
		*extra += spans[s].fits ? 0 : span_blocks(&spans[s], order);
	return nr_spans;
}

static void plan_spans(struct mls_read_plan *plan, const struct placed *order, const struct span *spans,
		       unsigned nr_spans)
{
	uint8_t *extra = plan->extra;

	plan->nr_ios = 0;
	for (unsigned s = 0; s < nr_spans; s++) {
		uint64_t hba = order[spans[s].first].hba;
		uint32_t nr_blocks = span_blocks(&spans[s], order);
		uint8_t *data = spans[s].fits ? plan->at[order[spans[s].first].i] : extra;

		plan->ios[plan->nr_ios++] = (struct mls_io){ hba, nr_blocks, 0, data };
		if (spans[s].fits)
			continue;
		for (uint32_t k = spans[s].first; k <= spans[s].last; k++)
			plan->at[order[k].i] = mls_block_at(data, order[k].hba - hba);
		extra = mls_block_at(extra, nr_blocks);
	}
}

/* ---- Both ---- */

void mls_read_plan_make(struct mls_read_plan *plan, struct mls_read_pool *pool, const uint64_t *hbas, uint32_t nr,
			uint8_t *out)
{
	struct placed order[MLS_CHUNK_IO_BLOCKS];
	struct span spans[MLS_CHUNK_IO_BLOCKS];
	uint32_t nr_placed, extra;
	unsigned nr_spans;

	MLS_INVARIANT(nr <= MLS_CHUNK_IO_BLOCKS);
	mls_read_plan_make_straight(plan, hbas, nr, out);
	if (plan->nr_ios < 2)
		return;
	nr_placed = sort_placed(hbas, nr, order);
	nr_spans = find_spans(order, nr_placed, GAP_MAX, spans, &extra);
	if (extra > MLS_READ_BUF_BLOCKS)
		nr_spans = find_spans(order, nr_placed, 0, spans, &extra);
	if (nr_spans >= plan->nr_ios)
		return;
	plan->pool = pool;
	plan->extra = buf_take(pool);	/* whatever saves a transfer doesn't fit */
	if (plan->extra)
		plan_spans(plan, order, spans, nr_spans);
}

void mls_read_plan_release(struct mls_read_plan *plan)
{
	if (plan->extra)
		buf_give(plan->pool, plan->extra);
}
