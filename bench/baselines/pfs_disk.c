/* SPDX-License-Identifier: MPL-2.0 */
/*
 * pfs_disk.c - PfsDisk: in-place AES-256-GCM under a Merkle tree with a recovery journal, the way of Intel's
 * protected file system: what one gets who adds integrity and freshness to an in-place disk.
 *
 * Honestly tuned: writes gather in memory, up to 32 MiB, until a flush or until they are too many, and a commit
 * takes them all, sorted, through tree and journal; the other half of the memory takes writes meanwhile. Tree
 * nodes are cached (96 MiB by default, as MlsDisk's index). The writers load the nodes that the commit will need.
 *
 * Two sets of dirty blocks: the active one takes writes, the other is empty or being committed. A set has an
 * epoch; a flush waits until the epoch it saw is done. A block is read from the active set, else from the one
 * being committed, else from the device under the entry in the tree; if a commit changed it on the way, again.
 */
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/checked.h"
#include "base/err.h"
#include "bench/baselines/pfs_internal.h"

#define CACHE_BYTES_DEFAULT (UINT64_C(96) << 20)

/* ---- A set of dirty blocks ---- */

static uint32_t slot_of(const struct pfs_dirty *set, uint64_t lba)
{
	uint32_t slot = (uint32_t)(lba * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (set->table_room - 1);

	while (set->table[slot] && set->lba[set->table[slot] - 1] != lba)
		slot = (slot + 1) & (set->table_room - 1);
	return slot;
}

uint8_t *pfs_dirty_find(const struct pfs_dirty *set, uint64_t lba)
{
	uint32_t index = set->nr ? set->table[slot_of(set, lba)] : 0;

	return index ? mls_block_at(set->blocks, index - 1) : NULL;
}

/* false: full. */
static bool dirty_put(struct pfs_dirty *set, uint64_t lba, const uint8_t *data)
{
	uint32_t slot = slot_of(set, lba);

	if (!set->table[slot]) {
		if (set->nr == set->room)
			return false;
		set->lba[set->nr] = lba;
		set->table[slot] = ++set->nr;
	}
	memcpy(mls_block_at(set->blocks, set->table[slot] - 1), data, MLS_BLOCK_BYTES);
	return true;
}

static void dirty_clear(struct pfs_dirty *set)
{
	memset(set->table, 0, set->table_room * sizeof *set->table);
	set->nr = 0;
}

static int dirty_init(struct pfs_dirty *set)
{
	for (set->table_room = 1; set->table_room < 4 * set->room;)
		set->table_room *= 2;
	set->blocks = mls_blocks_alloc(set->room);
	set->lba = calloc(set->room, sizeof *set->lba);
	set->table = calloc(set->table_room, sizeof *set->table);
	return set->blocks && set->lba && set->table ? 0 : MLS_ENOMEM;
}

static void dirty_release(struct pfs_dirty *set)
{
	mls_blocks_free(set->blocks);
	free(set->lba);
	free(set->table);
}

/* ---- Commits ---- */

/* Take the active set through. lock is held, let go meanwhile; nobody else commits. */
static void commit_active(struct pfs_disk *p)
{
	struct pfs_dirty *set = &p->dirty[p->active];
	uint64_t epoch = p->epoch++;
	int err;

	MLS_INVARIANT(!p->committing);
	p->committing = true;
	p->active ^= 1;
	pthread_mutex_unlock(&p->lock);
	err = pfs_commit(p, set);
	pthread_mutex_lock(&p->lock);
	p->committing = false;
	if (err)
		p->failed = err;	/* what is on the device is unknown; recovery will tell */
	else
		dirty_clear(set);
	p->epoch_done = epoch;
	pthread_cond_broadcast(&p->committed);
}

static int pfs_flush(struct baseline *disk)
{
	struct pfs_disk *p = (struct pfs_disk *)disk;
	uint64_t epoch;
	int err;

	pthread_mutex_lock(&p->lock);
	epoch = p->dirty[p->active].nr ? p->epoch : p->epoch - 1;
	while (p->epoch_done < epoch && !p->failed) {
		if (p->committing)
			pthread_cond_wait(&p->committed, &p->lock);
		else
			commit_active(p);
	}
	err = p->failed ? MLS_EPOISONED : 0;
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* ---- Writes ---- */

static int write_block(struct pfs_disk *p, uint64_t lba, const uint8_t *data)
{
	struct pfs_node *node;
	int err;

	pthread_mutex_lock(&p->lock);
	err = pfs_node_get(p, 1, lba / PFS_FANOUT, &node);	/* the commit will want it: many load at once */
	while (!err && !p->failed && !dirty_put(&p->dirty[p->active], lba, data)) {
		if (p->committing)
			pthread_cond_wait(&p->committed, &p->lock);
		else
			commit_active(p);
	}
	if (!err && p->failed)
		err = MLS_EPOISONED;
	pthread_mutex_unlock(&p->lock);
	return err;
}

static int pfs_write(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, const void *data)
{
	int err = 0;

	for (uint32_t i = 0; i < nr_blocks && !err; i++)
		err = write_block((struct pfs_disk *)disk, lba + i, (const uint8_t *)data + (size_t)i * MLS_BLOCK_BYTES);
	return err;
}

/* ---- Reads ---- */

/* How each block opens, and those that are in memory. lock is held. */
static int look_up(struct pfs_disk *p, uint64_t lba, uint32_t nr_blocks, uint8_t *data, struct pfs_entry *entries,
		   bool *done)
{
	for (uint32_t i = 0; i < nr_blocks; i++) {
		const uint8_t *dirty = NULL;
		struct pfs_node *node;
		int err;

		if (done[i])
			continue;
		err = pfs_node_get(p, 1, (lba + i) / PFS_FANOUT, &node);
		if (err)
			return err;
		entries[i] = node->entry[(lba + i) % PFS_FANOUT];
		dirty = pfs_dirty_find(&p->dirty[p->active], lba + i);
		if (!dirty)
			dirty = pfs_dirty_find(&p->dirty[p->active ^ 1], lba + i);
		done[i] = dirty || pfs_entry_is_zero(&entries[i]);
		if (dirty)
			memcpy(mls_block_at(data, i), dirty, MLS_BLOCK_BYTES);
		else if (done[i])
			memset(mls_block_at(data, i), 0, MLS_BLOCK_BYTES);
	}
	return 0;
}

/* raw: where the device's bytes go, since those of a block that changed meanwhile don't open. */
static int read_some(struct pfs_disk *p, uint64_t lba, uint32_t nr_blocks, uint8_t *data, uint8_t *raw)
{
	struct pfs_entry entries[PFS_FANOUT] = {0}, before[PFS_FANOUT];
	bool done[PFS_FANOUT] = {false}, changed;
	uint32_t i;
	int err;

	do {
		memcpy(before, entries, sizeof before);
		pthread_mutex_lock(&p->lock);
		err = look_up(p, lba, nr_blocks, data, entries, done);
		pthread_mutex_unlock(&p->lock);
		for (i = 0; i < nr_blocks && done[i];)
			i++;
		if (err || i == nr_blocks)
			return err;
		err = mls_block_dev_read(p->dev, p->data_hba + lba, nr_blocks, raw);
		changed = false;
		for (i = 0; i < nr_blocks && !err; i++) {
			int failed;

			if (done[i])
				continue;
			failed = pfs_open_block(p, p->data_hba + lba + i, mls_block_at(raw, i), mls_block_at(data, i),
						&entries[i]);
			done[i] = !failed;
			changed = changed || failed;
		}
		/* Twice the same entry and it doesn't open: it isn't a commit that does this. */
		for (i = 0; i < nr_blocks && changed && !err; i++)
			if (!done[i] && memcmp(&before[i], &entries[i], sizeof before[i]) == 0)
				err = MLS_EAUTH;
	} while (!err && changed);
	return err;
}

static int pfs_read(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, void *data)
{
	uint8_t *raw = mls_blocks_alloc(mls_min_u64(nr_blocks, PFS_FANOUT));
	int err = raw ? 0 : MLS_ENOMEM;

	while (!err && nr_blocks) {
		uint32_t nr = (uint32_t)mls_min_u64(nr_blocks, PFS_FANOUT);

		err = read_some((struct pfs_disk *)disk, lba, nr, data, raw);
		lba += nr;
		nr_blocks -= nr;
		data = (uint8_t *)data + (size_t)nr * MLS_BLOCK_BYTES;
	}
	mls_blocks_free(raw);
	return err;
}

/* ---- Open and close ---- */

static void pfs_free(struct pfs_disk *p)
{
	pfs_nodes_drop(p);
	free(p->cached);
	for (uint32_t level = 1; level <= p->nr_levels; level++)
		free(p->node[level]);
	for (unsigned i = 0; i < 2; i++)
		dirty_release(&p->dirty[i]);
	pfs_commit_free(p);
	mls_aead_free(p->aead);
	pthread_cond_destroy(&p->committed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int pfs_destroy(struct baseline *disk)
{
	int err = pfs_flush(disk);

	pfs_free((struct pfs_disk *)disk);
	return err;
}

static int allocate(struct pfs_disk *p)
{
	int err = 0;

	for (uint32_t level = 1; level <= p->nr_levels && !err; level++) {
		p->node[level] = calloc(p->level_nr[level], sizeof(struct pfs_node *));
		err = p->node[level] ? 0 : MLS_ENOMEM;
	}
	for (unsigned i = 0; i < 2 && !err; i++)
		err = dirty_init(&p->dirty[i]);
	return err;
}

int pfs_disk_new(struct baseline **disk, struct mls_block_dev *dev, const uint8_t key[MLS_KEY_BYTES],
		 uint64_t cache_bytes)
{
	static const struct baseline_ops ops = {
		.read = pfs_read, .write = pfs_write, .flush = pfs_flush, .destroy = pfs_destroy};
	struct pfs_disk *p = calloc(1, sizeof *p);
	int err;

	if (!p)
		return MLS_ENOMEM;
	p->base.ops = &ops;
	p->dev = dev;
	p->epoch = 1;
	p->nr_cached_max =
		(uint32_t)mls_max_u64(64, (cache_bytes ? cache_bytes : CACHE_BYTES_DEFAULT) / MLS_BLOCK_BYTES);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->committed, NULL);
	pfs_layout(p, dev->nr_blocks);
	err = p->base.nr_blocks ? 0 : MLS_ENOSPC;
	if (!err)
		err = mls_aead_new(&p->aead, key);
	if (!err)
		err = allocate(p);
	if (!err)
		err = pfs_commit_new(p);
	if (!err)
		err = pfs_recover(p);
	if (err) {
		pfs_free(p);
		return err;
	}
	*disk = &p->base;
	return 0;
}
