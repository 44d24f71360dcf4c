/* SPDX-License-Identifier: MPL-2.0 */
/*
 * pfs_tree.c - PfsDisk's Merkle tree: where its nodes lie, and a cache of authenticated ones.
 *
 * A node holds nonce and tag of each of its 128 children; the top node's stand in the header. A node comes into
 * the cache only after it opened under its parent's entry, so what is cached is true.
 * Nodes are only changed by a commit, which pins them; the clock evicts the others.
 */
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/err.h"
#include "bench/baselines/pfs_internal.h"

#define DIRTY_BLOCKS_MAX 8192u		/* 32 MiB between commits */

/* ---- Layout ---- */

/* Where all lies if there are nr_blocks data blocks; returns the blocks it takes. */
static uint64_t layout_of(struct pfs_disk *p, uint64_t nr_blocks, uint64_t nr_dirty)
{
	uint64_t nr = nr_blocks, nr_items = nr_dirty + 1, hba;
	uint32_t level;

	for (level = 1; level <= PFS_NR_LEVELS_MAX; level++) {
		nr = mls_div_round_up(nr, PFS_FANOUT);
		p->level_nr[level] = nr;
		nr_items += mls_min_u64(nr, nr_dirty);
		if (nr == 1)
			break;
	}
	p->nr_levels = level;
	p->nr_items_max = (uint32_t)nr_items;
	p->old_hba = PFS_DESC_HBA + mls_div_round_up(nr_items, PFS_DESC_ENTRIES);
	hba = p->old_hba + nr_items;
	for (; level >= 1; level--) {
		p->level_start[level] = hba;
		hba += p->level_nr[level];
	}
	p->data_hba = hba;
	p->base.nr_blocks = nr_blocks;
	return hba + nr_blocks;
}

/* nr_blocks becomes 0 if nothing fits. */
void pfs_layout(struct pfs_disk *p, uint64_t nr_dev_blocks)
{
	uint64_t nr_dirty = mls_max_u64(16, mls_min_u64(nr_dev_blocks / 32, DIRTY_BLOCKS_MAX));
	uint64_t nr = nr_dev_blocks, needed = nr ? layout_of(p, nr, nr_dirty) : 0;

	p->dirty[0].room = p->dirty[1].room = (uint32_t)nr_dirty;
	while (needed > nr_dev_blocks) {
		nr = needed - nr_dev_blocks < nr ? nr - (needed - nr_dev_blocks) : 0;
		if (nr == 0)
			break;
		needed = layout_of(p, nr, nr_dirty);
	}
	p->base.nr_blocks = nr;
}

uint64_t pfs_node_hba(const struct pfs_disk *p, uint32_t level, uint64_t index)
{
	return p->level_start[level] + index;
}

/* ---- Blocks ---- */

bool pfs_entry_is_zero(const struct pfs_entry *entry)
{
	static const struct pfs_entry zero;

	return memcmp(entry, &zero, sizeof zero) == 0;
}

/*
 * The one key is the caller's. Its nonces: 96 random bits at each open, counting up from there; two opens would
 * have to draw starts within the other's count of writes.
 */
int pfs_seal(struct pfs_disk *p, uint64_t hba, const void *in, void *out, struct pfs_entry *entry)
{
	struct pfs_entry made = {{0}, {0}, {0}};
	uint8_t aad[8];
	int err;

	mls_nonce_make(made.nonce, p->nonce_a, p->nonce_b);
	p->nonce_a += ++p->nonce_b == 0;
	mls_put_le64(aad, hba);
	err = mls_aead_seal(p->aead, made.nonce, aad, sizeof aad, in, MLS_BLOCK_BYTES, out, made.tag);
	if (!err)
		*entry = made;
	return err;
}

int pfs_open_block(struct pfs_disk *p, uint64_t hba, const void *in, void *out, const struct pfs_entry *entry)
{
	uint8_t aad[8];

	mls_put_le64(aad, hba);
	return mls_aead_open(p->aead, entry->nonce, aad, sizeof aad, in, MLS_BLOCK_BYTES, out, entry->tag);
}

/* ---- The cache ---- */

static void evict(struct pfs_disk *p)
{
	for (uint32_t tries = 0; tries < 2 * p->nr_cached; tries++) {
		struct pfs_node *node;

		p->hand = p->hand + 1 < p->nr_cached ? p->hand + 1 : 0;
		node = p->cached[p->hand];
		if (node->referenced || node->pinned) {
			node->referenced = false;
			continue;
		}
		p->node[node->level][node->index] = NULL;
		p->cached[p->hand] = p->cached[--p->nr_cached];
		p->cached[p->hand]->slot = p->hand;
		free(node);
		return;
	}
}

static int insert(struct pfs_disk *p, struct pfs_node *node)
{
	while (p->nr_cached >= p->nr_cached_max) {
		uint32_t before = p->nr_cached;

		evict(p);
		if (p->nr_cached == before)
			break;			/* all are pinned: a little more, for a while */
	}
	if (p->nr_cached == p->cached_room) {
		uint32_t room = p->cached_room ? p->cached_room * 2 : 256;
		struct pfs_node **more = reallocarray(p->cached, room, sizeof(struct pfs_node *));

		if (!more)
			return MLS_ENOMEM;
		p->cached = more;
		p->cached_room = room;
	}
	node->slot = p->nr_cached;
	node->referenced = true;
	p->cached[p->nr_cached++] = node;
	p->node[node->level][node->index] = node;
	return 0;
}

void pfs_nodes_drop(struct pfs_disk *p)
{
	while (p->nr_cached) {
		struct pfs_node *node = p->cached[--p->nr_cached];

		p->node[node->level][node->index] = NULL;
		free(node);
	}
	p->hand = 0;
}

static struct pfs_entry *entry_in_parent(struct pfs_disk *p, uint32_t level, uint64_t index)
{
	struct pfs_node *parent;

	if (level == p->nr_levels)
		return &p->root;
	parent = p->node[level + 1][index / PFS_FANOUT];
	return parent ? &parent->entry[index % PFS_FANOUT] : NULL;
}

/* The node that opens under *entry, which is a copy. Without lock. */
static int load(struct pfs_disk *p, uint32_t level, uint64_t index, const struct pfs_entry *entry,
		struct pfs_node *node)
{
	uint8_t *raw = mls_blocks_alloc(1);
	uint64_t hba = pfs_node_hba(p, level, index);
	int err = raw ? mls_block_dev_read(p->dev, hba, 1, raw) : MLS_ENOMEM;

	if (!err)
		err = pfs_open_block(p, hba, raw, node->entry, entry);
	mls_blocks_free(raw);
	return err;
}

/* Bring one node into the cache, whose parent is there. MLS_OK also if things changed: look again. */
static int bring_in(struct pfs_disk *p, uint32_t level, uint64_t index)
{
	struct pfs_entry entry = *entry_in_parent(p, level, index), *now;
	struct pfs_node *node = calloc(1, sizeof *node);
	int err = 0;

	if (!node)
		return MLS_ENOMEM;
	node->level = level;
	node->index = index;
	if (!pfs_entry_is_zero(&entry)) {
		pthread_mutex_unlock(&p->lock);
		err = load(p, level, index, &entry, node);
		pthread_mutex_lock(&p->lock);
		now = entry_in_parent(p, level, index);
		if (p->node[level][index] || !now || memcmp(now, &entry, sizeof entry) != 0) {
			free(node);		/* somebody was faster, or a commit changed it */
			return 0;
		}
	}
	if (!err)
		err = insert(p, node);
	if (err)
		free(node);
	return err;
}

int pfs_node_get(struct pfs_disk *p, uint32_t level, uint64_t index, struct pfs_node **node)
{
	while (!p->node[level][index]) {
		uint64_t missing = index;
		uint32_t at = level;
		int err;

		while (!entry_in_parent(p, at, missing)) {
			missing /= PFS_FANOUT;
			at++;
		}
		err = bring_in(p, at, missing);
		if (err)
			return err;
	}
	*node = p->node[level][index];
	(*node)->referenced = true;
	return 0;
}
