/* SPDX-License-Identifier: MPL-2.0 */
/*
 * pfs_internal.h - what the three files of PfsDisk share: pfs_disk.c, pfs_tree.c, pfs_commit.c.
 *
 * Layout   Block 0: header. Then the recovery journal: descriptors, old blocks. Then the tree, its top
 *          level first, then the data blocks.
 * Locks    lock: everything in struct pfs_disk but what a commit owns. Never held over I/O.
 */
#ifndef MLS_BENCH_PFS_INTERNAL_H
#define MLS_BENCH_PFS_INTERNAL_H

#include <pthread.h>

#include "base/buf.h"
#include "bench/baselines/baseline.h"

#define PFS_FANOUT 128u
#define PFS_NR_LEVELS_MAX 6u
#define PFS_HEADER_HBA 0u
#define PFS_DESC_HBA 1u
#define PFS_DESC_ENTRIES 100u	/* in a block of the journal's list */

/* How to open a block; lies in its parent. All zero: the block was never written and reads as zeros. */
struct pfs_entry {
	uint8_t nonce[MLS_NONCE_BYTES];
	uint8_t tag[MLS_TAG_BYTES];
	uint8_t zero[4];
};
_Static_assert(sizeof(struct pfs_entry) * PFS_FANOUT == MLS_BLOCK_BYTES, "a node is a block");

struct pfs_node {
	struct pfs_entry entry[PFS_FANOUT];
	uint64_t index;
	uint32_t level;		/* 1: its entries are of data blocks */
	uint32_t slot;		/* in cached[] */
	bool pinned;		/* a commit changes it */
	bool referenced;	/* since the clock's hand came by */
};

/* Blocks written and not committed. */
struct pfs_dirty {
	uint8_t *blocks;
	uint64_t *lba;
	uint32_t *table;	/* open addressing: index + 1; 0: empty */
	uint32_t nr, room, table_room;
};

struct pfs_disk {
	struct baseline base;
	struct mls_block_dev *dev;	/* borrowed */
	struct mls_aead *aead;

	/* Layout: fixed after open. */
	uint32_t nr_levels;
	uint64_t level_start[PFS_NR_LEVELS_MAX + 1], level_nr[PFS_NR_LEVELS_MAX + 1];	/* 1 ... nr_levels */
	uint64_t old_hba, data_hba;
	uint32_t nr_items_max;		/* blocks that one commit may change */

	pthread_mutex_t lock;
	pthread_cond_t committed;
	struct pfs_node **node[PFS_NR_LEVELS_MAX + 1];	/* by level and index; NULL: not cached */
	struct pfs_node **cached;			/* all of them, for the clock */
	uint32_t nr_cached, cached_room, nr_cached_max, hand;
	struct pfs_entry root;				/* of the one node at the top level */
	uint32_t nonce_a;				/* the next nonce: drawn at open, then counting */
	uint64_t nonce_b;
	uint64_t seq;					/* of the last commit */

	struct pfs_dirty dirty[2];
	uint32_t active;		/* takes writes; the other one is being committed, or empty */
	bool committing;
	uint64_t epoch, epoch_done;	/* of the active set; of the last set committed */
	struct pfs_commit *commit;	/* the memory of the one that runs */
	int failed;			/* a commit failed: all later calls do */
};

/* ---- pfs_tree.c ---- */

void pfs_layout(struct pfs_disk *p, uint64_t nr_dev_blocks);
uint64_t pfs_node_hba(const struct pfs_disk *p, uint32_t level, uint64_t index);
bool pfs_entry_is_zero(const struct pfs_entry *entry);

/* Seal in at hba into out, and say how it opens again. The nonce is new. Only commits and the open do. */
MLS_MUST_CHECK int pfs_seal(struct pfs_disk *p, uint64_t hba, const void *in, void *out, struct pfs_entry *entry);
MLS_MUST_CHECK int pfs_open_block(struct pfs_disk *p, uint64_t hba, const void *in, void *out,
				  const struct pfs_entry *entry);

/* The cached node; loads it and those above it. lock is held, and let go meanwhile. */
MLS_MUST_CHECK int pfs_node_get(struct pfs_disk *p, uint32_t level, uint64_t index, struct pfs_node **node);
void pfs_nodes_drop(struct pfs_disk *p);	/* all of them */

/* ---- pfs_commit.c ---- */

/* Write set through the tree to the device, by way of the recovery journal. Without lock; one at a time. */
MLS_MUST_CHECK int pfs_commit(struct pfs_disk *p, const struct pfs_dirty *set);

MLS_MUST_CHECK int pfs_commit_new(struct pfs_disk *p);	/* what commits work with, before the first */
void pfs_commit_free(struct pfs_disk *p);

/* Find the header, undo a commit that was interrupted, make a new disk where there is none. */
MLS_MUST_CHECK int pfs_recover(struct pfs_disk *p);

/* ---- pfs_disk.c ---- */

/* Where lba's bytes are in set; NULL: not there. */
uint8_t *pfs_dirty_find(const struct pfs_dirty *set, uint64_t lba);

#endif
