/* SPDX-License-Identifier: MPL-2.0 */
/*
 * punch.c - gives free runs back to the host; see punch.h.
 *
 * How much, how fast. Neighbours go in one call, up to RANGE_BLOCKS. After a call comes a rest four
 * times as long as the call was, so that punching takes at most a fifth of the host's time for it. On a
 * busy disk a cushion of stale runs is kept: the allocator takes the lowest free runs first and punching
 * starts from the top, so the cushion is what is written next, and the host needn't allocate it anew.
 *
 * Which runs the host has space for isn't known after an open: all free ones are punched once. So a
 * crash between the end of a run's life and its punch leaks nothing. (A hole is punched in microseconds.)
 */
#include "5-disk/punch.h"

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define RANGE_BLOCKS 16384u		/* 64 MiB */
#define REST_MIN_NS 1000000u
#define CUSHION_MIN 16u			/* runs; or a 64th of all */

bool mls_punch_wanted(const struct mls_disk *disk)
{
	return !disk->opts.no_discard && !disk->opts.read_only && disk->meter.inner->ops->discard;
}

uint64_t mls_punch_step(struct mls_disk *disk, uint64_t min_free, bool busy)
{
	uint32_t run_blocks = disk->sb.geo.run_blocks;
	uint64_t max = mls_max_u64(RANGE_BLOCKS / run_blocks, 1), run, nr, began;
	uint64_t cushion = busy ? mls_max_u64(mls_chunk_alloc_nr_runs(disk->alloc) / 64, CUSHION_MIN) : 0;
	int err;

	if (!mls_punch_wanted(disk) ||
	    !mls_chunk_alloc_borrow_stale(disk->alloc, max, min_free, cushion, &run, &nr))
		return 0;
	began = mls_now_ns();
	err = mls_block_dev_discard(disk->dev, mls_chunk_alloc_hba(disk->alloc, run), nr * run_blocks);
	/* One that fails isn't tried again: it is only space. */
	mls_chunk_alloc_return(disk->alloc, run, nr, true);
	if (err) {
		mls_count(&disk->count.punch_errors, 1);
		mls_warn("disk: the host didn't take back %llu free runs: %s", (unsigned long long)nr,
			 mls_strerror(err));
	} else {
		mls_count(&disk->count.punched_blocks, nr * run_blocks);
	}
	return mls_max_u64((mls_now_ns() - began) * 4, REST_MIN_NS);
}

void mls_punch_rest(struct mls_disk *disk, uint64_t ns)
{
	uint64_t until = mls_now_ns() + ns;

	while (mls_punch_step(disk, 0, false) && mls_now_ns() < until)
		;
}
