/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk.h - layer 5: the disk as its own files see it. The contract is mlsdisk.h.
 *
 * Files    disk_stack.c wires all layers, bottom to top; disk_open.c recovers; disk_format.c makes;
 *          disk_read.c reads; disk_write.c writes and discards; disk_sync.c syncs; cleaner.c gives space back.
 * Locks    in the order they may be taken: turns.lock (not held while a round is made), an RMW stripe (held
 *          over the reading of one block), then what the layers below take: writer->lock, the index's
 *          lock, table->lock, the allocator's.
 */
#ifndef MLS_DISK_DISK_H
#define MLS_DISK_DISK_H

#include <pthread.h>
#include <stdatomic.h>

#include "0-bio/block_meter.h"
#include "4-lsm/lsm_tree.h"
#include "5-disk/backing.h"
#include "5-disk/bury.h"
#include "5-disk/cleaner.h"
#include "5-disk/defrag.h"
#include "5-disk/latency.h"
#include "5-disk/read_ahead.h"
#include "5-disk/read_plan.h"
#include "5-disk/segment.h"
#include "5-disk/segment_table.h"
#include "5-disk/superblock.h"
#include "5-disk/sync_turns.h"

#define MLS_NR_RMW_STRIPES 64u

/* A sync of more blocks than this flushes twice instead of having recovery read them all. */
#define MLS_SYNC_VERIFY_MAX 1024u

struct mls_disk {
	/* The stack, bottom to top. */
	struct mls_block_meter meter;
	struct mls_block_dev *dev;		/* = &meter.base */
	struct mls_trusted_store *store;	/* borrowed; NULL: none */
	struct mls_keyring *keys;
	struct mls_superblock sb;
	struct mls_chunk_alloc *alloc;
	struct mls_backing backing;
	struct mls_journal *journal;
	struct mls_tx_store *logs;
	struct mls_segment_table *table;
	struct mls_block_ring wal_ring;
	struct mls_lsm *lsm;
	struct mls_seg_writer *writer;
	struct mls_read_pool read_pool;
	struct mls_cleaner *cleaner;
	struct mls_burier *burier;		/* NULL: read-only */
	struct mls_defrag *defrag;		/* NULL: read-only, without threads, unwanted */
	struct mls_read_ahead *ahead;		/* NULL: without threads */

	struct mls_open_opts opts;
	uint32_t table_records;			/* a compacted table has no more of them */
	const struct mls_edit_group *amend;	/* borrowed during the open; NULL: nothing to correct */
	atomic_uint_fast64_t disk_bytes, nr_blocks;	/* grow */
	uint64_t generation_tried;		/* of a superblock that may be on the device */
	struct mls_trust trust;			/* what the store holds (or would hold); the sync round's */

	struct mls_sync_turns turns;		/* of syncs */
	bool closing;
	atomic_uint_fast64_t synced_id;		/* of the last completed sync, for all threads */
	atomic_uint_fast64_t epoch_bound;	/* no record of now has a later epoch than this */
	atomic_bool poisoned;
	bool session;				/* opened for writing: counts as a session */

	pthread_mutex_t rmw[MLS_NR_RMW_STRIPES];

	struct mls_latency sync_latency, write_latency;
	struct {
		atomic_uint_fast64_t reads, writes, syncs, early_syncs, discards;
		atomic_uint_fast64_t read_bytes, written_bytes;
		atomic_uint_fast64_t cleaned_segments, moved_blocks, defragmented_blocks, integrity_errors;
		atomic_uint_fast64_t ahead_blocks, ahead_used_blocks;	/* read ahead, and wanted then */
		atomic_uint_fast64_t buried_blocks;		/* mapped blocks that were discarded */
		atomic_uint_fast64_t punched_blocks, punch_errors;
		atomic_uint_fast64_t sync_rounds, io_errors, no_space, paused_ns;
		atomic_uint_fast64_t cleaner_rounds, cleaner_compactions;
	} count;
};

/* No more writing until the disk is opened again: a sync or, whoever asked for it, a flush has failed. */
static inline bool mls_disk_stopped(const struct mls_disk *disk)
{
	return atomic_load_explicit(&disk->poisoned, memory_order_relaxed) ||
	       atomic_load_explicit(&disk->meter.flush_failed, memory_order_relaxed);
}

static inline void mls_count(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* disk_stack.c: the layers from the superblock up, without state; free what there is of them. */
MLS_MUST_CHECK int mls_disk_stack_new(struct mls_disk *disk);
void mls_disk_stack_free(struct mls_disk *disk);

/*
 * disk_open.c: mls_disk_open, for a repair: the state that was loaded is corrected by amend's edits before
 * anything is made of it; the snapshot that begins the session makes that durable.
 */
MLS_MUST_CHECK int mls_disk_open_amended(struct mls_disk **disk, struct mls_block_dev *dev,
					 struct mls_trusted_store *store, const struct mls_secret *secret,
					 const struct mls_open_opts *opts, const struct mls_edit_group *amend);

/* disk_open.c: mls_disk_open, for who has the superblock and its keys already. keys are the disk's, whatever it returns. */
MLS_MUST_CHECK int mls_disk_open_unlocked(struct mls_disk **disk, struct mls_block_dev *dev,
					  struct mls_trusted_store *store, const struct mls_superblock *sb,
					  struct mls_keyring *keys, const struct mls_open_opts *opts);

/* disk_stats.c: what this session has done so far. Any time, under any lock. */
void mls_disk_session_totals(void *disk, struct mls_totals *totals);

/* disk_read.c: one block of any record, from memory or the device. MLS_ENOENT: the location is of a
 * segment that has been freed since; look the LBA up again. out is block-aligned. */
MLS_MUST_CHECK int mls_disk_read_rec(struct mls_disk *disk, const struct mls_index_rec *rec, void *out);

/* disk_read.c: the newest version of one block; *rec is the version that out holds afterwards. */
MLS_MUST_CHECK int mls_disk_read_block(struct mls_disk *disk, uint64_t lba, void *out, struct mls_index_rec *rec);

/* disk_read.c: up to MLS_CHUNK_IO_BLOCKS blocks, for whoever wants them; not counted as a user's. out is block-aligned. */
MLS_MUST_CHECK int mls_disk_read_chunk(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out);

/* disk_read.c: the same for who wants no error of it: what isn't to be had has no HBA in recs, and there isn't a second try. An error:
 * nothing is. */
MLS_MUST_CHECK int mls_disk_read_quietly(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint8_t *out,
					 struct mls_index_rec *recs);

/* disk_write.c: there was no space. Have the cleaner make some; 0: try again. Not with a lock that a sync may want.
 * since: as for mls_cleaner_wait. */
MLS_MUST_CHECK int mls_disk_wait_for_space(struct mls_disk *disk, uint64_t *since);

/* disk_write.c: tombstones for the mapped ones of up to MLS_CHUNK_IO_BLOCKS blocks; *mapped: how many. MLS_ENOSPC: the
 * index has no space for them, and nobody has waited for some. */
MLS_MUST_CHECK int mls_disk_bury_chunk(struct mls_disk *disk, uint64_t lba, uint32_t nr, uint32_t *mapped);

/* disk_sync.c: one round, or join one; early: not asked for by the user. */
MLS_MUST_CHECK int mls_disk_sync_grouped(struct mls_disk *disk, bool early);
/* fn alone, between two rounds, in its own words a round: nobody syncs meanwhile. */
MLS_MUST_CHECK int mls_disk_between_syncs(struct mls_disk *disk, int (*fn)(struct mls_disk *disk, void *arg), void *arg);
/* A group with nothing but its head, if nothing is dirty; between syncs only. */
MLS_MUST_CHECK int mls_disk_write_group(struct mls_disk *disk);
/* The first group of a session. */
MLS_MUST_CHECK int mls_disk_open_record(struct mls_disk *disk);

#endif
