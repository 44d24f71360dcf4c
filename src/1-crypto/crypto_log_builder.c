/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_log_builder.c - writes a crypto log, once; see crypto_log.h and crypto_log_layout.h.
 *
 *	building --finish--> finished
 *	    any error --> poisoned: blocks may have been sealed that nobody has, so no position is
 *	                  ever sealed again; whoever wants the log starts another
 *
 * One node is open at each level. A full one is sealed behind its last child, and its tag goes
 * to the level above; finish does the same with those that are left, lowest first, up to the
 * level where a single tag remains: the root.
 *
 * Invariant: next_pos is where mls_mht_data_pos or mls_mht_node_pos says the block belongs.
 */
#include "1-crypto/crypto_log.h"

#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_log_layout.h"
#include "1-crypto/crypto_log_seal.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"
#include "format/mlsdisk_format.h"

#define BUFFER_BLOCKS 64u

_Static_assert(sizeof(((struct mls_mht_node_disk *)0)->child_tag) == MLS_MHT_FANOUT * MLS_TAG_BYTES,
	       "the node has the fanout");

enum builder_state { BUILDER_BUILDING, BUILDER_FINISHED, BUILDER_POISONED };

struct open_node {
	uint32_t nr_children;
	uint64_t index;			/* among the nodes of its level */
	struct mls_mht_node_disk disk;
};

struct mls_crypto_log_builder {
	struct mls_block_log *raw;
	struct mls_aead *aead;
	uint8_t salt[MLS_SALT_BYTES];
	enum builder_state state;
	uint64_t nr_data, next_pos;
	uint8_t *blocks;		/* sealed, waiting to be written */
	uint32_t nr_sealed;
	/* One level more than a log can have: the root's tag ends up above the top. */
	struct open_node open[MLS_MHT_LEVELS + 1];
};

int mls_crypto_log_builder_new(struct mls_crypto_log_builder **builder, struct mls_block_log *raw,
			       const struct mls_keyring *keys)
{
	struct mls_crypto_log_builder *b = calloc(1, sizeof *b);
	int err;

	MLS_INVARIANT(raw->nr_blocks == 0);
	if (!b)
		return MLS_ENOMEM;
	b->raw = raw;
	b->blocks = mls_blocks_alloc(BUFFER_BLOCKS);
	err = b->blocks ? mls_rand_bytes(b->salt, sizeof b->salt) : MLS_ENOMEM;
	if (!err)
		err = mls_key_derive_aead(keys, MLS_LOG_KEY_LABEL, b->salt, &b->aead);
	if (err) {
		mls_crypto_log_builder_free(b);
		return err;
	}
	*builder = b;
	return 0;
}

void mls_crypto_log_builder_free(struct mls_crypto_log_builder *builder)
{
	if (!builder)
		return;
	mls_blocks_free(builder->blocks);
	mls_aead_free(builder->aead);
	free(builder);
}

static int write_sealed(struct mls_crypto_log_builder *b)
{
	int err = 0;

	if (b->nr_sealed > 0)
		err = mls_block_log_append(b->raw, b->blocks, b->nr_sealed);
	b->nr_sealed = 0;
	return err;
}

/* Seal one block of either kind at next_pos. tag may lie in an open node. */
static int seal_block(struct mls_crypto_log_builder *b, uint32_t kind, uint64_t index, const void *plain,
		      uint8_t tag[MLS_TAG_BYTES])
{
	struct mls_log_place place = { .kind = kind, .index = index, .pos = b->next_pos };
	int err;

	if (b->nr_sealed == BUFFER_BLOCKS) {
		err = write_sealed(b);
		if (err)
			return err;
	}
	err = mls_log_seal(b->aead, &place, plain, mls_block_at(b->blocks, b->nr_sealed), tag);
	if (err)
		return err;
	b->nr_sealed++;
	b->next_pos++;
	return 0;
}

/* Where the next child's tag of this level's open node goes. */
static uint8_t *next_tag(struct mls_crypto_log_builder *b, unsigned level)
{
	MLS_INVARIANT(level <= MLS_MHT_LEVELS && b->open[level].nr_children < MLS_MHT_FANOUT);
	return b->open[level].disk.child_tag[b->open[level].nr_children];
}

/* Seal the open node of level, give its tag to the level above, and begin a new one. */
static int close_node(struct mls_crypto_log_builder *b, unsigned level)
{
	struct open_node *node = &b->open[level];
	int err;

	MLS_INVARIANT(node->nr_children > 0);
	mls_put_le16(node->disk.level, (uint16_t)level);
	mls_put_le16(node->disk.nr_children, (uint16_t)node->nr_children);
	err = seal_block(b, MLS_LOG_KIND_NODE(level), node->index, &node->disk, next_tag(b, level + 1));
	if (err)
		return err;
	b->open[level + 1].nr_children++;
	node->index++;
	node->nr_children = 0;
	memset(&node->disk, 0, sizeof node->disk);
	return 0;
}

static int append_one(struct mls_crypto_log_builder *b, const void *block)
{
	unsigned level;
	int err;

	MLS_INVARIANT(b->next_pos == mls_mht_data_pos(b->nr_data));
	err = seal_block(b, MLS_LOG_KIND_DATA, b->nr_data, block, next_tag(b, 0));
	if (err)
		return err;
	b->nr_data++;
	b->open[0].nr_children++;
	for (level = 0; b->open[level].nr_children == MLS_MHT_FANOUT; level++) {
		err = close_node(b, level);
		if (err)
			return err;
	}
	return 0;
}

int mls_crypto_log_append(struct mls_crypto_log_builder *builder, const void *blocks, uint32_t nr_blocks)
{
	const uint8_t *block = blocks;

	if (builder->state == BUILDER_POISONED)
		return MLS_EPOISONED;
	MLS_INVARIANT(builder->state == BUILDER_BUILDING);
	MLS_INVARIANT(builder->nr_data + nr_blocks <= MLS_MHT_DATA_BLOCKS_MAX);
	for (; nr_blocks > 0; nr_blocks--, block += MLS_BLOCK_BYTES) {
		int err = append_one(builder, block);

		if (err) {
			builder->state = BUILDER_POISONED;
			return err;
		}
	}
	return 0;
}

/* Close what is open up to the top; the root's tag is then the only one above it. */
static int close_all(struct mls_crypto_log_builder *b, unsigned top)
{
	unsigned level;
	int err;

	for (level = 0; level <= top; level++) {
		if (b->open[level].nr_children == 0)
			continue;
		MLS_INVARIANT(b->next_pos == mls_mht_node_pos(b->nr_data, level, b->open[level].index));
		err = close_node(b, level);
		if (err)
			return err;
	}
	MLS_INVARIANT(b->open[top + 1].nr_children == 1);
	MLS_INVARIANT(b->next_pos == mls_crypto_log_total_blocks(b->nr_data));
	return write_sealed(b);
}

int mls_crypto_log_finish(struct mls_crypto_log_builder *builder, struct mls_log_root *root)
{
	unsigned top;
	int err;

	if (builder->state == BUILDER_POISONED)
		return MLS_EPOISONED;
	MLS_INVARIANT(builder->state == BUILDER_BUILDING);
	if (builder->nr_data == 0)
		return MLS_EINVAL;
	top = mls_mht_top_level(builder->nr_data);
	err = close_all(builder, top);
	if (err) {
		builder->state = BUILDER_POISONED;
		return err;
	}
	builder->state = BUILDER_FINISHED;
	memcpy(root->salt, builder->salt, sizeof root->salt);
	memcpy(root->tag, builder->open[top + 1].disk.child_tag[0], sizeof root->tag);
	root->nr_data_blocks = builder->nr_data;
	return 0;
}
