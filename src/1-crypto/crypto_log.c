/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_log.c - reads a crypto log; see crypto_log.h. Where what lies: crypto_log_layout.h.
 *
 * A tag is believed because its node authenticated under a tag that was believed, up to the root.
 * Plain nodes are cached, up to CACHE_NODES of a log (a log of 64 MiB has fewer), replaced by the
 * clock rule; the top node is never replaced. The lock guards the cache only: it is taken for a
 * look or a copy of tags, never over I/O or cryptography. So two threads may load the same node;
 * the second finds it there and drops its own.
 *
 * Invariant: a node in the cache has authenticated, and is for its key what the layout says.
 */
#include "1-crypto/crypto_log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "1-crypto/crypto_log_layout.h"
#include "1-crypto/crypto_log_seal.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

#define CACHE_NODES 64u
#define NO_NODE UINT64_MAX

struct mls_crypto_log {
	const struct mls_block_log *raw;
	struct mls_aead *aead;
	struct mls_log_root root;
	unsigned top;

	pthread_mutex_t lock;		/* "cache.lock": guards all below */
	uint64_t keys[CACHE_NODES];	/* level and index of nodes[i]; NO_NODE: empty */
	struct mls_mht_node_disk *nodes[CACHE_NODES];
	bool used[CACHE_NODES];		/* since the hand came by */
	unsigned hand;
};

static uint64_t node_key(unsigned level, uint64_t index)
{
	return (uint64_t)level << 56 | index;
}

int mls_crypto_log_open(struct mls_crypto_log **log, const struct mls_block_log *raw,
			const struct mls_keyring *keys, const struct mls_log_root *root)
{
	struct mls_crypto_log *l;
	unsigned i;
	int err;

	if (root->nr_data_blocks == 0 || root->nr_data_blocks > MLS_MHT_DATA_BLOCKS_MAX ||
	    mls_crypto_log_total_blocks(root->nr_data_blocks) != raw->nr_blocks)
		return MLS_EINVAL;
	l = calloc(1, sizeof *l);
	if (!l)
		return MLS_ENOMEM;
	err = mls_key_derive_aead(keys, MLS_LOG_KEY_LABEL, root->salt, &l->aead);
	if (err) {
		free(l);
		return err;
	}
	l->raw = raw;
	l->root = *root;
	l->top = mls_mht_top_level(root->nr_data_blocks);
	pthread_mutex_init(&l->lock, NULL);
	for (i = 0; i < CACHE_NODES; i++)
		l->keys[i] = NO_NODE;
	*log = l;
	return 0;
}

void mls_crypto_log_close(struct mls_crypto_log *log)
{
	unsigned i;

	if (!log)
		return;
	for (i = 0; i < CACHE_NODES; i++)
		mls_blocks_free(log->nodes[i]);
	pthread_mutex_destroy(&log->lock);
	mls_aead_free(log->aead);
	free(log);
}

uint64_t mls_crypto_log_hba(const struct mls_crypto_log *log, uint64_t pos)
{
	uint64_t at = mls_mht_data_pos(pos);

	MLS_INVARIANT(pos < log->root.nr_data_blocks);
	return log->raw->chunk_hbas[at / log->raw->chunk_blocks] + at % log->raw->chunk_blocks;
}

static int not_authentic(const struct mls_crypto_log *log, const struct mls_log_place *place)
{
	const struct mls_block_log *raw = log->raw;

	mls_error("log: %s %llu at HBA %llu (position %llu) doesn't authenticate",
		  place->kind == MLS_LOG_KIND_DATA ? "block" : "tree node", (unsigned long long)place->index,
		  (unsigned long long)(raw->chunk_hbas[place->pos / raw->chunk_blocks] +
				       place->pos % raw->chunk_blocks),
		  (unsigned long long)place->pos);
	return MLS_EAUTH;
}

static int cache_find_locked(const struct mls_crypto_log *log, uint64_t key)
{
	unsigned i;

	for (i = 0; i < CACHE_NODES; i++)
		if (log->keys[i] == key)
			return (int)i;
	return -1;
}

/* Copy tags out of a cached node. false: it isn't there. */
static bool cache_get(struct mls_crypto_log *log, uint64_t key, uint32_t first, uint32_t nr,
		      uint8_t (*tags)[MLS_TAG_BYTES])
{
	int i;

	pthread_mutex_lock(&log->lock);
	i = cache_find_locked(log, key);
	if (i >= 0) {
		log->used[i] = true;
		memcpy(tags, log->nodes[i]->child_tag[first], (size_t)nr * MLS_TAG_BYTES);
	}
	pthread_mutex_unlock(&log->lock);
	return i >= 0;
}

/* A slot for a new node: an empty one, or one not used since the hand came by. */
static unsigned cache_victim_locked(struct mls_crypto_log *log)
{
	const uint64_t top_key = node_key(log->top, 0);

	for (;;) {
		unsigned i = log->hand;

		log->hand = (i + 1) % CACHE_NODES;
		if (log->keys[i] == NO_NODE)
			return i;
		if (log->keys[i] != top_key && !log->used[i])
			return i;
		log->used[i] = false;
	}
}

/* Takes node over. */
static void cache_put(struct mls_crypto_log *log, uint64_t key, struct mls_mht_node_disk *node)
{
	struct mls_mht_node_disk *unneeded = node;

	pthread_mutex_lock(&log->lock);
	if (cache_find_locked(log, key) < 0) {
		unsigned i = cache_victim_locked(log);

		unneeded = log->nodes[i];
		log->nodes[i] = node;
		log->keys[i] = key;
		log->used[i] = true;
	}
	pthread_mutex_unlock(&log->lock);
	mls_blocks_free(unneeded);
}

/* Read and authenticate one node under a tag that is believed. */
static int load_node(const struct mls_crypto_log *log, unsigned level, uint64_t index,
		     const uint8_t tag[MLS_TAG_BYTES], struct mls_mht_node_disk *node)
{
	const uint64_t nr_data = log->root.nr_data_blocks;
	struct mls_log_place place = {
		.kind = MLS_LOG_KIND_NODE(level),
		.index = index,
		.pos = mls_mht_node_pos(nr_data, level, index),
	};
	int err = mls_block_log_read(log->raw, place.pos, 1, node);

	if (!err)
		err = mls_log_unseal(log->aead, &place, node, tag);
	if (err)
		return err == MLS_EAUTH ? not_authentic(log, &place) : err;
	if (mls_get_le16(node->level) != level ||
	    mls_get_le16(node->nr_children) != mls_mht_nr_children(nr_data, level, index))
		return not_authentic(log, &place);
	return 0;
}

/*
 * The tags of nr children of a node, from its first-th on: from the cache, or down from the
 * nearest node above that is there (from the root at worst), loading what is on the way.
 */
static int get_tags(struct mls_crypto_log *log, unsigned level, uint64_t index, uint32_t first, uint32_t nr,
		    uint8_t (*tags)[MLS_TAG_BYTES])
{
	uint8_t tag[1][MLS_TAG_BYTES];
	struct mls_mht_node_disk *node;
	int err;

	if (cache_get(log, node_key(level, index), first, nr, tags))
		return 0;
	if (level == log->top) {
		memcpy(tag[0], log->root.tag, MLS_TAG_BYTES);
	} else {
		/* The recursion is as deep as the tree is high: MLS_MHT_LEVELS at most. */
		err = get_tags(log, level + 1, index / MLS_MHT_FANOUT, index % MLS_MHT_FANOUT, 1, tag);
		if (err)
			return err;
	}
	node = mls_blocks_alloc(1);
	if (!node)
		return MLS_ENOMEM;
	err = load_node(log, level, index, tag[0], node);
	if (err) {
		mls_blocks_free(node);
		return err;
	}
	memcpy(tags, node->child_tag[first], (size_t)nr * MLS_TAG_BYTES);
	cache_put(log, node_key(level, index), node);
	return 0;
}

/* Data block index, which was read. */
static int unseal_data(const struct mls_crypto_log *log, uint64_t index, void *block, const uint8_t tag[MLS_TAG_BYTES])
{
	struct mls_log_place place = { .kind = MLS_LOG_KIND_DATA, .index = index, .pos = mls_mht_data_pos(index) };
	int err = mls_log_unseal(log->aead, &place, block, tag);

	return err == MLS_EAUTH ? not_authentic(log, &place) : err;
}

/* Blocks that hang on one level 0 node: they lie side by side, so one transfer gets them. */
static int read_siblings(struct mls_crypto_log *log, uint64_t index, uint32_t nr, uint8_t *blocks)
{
	uint8_t tags[MLS_MHT_FANOUT][MLS_TAG_BYTES];
	int err = get_tags(log, 0, index / MLS_MHT_FANOUT, index % MLS_MHT_FANOUT, nr, tags);

	if (!err)
		err = mls_block_log_read(log->raw, mls_mht_data_pos(index), nr, blocks);
	for (uint32_t i = 0; !err && i < nr; i++)
		err = unseal_data(log, index + i, mls_block_at(blocks, i), tags[i]);
	return err;
}

int mls_crypto_log_read(struct mls_crypto_log *log, uint64_t pos, uint32_t nr_blocks, void *blocks)
{
	uint32_t done = 0;
	int err = 0;

	if (!mls_range_within(pos, nr_blocks, log->root.nr_data_blocks))
		return MLS_EINVAL;
	while (!err && done < nr_blocks) {
		uint64_t index = pos + done;
		uint32_t n = (uint32_t)mls_min_u64(nr_blocks - done, MLS_MHT_FANOUT - index % MLS_MHT_FANOUT);

		err = read_siblings(log, index, n, mls_block_at(blocks, done));
		done += n;
	}
	if (err)
		memset(blocks, 0, (size_t)nr_blocks * MLS_BLOCK_BYTES);	/* part of it may be ciphertext */
	return err;
}

int mls_crypto_log_fetch_begin(struct mls_crypto_log *log, uint64_t pos, void *block, struct mls_log_fetch *fetch,
			       struct mls_io *io)
{
	if (pos >= log->root.nr_data_blocks)
		return MLS_EINVAL;
	*fetch = (struct mls_log_fetch){ .log = log, .pos = pos };
	*io = (struct mls_io){ mls_crypto_log_hba(log, pos), 1, MLS_EABORTED, block };
	return get_tags(log, 0, pos / MLS_MHT_FANOUT, pos % MLS_MHT_FANOUT, 1, &fetch->tag);
}

int mls_crypto_log_fetch_end(const struct mls_log_fetch *fetch, const struct mls_io *io)
{
	int err = io->err;

	if (!err)
		err = unseal_data(fetch->log, fetch->pos, io->data, fetch->tag);
	if (err)
		memset(io->data, 0, MLS_BLOCK_BYTES);
	return err;
}
