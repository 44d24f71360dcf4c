/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tree_bench.h - tests of the index: all that stands below it on any device, and layer 5 in small.
 *
 * Layer 5  A trusted register that outlives the bench; a sync and a recovery as in doc/design.md 8; a
 *          listener that counts the live records of each HBA, and keeps the counts of those in
 *          SSTables as edits in the journal.
 * Model    HBA of each LBA in three states: now, as of the running sync, and as of the last completed
 *          one. Each put takes a new HBA, so a death that comes too early is seen: an HBA whose count
 *          falls to 0 must be in none of the three.
 */
#ifndef MLS_TEST_TREE_BENCH_H
#define MLS_TEST_TREE_BENCH_H

#include <pthread.h>

#include "4-lsm/lsm_tree.h"

#define TREE_DISK_BLOCKS 512u		/* LBAs */
#define TREE_NR_HBAS 200000u
#define TREE_JOURNAL_HBA 32u
#define TREE_AREA_BLOCKS 64u
#define TREE_RING_BLOCKS 12u
#define TREE_RING_HBA (TREE_JOURNAL_HBA + 2 * TREE_AREA_BLOCKS)
#define TREE_RUN_HBA (TREE_RING_HBA + TREE_RING_BLOCKS)
#define TREE_RUN_BLOCKS 16u
#define TREE_NR_RUNS 200u
#define TREE_DEV_BLOCKS (TREE_RUN_HBA + TREE_NR_RUNS * TREE_RUN_BLOCKS)

/* What outlives a crash: the register, and what the test knows. */
struct tree_world {
	uint64_t sync_id;			/* the register */
	uint8_t digest[MLS_TAG_BYTES];
	uint64_t commit;			/* journal commit that the register's sync must name, at least */
	uint64_t next_hba;
	uint64_t now[TREE_DISK_BLOCKS];		/* HBA of each LBA */
	uint64_t closing[TREE_DISK_BLOCKS];	/* of the running sync; else as synced */
	uint64_t synced[TREE_DISK_BLOCKS];
	bool reject_last;			/* recovery: give up a sync that the register doesn't know */
	bool took_last;				/* recovery: accepted one that it didn't know */
};

struct tree_bench {
	struct tree_world *world;
	struct mls_block_dev *dev;		/* borrowed */
	struct mls_keyring *keys;
	struct mls_chunk_alloc *alloc;
	struct mls_journal *journal;
	struct mls_tx_store *store;
	struct mls_block_ring ring;
	struct mls_lsm *lsm;
	uint8_t session[MLS_SESSION_BYTES];

	pthread_mutex_t lock;			/* of the counts; leaf */
	int32_t *live;				/* per HBA: records anywhere */
	int32_t *in_tables;			/* per HBA: records in SSTables; kept in the journal */
	bool *hidden;				/* per HBA: told to be hidden */
	uint64_t nr_hidden;
	bool check_deaths;			/* single-threaded, and not in recovery */
	uint64_t nr_announced;
	/* Called once: when the next transaction on tables begins; when it is about to be committed. */
	void (*in_tx)(struct tree_bench *bench);
	void (*in_prepare)(struct tree_bench *bench);
};

extern const struct mls_lsm_opts tree_inline_opts, tree_thread_opts;

struct tree_world *tree_world_new(void);
void tree_world_copy(struct tree_world *to, const struct tree_world *from);

/* Format dev; then bench_open. */
void tree_format(struct tree_world *world, struct mls_block_dev *dev);

/* Recover as layer 5 does, up to the OPEN group. NULL and *err: an operation failed. */
struct tree_bench *tree_open(struct tree_world *world, struct mls_block_dev *dev, const struct mls_lsm_opts *opts,
			     int *err);
struct tree_bench *tree_open_ok(struct tree_world *world, struct mls_block_dev *dev,
				const struct mls_lsm_opts *opts);
void tree_close(struct tree_bench *bench);	/* no sync */

/* nr LBAs from lba on get new HBAs (mapped) or tombstones. */
int tree_put(struct tree_bench *bench, uint64_t lba, size_t nr, bool mapped);
int tree_sync(struct tree_bench *bench);
struct mls_index_rec tree_rec(uint64_t lba, uint64_t hba);

/* Every LBA is as in the model's now. */
void tree_check(struct tree_bench *bench);
/* The listener's counts are those of a full scan. */
void tree_check_counts(struct tree_bench *bench);

#endif
