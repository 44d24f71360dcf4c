/* SPDX-License-Identifier: MPL-2.0 */
/*
 * backing.c - has the host promise its space before anything depends on it; see backing.h.
 *
 * Without it, a host's ENOSPC is met by a background write of what was acknowledged long ago; and since
 * that can't be written, no sync is possible; and without a sync nothing that was discarded becomes free:
 * a trap. With it, only mls_backing_renew meets the ENOSPC, and nothing is lost but the space.
 *
 * How much ahead: the allocator knows what must be left to the index and the cleaner. Beyond that a
 * sixteenth of what is used, up to BATCH_MAX runs, so that the calls are few and a small disk stays small.
 *
 * Each call waits for the transfers under way, on ext4, and makes those that come meanwhile wait: 3 to 30 ms where
 * much is written. So a thread of its own calls, when few backed runs are left, and writers take those.
 *
 * A host that refuses is asked again after RETRY_NS, or when a run became free. Which free runs it has space
 * for isn't known after an open: they are given back, so that it has the space for those that are to be
 * backed. A refusal isn't an error of the disk: it is counted, and told once a minute at most.
 */
#include "5-disk/backing.h"

#include "0-bio/block_dev.h"
#include "2-edit/journal.h"
#include "5-disk/latency.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"

#define BATCH_MAX 64u
#define BATCH_PART 16u
#define TRIES_WHEN_FULL 64u
#define RETRY_NS 50000000u
#define TELL_NS UINT64_C(60000000000)	/* quiet for so long: it's news again */

/* Of each journal area. Larger ones are of disks with so many runs that their snapshots get longer only
 * with some TiB of data. */
#define JOURNAL_AREA_MAX (UINT64_C(64) << 20 >> 12)

int mls_backing_fixed(struct mls_block_dev *dev, const struct mls_geometry *geo)
{
	uint64_t hba = mls_geometry_journal_hba(geo);
	int err = mls_block_dev_reserve(dev, 0, hba);

	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS && !err; area++, hba += geo->journal_area_blocks)
		err = mls_block_dev_reserve(dev, hba, mls_min_u64(geo->journal_area_blocks, JOURNAL_AREA_MAX));
	if (!err)
		err = mls_block_dev_reserve(dev, mls_geometry_wal_hba(geo), geo->wal_blocks);
	return err;
}

void mls_backing_init(struct mls_backing *backing, struct mls_block_dev *dev, const struct mls_block_dev *inner,
		      struct mls_chunk_alloc *alloc, bool discards)
{
	backing->dev = dev;
	backing->discards = discards;
	backing->alloc = inner->ops->reserve ? alloc : NULL;
	pthread_mutex_init(&backing->lock, NULL);
	if (backing->alloc)
		mls_chunk_alloc_track_backing(alloc);
}

void mls_backing_release(struct mls_backing *backing)
{
	mls_backing_stop(backing);
	if (backing->dev)
		pthread_mutex_destroy(&backing->lock);
	backing->dev = NULL;
}

/* One call for up to max runs from `from` on. MLS_ENOENT: there is none to be asked for. */
static int back_range(struct mls_backing *backing, uint64_t from, uint64_t max, uint64_t *next)
{
	uint32_t run_blocks = mls_chunk_alloc_run_blocks(backing->alloc);
	uint64_t run, nr, hba;
	bool kept;
	int err;

	if (!mls_chunk_alloc_borrow_unbacked(backing->alloc, from, max, &run, &nr))
		return MLS_ENOENT;
	hba = mls_chunk_alloc_hba(backing->alloc, run);
	err = mls_block_dev_reserve(backing->dev, hba, nr * run_blocks);
	/* What it gave in part is of no use; and if it had some before, that goes to another run. */
	kept = err == MLS_ENOSPC && (!backing->discards || mls_block_dev_discard(backing->dev, hba, nr * run_blocks));
	/* Some other trouble: let the write of the run meet it, and tell of it. */
	mls_chunk_alloc_return_backed(backing->alloc, run, nr, err != MLS_ENOSPC, kept);
	*next = run + nr;
	return err == MLS_ENOSPC ? err : 0;
}

static void refused(struct mls_backing *backing)
{
	uint64_t now = mls_now_ns();

	if (!backing->told_ns || now - backing->told_ns > TELL_NS)
		mls_warn("disk: the host has no space left for BACKING: writes that need it answer ENOSPC until it "
			 "has some again or something is discarded");
	backing->told_ns = now;
	backing->retry_ns = now + RETRY_NS;
	backing->given_then = mls_chunk_alloc_nr_given(backing->alloc);
	atomic_fetch_add_explicit(&backing->nr_refused, 1, memory_order_relaxed);
}

/* Give back what the host may have for free runs that aren't backed. false: there are none, or it may not be. */
static bool give_back_stale(struct mls_backing *backing)
{
	uint32_t run_blocks = mls_chunk_alloc_run_blocks(backing->alloc);
	uint64_t run, nr;
	int err;

	if (!backing->discards || !mls_chunk_alloc_borrow_stale(backing->alloc, UINT64_MAX, 0, 0, &run, &nr))
		return false;
	err = mls_block_dev_discard(backing->dev, mls_chunk_alloc_hba(backing->alloc, run), nr * run_blocks);
	mls_chunk_alloc_return(backing->alloc, run, nr, true);
	return err == 0;
}

/* Stale runs may have the space that is missing: at one time after the other, it is given to those wanted.
 * If it may not be moved: which ones have it is found out by asking. */
static int back_when_full(struct mls_backing *backing)
{
	int err = MLS_ENOSPC;
	uint64_t next;

	for (unsigned i = 0; i < TRIES_WHEN_FULL && err == MLS_ENOSPC; i++) {
		if (give_back_stale(backing)) {
			err = back_range(backing, 0, 1, &next);
			continue;
		}
		err = back_range(backing, backing->next_run, 1, &backing->next_run);
		if (err == MLS_ENOENT)
			backing->next_run = 0;
		if (backing->discards)
			break;
	}
	return err;
}

/* Until they are wanted less than that. */
static void renew(struct mls_backing *backing, enum mls_backing_want least)
{
	uint64_t used, next, retry_ns;
	int err = 0;

	pthread_mutex_lock(&backing->lock);
	retry_ns = backing->retry_ns;
	if (retry_ns && mls_now_ns() < retry_ns && mls_chunk_alloc_nr_given(backing->alloc) == backing->given_then)
		goto out;
	used = mls_chunk_alloc_nr_runs(backing->alloc) - mls_chunk_alloc_nr_free(backing->alloc);
	while (!err && mls_chunk_alloc_wants_backing(backing->alloc) >= least) {
		if (!retry_ns)
			err = back_range(backing, 0, 1 + mls_min_u64(used / BATCH_PART, BATCH_MAX - 1), &next);
		if (retry_ns || err == MLS_ENOSPC)
			err = back_when_full(backing);
	}
	if (err == MLS_ENOSPC) {
		refused(backing);
	} else {
		backing->retry_ns = 0;
		backing->next_run = 0;
	}
out:
	pthread_mutex_unlock(&backing->lock);
}

void mls_backing_renew(struct mls_backing *backing)
{
	enum mls_backing_want want = backing->alloc ? mls_chunk_alloc_wants_backing(backing->alloc) :
						      MLS_BACKING_ENOUGH;

	if (want == MLS_BACKING_NOW)
		renew(backing, MLS_BACKING_NOW);
	else if (want == MLS_BACKING_SOON && backing->has_thread && !atomic_exchange(&backing->asked, true))
		sem_post(&backing->work);
}

/* ---- The thread ---- */

static void *backer_main(void *arg)
{
	struct mls_backing *backing = arg;

	for (;;) {
		mls_sem_wait(&backing->work);
		if (atomic_load(&backing->stop))
			return NULL;
		renew(backing, MLS_BACKING_SOON);
		atomic_store(&backing->asked, false);
	}
}

int mls_backing_start(struct mls_backing *backing)
{
	if (!backing->alloc)
		return 0;
	sem_init(&backing->work, 0, 0);
	if (pthread_create(&backing->thread, NULL, backer_main, backing)) {
		sem_destroy(&backing->work);
		return MLS_ENOMEM;
	}
	backing->has_thread = true;
	return 0;
}

void mls_backing_stop(struct mls_backing *backing)
{
	if (!backing->has_thread)
		return;
	atomic_store(&backing->stop, true);
	sem_post(&backing->work);
	pthread_join(backing->thread, NULL);
	sem_destroy(&backing->work);
	backing->has_thread = false;
}
