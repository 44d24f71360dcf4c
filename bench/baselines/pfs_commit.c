/* SPDX-License-Identifier: MPL-2.0 */
/*
 * pfs_commit.c - PfsDisk's commit and recovery, after Intel's protected file system: undo logging.
 *
 *	read        the old ciphertext of every block that will change: data, tree nodes, header
 *	journal     write it, with a list of what it is; flush
 *	in place    write the new data, nodes, header; flush
 *
 * In place begins only after the journal is durable, so one of the two is whole at any time:
 *
 *	header opens, holds seq     journal for seq     journal for seq - 1 or none
 *	its listed blocks           verify the old in   look at the blocks now: all open -> committed;
 *	                            the journal: all    else as on the left
 *	                            open -> undo; else
 *	                            nothing was begun
 *	header is torn              the same as on the left, with no choice
 *
 * Each item of the list tells how its old block opens, so that old blocks, like new ones, prove themselves.
 * Blocks never written before have no old version; the old parent says so once it is back.
 */
#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "1-crypto/kdf.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"
#include "base/rand.h"
#include "bench/baselines/pfs_internal.h"

#define DIGEST_BYTES 32u
#define ITEM_BYTES 40u
#define TRANSFER_BLOCKS 256u

static const uint8_t header_magic[8] = {'P', 'F', 'S', 'B', 'A', 'S', 'E', '1'};

/* One block that a commit changes. */
struct item {
	uint64_t hba;
	struct pfs_entry old;		/* zero: there is no old version */
	const uint8_t *plain;		/* data: what to seal */
	struct pfs_node *node;		/* or the node */
	uint8_t *sealed;		/* its place in place */
};

struct pfs_commit {
	struct item *items;		/* data, then nodes level by level, then the header */
	struct item **by_hba;		/* the same in the order of the device */
	uint32_t nr_items;
	uint8_t *sealed, *old;		/* as many blocks; old: only of items that have one, packed */
	struct mls_io *ios;
};

/* ---- The header ---- */

struct header_plain {
	uint8_t seq[8];
	uint8_t nr_blocks[8];
	struct pfs_entry root;
	uint8_t zero[MLS_BLOCK_BYTES - 48];
};
_Static_assert(sizeof(struct header_plain) == MLS_BLOCK_BYTES, "sealed like any block");

/*
 * A header must say itself how it opens: it is one block with its entry outside of what is sealed. The last
 * HEADER_ROOM bytes of the plaintext, all zero, give way to magic and entry.
 */
#define HEADER_ROOM (sizeof header_magic + sizeof(struct pfs_entry))

static int header_seal(struct pfs_disk *p, uint64_t seq, const struct pfs_entry *root, uint8_t *out)
{
	struct header_plain plain = {.root = *root};
	struct pfs_entry entry = {{0}, {0}, {0}};
	uint8_t aad[8] = {0};
	size_t bytes = MLS_BLOCK_BYTES - HEADER_ROOM;
	int err;

	mls_put_le64(plain.seq, seq);
	mls_put_le64(plain.nr_blocks, p->base.nr_blocks);
	mls_nonce_make(entry.nonce, p->nonce_a, p->nonce_b);
	p->nonce_a += ++p->nonce_b == 0;
	err = mls_aead_seal(p->aead, entry.nonce, aad, sizeof aad, &plain, bytes, out + HEADER_ROOM, entry.tag);
	memcpy(out, header_magic, sizeof header_magic);
	memcpy(out + sizeof header_magic, &entry, sizeof entry);
	return err;
}

static int header_open(struct pfs_disk *p, const uint8_t *raw, uint64_t *seq, struct pfs_entry *root)
{
	struct header_plain plain = {.root = {{0}, {0}, {0}}};
	struct pfs_entry entry;
	uint8_t aad[8] = {0};
	int err;

	if (memcmp(raw, header_magic, sizeof header_magic) != 0)
		return MLS_EAUTH;
	memcpy(&entry, raw + sizeof header_magic, sizeof entry);
	err = mls_aead_open(p->aead, entry.nonce, aad, sizeof aad, raw + HEADER_ROOM, MLS_BLOCK_BYTES - HEADER_ROOM,
			    &plain, entry.tag);
	if (err)
		return err;
	if (mls_get_le64(plain.nr_blocks) != p->base.nr_blocks)
		return MLS_EAUTH;
	*seq = mls_get_le64(plain.seq);
	*root = plain.root;
	return 0;
}

/* ---- Writing and reading many blocks ---- */

enum side { OLD_READ, NEW_WRITE };

/* Runs of neighbouring blocks, each one transfer. The packed old blocks and the sealed ones lie in HBA order. */
static bool has_old(const struct item *item)
{
	return item->hba == PFS_HEADER_HBA || !pfs_entry_is_zero(&item->old);
}

static int transfer_items(struct pfs_disk *p, struct pfs_commit *c, enum side side)
{
	uint8_t *data = side == OLD_READ ? c->old : c->sealed;
	unsigned nr_ios = 0;

	for (uint32_t i = 0; i < c->nr_items; i++) {
		const struct item *item = c->by_hba[i];
		struct mls_io *last = nr_ios ? &c->ios[nr_ios - 1] : NULL;

		if (side == OLD_READ && !has_old(item))
			continue;
		if (last && last->hba + last->nr_blocks == item->hba && last->nr_blocks < TRANSFER_BLOCKS)
			last->nr_blocks++;
		else
			c->ios[nr_ios++] = (struct mls_io){.hba = item->hba, .nr_blocks = 1, .data = data};
		data += MLS_BLOCK_BYTES;
	}
	return side == OLD_READ ? mls_block_dev_readv(p->dev, c->ios, nr_ios)
				: mls_block_dev_writev(p->dev, c->ios, nr_ios);
}

static int write_long(struct pfs_disk *p, uint64_t hba, uint64_t nr_blocks, uint8_t *data)
{
	int err = 0;

	while (!err && nr_blocks) {
		uint32_t nr = (uint32_t)mls_min_u64(nr_blocks, 4 * TRANSFER_BLOCKS);

		err = mls_block_dev_write(p->dev, hba, nr, data);
		hba += nr;
		nr_blocks -= nr;
		data += (size_t)nr * MLS_BLOCK_BYTES;
	}
	return err;
}

/* ---- The journal ---- */

/* seq: of the state that it brings back. The first descriptor's digest covers all of them but itself. */
static uint64_t desc_blocks(uint32_t nr_items)
{
	return mls_div_round_up(nr_items, PFS_DESC_ENTRIES);
}

static uint8_t *desc_item(uint8_t *desc, uint32_t i)
{
	return mls_block_at(desc, i / PFS_DESC_ENTRIES) + DIGEST_BYTES + 16 + i % PFS_DESC_ENTRIES * ITEM_BYTES;
}

static int desc_digest(const uint8_t *desc, uint32_t nr_items, uint8_t digest[DIGEST_BYTES])
{
	return mls_sha256(desc + DIGEST_BYTES, desc_blocks(nr_items) * MLS_BLOCK_BYTES - DIGEST_BYTES, digest);
}

static int journal_write(struct pfs_disk *p, struct pfs_commit *c)
{
	uint8_t *desc = mls_blocks_zalloc(desc_blocks(c->nr_items));
	uint64_t nr_old = 0;
	int err;

	if (!desc)
		return MLS_ENOMEM;
	mls_put_le64(desc + DIGEST_BYTES, p->seq);
	mls_put_le64(desc + DIGEST_BYTES + 8, c->nr_items);
	for (uint32_t i = 0; i < c->nr_items; i++) {
		const struct item *item = c->by_hba[i];
		uint8_t *place = desc_item(desc, i);

		mls_put_le64(place, item->hba);
		memcpy(place + 8, &item->old, sizeof item->old);
		nr_old += has_old(item);
	}
	err = desc_digest(desc, c->nr_items, desc);
	if (!err)
		err = mls_block_dev_write(p->dev, PFS_DESC_HBA, (uint32_t)desc_blocks(c->nr_items), desc);
	if (!err)
		err = write_long(p, p->old_hba, nr_old, c->old);
	if (!err)
		err = mls_block_dev_flush(p->dev);
	mls_blocks_free(desc);
	return err;
}

/* MLS_ENOENT: there is none that was written in full. */
static int journal_read(struct pfs_disk *p, struct pfs_commit *c, uint64_t *seq)
{
	uint64_t nr_desc = desc_blocks(p->nr_items_max), nr_items;
	uint8_t *desc = mls_blocks_alloc(nr_desc), digest[DIGEST_BYTES];
	int err = desc ? mls_block_dev_read(p->dev, PFS_DESC_HBA, (uint32_t)nr_desc, desc) : MLS_ENOMEM;

	if (err)
		goto out;
	*seq = mls_get_le64(desc + DIGEST_BYTES);
	nr_items = mls_get_le64(desc + DIGEST_BYTES + 8);
	err = MLS_ENOENT;
	if (nr_items == 0 || nr_items > p->nr_items_max || desc_digest(desc, (uint32_t)nr_items, digest) ||
	    !mls_equal_const_time(digest, desc, DIGEST_BYTES))
		goto out;
	for (uint32_t i = 0; i < nr_items; i++) {
		const uint8_t *item = desc_item(desc, i);

		c->items[i].hba = mls_get_le64(item);
		memcpy(&c->items[i].old, item + 8, sizeof c->items[i].old);
		if (c->items[i].hba != PFS_HEADER_HBA &&
		    (c->items[i].hba < p->level_start[p->nr_levels] ||
		     c->items[i].hba >= p->data_hba + p->base.nr_blocks))
			goto out;
	}
	c->nr_items = (uint32_t)nr_items;
	err = 0;
out:
	mls_blocks_free(desc);
	return err;
}

/* ---- A commit ---- */

int pfs_commit_new(struct pfs_disk *p)
{
	struct pfs_commit *c = calloc(1, sizeof *c);

	p->commit = c;
	if (!c)
		return MLS_ENOMEM;
	c->items = calloc(p->nr_items_max, sizeof *c->items);
	c->by_hba = calloc(p->nr_items_max, sizeof *c->by_hba);
	c->sealed = mls_blocks_alloc(p->nr_items_max);
	c->old = mls_blocks_alloc(p->nr_items_max);
	c->ios = calloc(p->nr_items_max, sizeof *c->ios);
	return c->items && c->by_hba && c->sealed && c->old && c->ios ? 0 : MLS_ENOMEM;
}

void pfs_commit_free(struct pfs_disk *p)
{
	if (!p->commit)
		return;
	free(p->commit->items);
	free(p->commit->by_hba);
	mls_blocks_free(p->commit->sealed);
	mls_blocks_free(p->commit->old);
	free(p->commit->ios);
	free(p->commit);
}

static int compare_hba(const void *a, const void *b)
{
	uint64_t x = (*(struct item *const *)a)->hba, y = (*(struct item *const *)b)->hba;

	return x < y ? -1 : x > y;
}

/* The parent of a block, pinned and listed once; *entry is the block's place in it. lock is held. */
static int pin_parent(struct pfs_disk *p, struct pfs_commit *c, uint32_t level, uint64_t index, struct pfs_entry **entry)
{
	struct pfs_node *node;
	int err;

	if (level > p->nr_levels) {
		*entry = &p->root;
		return 0;
	}
	err = pfs_node_get(p, level, index / PFS_FANOUT, &node);
	if (err)
		return err;
	if (!node->pinned) {
		node->pinned = true;
		c->items[c->nr_items++] = (struct item){.hba = pfs_node_hba(p, level, node->index), .node = node};
	}
	*entry = &node->entry[index % PFS_FANOUT];
	return 0;
}

/* All that will change, with how it opens now: data, then level by level, then the header. */
static int list_items(struct pfs_disk *p, struct pfs_commit *c, const struct pfs_dirty *set)
{
	struct pfs_entry *entry;
	int err = 0;

	pthread_mutex_lock(&p->lock);
	for (uint32_t i = 0; i < set->nr && !err; i++)
		c->items[c->nr_items++] =
			(struct item){.hba = p->data_hba + set->lba[i], .plain = mls_block_at(set->blocks, i)};
	for (uint32_t i = 0; i < c->nr_items && !err; i++) {	/* grows by the parents */
		const struct pfs_node *node = c->items[i].node;

		err = pin_parent(p, c, node ? node->level + 1 : 1, node ? node->index : set->lba[i], &entry);
		if (!err)
			c->items[i].old = *entry;
	}
	pthread_mutex_unlock(&p->lock);
	c->items[c->nr_items++] = (struct item){.hba = PFS_HEADER_HBA};
	return err;
}

/* Below before above: a node is sealed when all its children's entries are new. Items are in that order. */
static int seal_items(struct pfs_disk *p, struct pfs_commit *c)
{
	int err = 0;

	for (uint32_t i = 0; i + 1 < c->nr_items && !err; i++) {
		struct item *item = &c->items[i];
		const struct pfs_node *node = item->node;
		struct pfs_entry made, *entry = &p->root;
		uint32_t level = node ? node->level + 1 : 1;
		uint64_t index = node ? node->index : item->hba - p->data_hba;

		err = pfs_seal(p, item->hba, node ? (const void *)node->entry : item->plain, item->sealed, &made);
		if (err)
			break;
		pthread_mutex_lock(&p->lock);
		if (level <= p->nr_levels)
			entry = &p->node[level][index / PFS_FANOUT]->entry[index % PFS_FANOUT];	/* pinned */
		*entry = made;
		pthread_mutex_unlock(&p->lock);
	}
	return err ? err : header_seal(p, p->seq + 1, &p->root, c->items[c->nr_items - 1].sealed);
}

static void unpin(struct pfs_disk *p, struct pfs_commit *c)
{
	pthread_mutex_lock(&p->lock);
	for (uint32_t i = 0; i < c->nr_items; i++)
		if (c->items[i].node)
			c->items[i].node->pinned = false;
	pthread_mutex_unlock(&p->lock);
}

/* Sealed blocks lie in the order of the device, so that neighbours are one transfer. */
static void assign_places(struct pfs_commit *c)
{
	for (uint32_t i = 0; i < c->nr_items; i++)
		c->by_hba[i] = &c->items[i];
	qsort(c->by_hba, c->nr_items, sizeof(struct item *), compare_hba);
	for (uint32_t i = 0; i < c->nr_items; i++)
		c->by_hba[i]->sealed = mls_block_at(c->sealed, i);
}

int pfs_commit(struct pfs_disk *p, const struct pfs_dirty *set)
{
	struct pfs_commit *c = p->commit;
	int err;

	c->nr_items = 0;
	err = list_items(p, c, set);
	if (err)
		goto out;
	assign_places(c);
	err = seal_items(p, c);
	if (!err)
		err = transfer_items(p, c, OLD_READ);
	if (!err)
		err = journal_write(p, c);
	if (!err)
		err = transfer_items(p, c, NEW_WRITE);
	if (!err)
		err = mls_block_dev_flush(p->dev);
	if (!err)
		p->seq++;
out:
	unpin(p, c);
	return err;
}

/* ---- Recovery ---- */

/* Does what the list names open under the tree as it is now? */
static int verify_now(struct pfs_disk *p, const struct pfs_commit *c, uint8_t *block)
{
	struct pfs_node *node;
	int err = 0;

	pthread_mutex_lock(&p->lock);
	for (uint32_t i = 0; i < c->nr_items && !err; i++) {
		uint64_t lba = c->items[i].hba - p->data_hba;
		struct pfs_entry entry;

		if (c->items[i].hba < p->data_hba)
			continue;		/* nodes prove themselves on the way to the data */
		err = pfs_node_get(p, 1, lba / PFS_FANOUT, &node);
		if (err)
			break;
		entry = node->entry[lba % PFS_FANOUT];
		pthread_mutex_unlock(&p->lock);
		err = mls_block_dev_read(p->dev, c->items[i].hba, 1, block);
		if (!err)
			err = pfs_open_block(p, c->items[i].hba, block, block, &entry);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* Go over the journal's old blocks: undo false: does each open? true: put them back. */
static int each_old(struct pfs_disk *p, const struct pfs_commit *c, uint64_t seq, bool undo, uint8_t *block)
{
	uint64_t at = p->old_hba, header_seq;
	struct pfs_entry root;
	int err = 0;

	for (uint32_t i = 0; i < c->nr_items && !err; i++) {
		const struct item *item = &c->items[i];
		bool header = item->hba == PFS_HEADER_HBA;

		if (!has_old(item))
			continue;
		err = mls_block_dev_read(p->dev, at++, 1, block);
		if (err)
			break;
		if (undo) {
			err = mls_block_dev_write(p->dev, item->hba, 1, block);
		} else if (header) {
			err = header_open(p, block, &header_seq, &root);
			if (!err && header_seq != seq)
				err = MLS_EAUTH;
		} else {
			err = pfs_open_block(p, item->hba, block, block, &item->old);
		}
	}
	return err || !undo ? err : mls_block_dev_flush(p->dev);
}

static int header_read(struct pfs_disk *p, uint8_t *block)
{
	int err = mls_block_dev_read(p->dev, PFS_HEADER_HBA, 1, block);

	return err ? err : header_open(p, block, &p->seq, &p->root);
}

static bool is_zero(const uint8_t *block)
{
	for (uint32_t i = 0; i < MLS_BLOCK_BYTES; i++)
		if (block[i])
			return false;
	return true;
}

/* A new disk: nothing was ever written. */
static int make_new(struct pfs_disk *p, uint8_t *block)
{
	int err = header_seal(p, 0, &p->root, block);

	if (!err)
		err = mls_block_dev_write(p->dev, PFS_HEADER_HBA, 1, block);
	return err ? err : mls_block_dev_flush(p->dev);
}

static int undo(struct pfs_disk *p, const struct pfs_commit *c, uint64_t seq, uint8_t *block)
{
	int err = each_old(p, c, seq, true, block);

	pfs_nodes_drop(p);
	mls_info("pfs: an interrupted commit of %u blocks was undone", c->nr_items);
	return err ? err : header_read(p, block);
}

int pfs_recover(struct pfs_disk *p)
{
	uint8_t *block = mls_blocks_alloc(1);
	uint64_t journal_seq = 0;
	struct pfs_commit *c = p->commit;
	int err, header_err, journal_err;

	err = block ? 0 : MLS_ENOMEM;
	if (!err)
		err = mls_rand_bytes(&p->nonce_a, sizeof p->nonce_a);
	if (!err)
		err = mls_rand_bytes(&p->nonce_b, sizeof p->nonce_b);
	if (err)
		goto out;
	header_err = header_read(p, block);
	if (header_err && is_zero(block)) {
		err = make_new(p, block);
		goto out;
	}
	journal_err = journal_read(p, c, &journal_seq);
	if (journal_err && journal_err != MLS_ENOENT)
		err = journal_err;
	else if (journal_err)
		err = header_err;
	else if (!header_err && journal_seq + 1 == p->seq && verify_now(p, c, block) == 0)
		err = 0;				/* the last commit got through */
	else if (!header_err && journal_seq != p->seq && journal_seq + 1 != p->seq)
		err = 0;				/* of another time */
	else if (each_old(p, c, journal_seq, false, block) == 0)
		err = undo(p, c, journal_seq, block);
	else						/* not whole: in place wasn't begun */
		err = header_err ? header_err : journal_seq == p->seq ? 0 : MLS_EAUTH;
out:
	mls_blocks_free(block);
	return err;
}
