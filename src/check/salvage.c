/* SPDX-License-Identifier: MPL-2.0 */
/*
 * salvage.c - everything that still authenticates, into a raw image; see salvage.h.
 *
 * With an index this is pass 6 with a sink; LBAs whose part of the index is damaged, and all of them if
 * there is no index, are rescue.c's.
 */
#include "check/salvage.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/checked.h"
#include "check/rescue.h"

/* ---- Lost and saved ---- */

int mls_salvage_lose(struct mls_salvage *s, uint64_t lba, uint64_t nr_lbas, enum mls_finding_code why)
{
	struct mls_lost_range *last = s->nr_ranges ? &s->lost[s->nr_ranges - 1] : NULL, *lost = s->lost;

	if (last && last->why == why && last->lba + last->nr_lbas == lba) {
		last->nr_lbas += nr_lbas;
		return 0;
	}
	if ((s->nr_ranges & (s->nr_ranges - 1)) == 0)
		lost = realloc(lost, (s->nr_ranges ? s->nr_ranges * 2 : 1) * sizeof *lost);
	if (!lost)
		return MLS_ENOMEM;
	s->lost = lost;
	lost[s->nr_ranges++] = (struct mls_lost_range){ lba, nr_lbas, why };
	return 0;
}

static bool is_zero(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, MLS_BLOCK_BYTES - 1) == 0;
}

int mls_salvage_save(struct mls_salvage *s, uint64_t lba, const void *block)
{
	ssize_t n = MLS_BLOCK_BYTES;

	if (!is_zero(block))
		n = pwrite(s->image_fd, block, MLS_BLOCK_BYTES, (off_t)(lba * MLS_BLOCK_BYTES));
	return n == MLS_BLOCK_BYTES ? 0 : MLS_EIO;
}

static int by_lba(const void *a, const void *b)
{
	const struct mls_lost_range *left = a, *right = b;

	return left->lba < right->lba ? -1 : left->lba > right->lba;
}

/* In order of LBA, disjoint; and count. */
static void settle_lost(struct mls_salvage *s)
{
	size_t nr = 0;

	if (s->nr_ranges)
		qsort(s->lost, s->nr_ranges, sizeof *s->lost, by_lba);
	for (size_t i = 0; i < s->nr_ranges; i++) {
		struct mls_lost_range range = s->lost[i], *last = nr ? &s->lost[nr - 1] : NULL;
		uint64_t end = range.lba + range.nr_lbas;

		if (last && range.lba <= last->lba + last->nr_lbas && (range.why == last->why ||
								       range.lba < last->lba + last->nr_lbas))
			last->nr_lbas = mls_max_u64(last->nr_lbas, end - last->lba);
		else
			s->lost[nr++] = range;
	}
	s->nr_ranges = nr;
	s->nr_lost = 0;
	for (size_t i = 0; i < nr; i++)
		s->nr_lost += s->lost[i].nr_lbas;
}

void mls_salvage_release(struct mls_salvage *s)
{
	free(s->lost);
	s->lost = NULL;
	s->nr_ranges = 0;
}

/* ---- With an index ---- */

struct indexed {
	struct mls_salvage *s;
	pthread_mutex_t lock;
};

static int sink(void *arg, uint64_t lba, const void *block)
{
	struct indexed *indexed = arg;
	int err = block ? mls_salvage_save(indexed->s, lba, block) : 0;

	pthread_mutex_lock(&indexed->lock);
	if (block)
		indexed->s->nr_saved++;
	else
		err = mls_salvage_lose(indexed->s, lba, 1, MLS_FOUND_DATA_DAMAGED);
	pthread_mutex_unlock(&indexed->lock);
	return err;
}

static int run_indexed(struct mls_salvage *s)
{
	struct indexed indexed = { .s = s };
	bool was_damaged = s->x->index_damaged;
	int err;

	pthread_mutex_init(&indexed.lock, NULL);
	err = mls_inspect_check_data(s->x, sink, &indexed, s->progress, s->progress_arg);
	pthread_mutex_destroy(&indexed.lock);
	/* The index could be read when it was checked, and not now: nobody knows which LBAs are missing. */
	if (!err && s->x->index_damaged && !was_damaged)
		err = mls_salvage_lose(s, 0, s->x->sb.geo.disk_blocks, MLS_FOUND_LOG_UNREADABLE);
	return err;
}

int mls_salvage_run(struct mls_salvage *s)
{
	int err;

	s->from_summaries = !s->x->consistent;
	err = s->from_summaries ? mls_rescue_all(s) : run_indexed(s);
	if (!err && !s->from_summaries)
		err = mls_rescue_gaps(s);
	settle_lost(s);
	return err;
}
