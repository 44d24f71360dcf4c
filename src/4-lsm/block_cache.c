/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_cache.c - why it exists: a random read looks up one record, and most of its cost would be to
 * read and decrypt the table block which holds it.
 *
 * A shard is an array of blocks, filled up once and then recycled by a clock, and a hash table of
 * chains through it. A block is in one of these states:
 *
 *	refs	hashed	state
 *	0	no	free: the clock takes it first
 *	> 0	no	private: reserved and being filled in, or forgotten while pinned
 *	0	yes	cached: the clock takes it unless it was used since the hand was last here
 *	> 0	yes	in use: stays
 *
 * refs grows under the shard's lock only, so a block which the clock saw unpinned under the lock stays
 * so. It shrinks without the lock; the release there and the acquire in the clock order the last use
 * of the data before its reuse.
 *
 * A block enters without its recent bit and gets it at the first hit, so that blocks used once leave
 * before those used twice. The hand moves a bounded number of steps, since the lock is held.
 */
#include "4-lsm/block_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"

#define NR_SHARDS_MAX 16u
#define SHARD_BLOCKS_MIN 8u	/* smaller shards would evict what one request pins */
#define SLAB_BLOCKS 64u
#define CLOCK_STEPS_MAX 64u
#define NIL UINT32_MAX

struct shard {
	pthread_mutex_t lock;
	struct mls_cached_block *blocks;	/* max_blocks; the first nr_blocks have data */
	uint32_t *heads;			/* of the hash chains; nr_heads, a power of two */
	void **slabs;
	uint32_t nr_blocks, max_blocks, nr_heads, nr_slabs, hand;
	uint64_t hits, misses;
} __attribute__((aligned(64)));

struct mls_block_cache {
	struct shard shards[NR_SHARDS_MAX];
	uint32_t nr_shards;	/* a power of two; 0: nothing is ever cached */
};

static uint64_t key_hash(uint64_t log_id, uint64_t pos)
{
	uint64_t h = (log_id * 0x9e3779b97f4a7c15u) ^ pos;

	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93u;
	h ^= h >> 32;
	return h;
}

static struct shard *shard_of(struct mls_block_cache *cache, uint64_t hash)
{
	return &cache->shards[(hash >> 48) & (cache->nr_shards - 1)];
}

static int shard_init(struct shard *s, uint32_t max_blocks)
{
	uint32_t nr_heads = 1;

	while (nr_heads < max_blocks)
		nr_heads *= 2;
	s->max_blocks = max_blocks;
	s->nr_heads = nr_heads;
	s->blocks = calloc(max_blocks, sizeof *s->blocks);
	s->heads = malloc(nr_heads * sizeof *s->heads);
	s->slabs = calloc(mls_div_round_up(max_blocks, SLAB_BLOCKS), sizeof *s->slabs);
	if (!s->blocks || !s->heads || !s->slabs)
		return MLS_ENOMEM;
	for (uint32_t i = 0; i < nr_heads; i++)
		s->heads[i] = NIL;
	return 0;
}

static void shard_release(struct shard *s)
{
	for (uint32_t i = 0; i < s->nr_blocks; i++)
		MLS_INVARIANT(__atomic_load_n(&s->blocks[i].refs, __ATOMIC_ACQUIRE) == 0);
	for (uint32_t i = 0; i < s->nr_slabs; i++)
		mls_blocks_free(s->slabs[i]);
	free(s->slabs);
	free(s->heads);
	free(s->blocks);
	pthread_mutex_destroy(&s->lock);
}

int mls_block_cache_new(struct mls_block_cache **out, uint64_t cache_bytes)
{
	uint64_t nr_blocks = mls_min_u64(cache_bytes / MLS_BLOCK_BYTES, (uint64_t)NR_SHARDS_MAX << 24);
	struct mls_block_cache *cache = aligned_alloc(64, sizeof *cache);
	uint32_t nr_shards = nr_blocks ? 1 : 0;
	int err = 0;

	if (!cache)
		return MLS_ENOMEM;
	memset(cache, 0, sizeof *cache);
	while (nr_shards && nr_shards < NR_SHARDS_MAX && nr_blocks / (nr_shards * 2) >= SHARD_BLOCKS_MIN)
		nr_shards *= 2;
	cache->nr_shards = nr_shards;
	for (uint32_t i = 0; i < nr_shards; i++)
		pthread_mutex_init(&cache->shards[i].lock, NULL);
	for (uint32_t i = 0; i < nr_shards && !err; i++)
		err = shard_init(&cache->shards[i], (uint32_t)(nr_blocks / nr_shards));
	if (err) {
		mls_block_cache_free(cache);
		return err;
	}
	*out = cache;
	return 0;
}

void mls_block_cache_free(struct mls_block_cache *cache)
{
	if (!cache)
		return;
	for (uint32_t i = 0; i < cache->nr_shards; i++)
		shard_release(&cache->shards[i]);
	free(cache);
}

static struct mls_cached_block *find_locked(struct shard *s, uint64_t hash, uint64_t log_id, uint64_t pos)
{
	uint32_t i = s->heads[hash & (s->nr_heads - 1)];

	while (i != NIL && (s->blocks[i].pos != pos || s->blocks[i].log_id != log_id))
		i = s->blocks[i].next;
	return i == NIL ? NULL : &s->blocks[i];
}

static void unhash_locked(struct shard *s, struct mls_cached_block *block)
{
	uint32_t *link = &s->heads[key_hash(block->log_id, block->pos) & (s->nr_heads - 1)];

	MLS_INVARIANT(block->hashed);
	while (&s->blocks[*link] != block)
		link = &s->blocks[*link].next;
	*link = block->next;
	block->hashed = false;
}

static struct mls_cached_block *find_and_pin(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos,
					     bool use)
{
	uint64_t hash = key_hash(log_id, pos);
	struct mls_cached_block *block;
	struct shard *s;

	if (!cache->nr_shards)
		return NULL;
	s = shard_of(cache, hash);
	pthread_mutex_lock(&s->lock);
	block = find_locked(s, hash, log_id, pos);
	if (block) {
		__atomic_add_fetch(&block->refs, 1, __ATOMIC_RELAXED);
		block->recent |= use;
	}
	s->hits += use && block;
	s->misses += use && !block;
	pthread_mutex_unlock(&s->lock);
	return block;
}

struct mls_cached_block *mls_block_cache_lookup(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos)
{
	return find_and_pin(cache, log_id, pos, true);
}

struct mls_cached_block *mls_block_cache_peek(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos)
{
	return find_and_pin(cache, log_id, pos, false);
}

/* Memory for some more blocks, which are then free. Without memory nothing changes. */
static void grow_locked(struct shard *s)
{
	uint32_t nr = (uint32_t)mls_min_u64(s->max_blocks - s->nr_blocks, SLAB_BLOCKS);
	void *slab = mls_blocks_alloc(nr);

	if (!slab)
		return;
	s->slabs[s->nr_slabs++] = slab;
	s->hand = s->nr_blocks;
	for (uint32_t i = 0; i < nr; i++)
		s->blocks[s->nr_blocks++].data = mls_block_at(slab, i);
}

/* An unpinned block: a free one or one not used lately if the hand meets it soon, else any. */
static struct mls_cached_block *clock_locked(struct shard *s)
{
	uint32_t nr_steps = (uint32_t)mls_min_u64((uint64_t)s->nr_blocks * 2, CLOCK_STEPS_MAX);
	struct mls_cached_block *any = NULL;

	for (uint32_t i = 0; i < nr_steps; i++) {
		struct mls_cached_block *block = &s->blocks[s->hand];

		s->hand = s->hand + 1 < s->nr_blocks ? s->hand + 1 : 0;
		if (__atomic_load_n(&block->refs, __ATOMIC_ACQUIRE))
			continue;
		if (!block->hashed || !block->recent)
			return block;
		block->recent = false;
		any = block;
	}
	return any;
}

struct mls_cached_block *mls_block_cache_reserve(struct mls_block_cache *cache, uint64_t log_id,
						 uint64_t pos)
{
	struct mls_cached_block *block;
	struct shard *s;

	if (!cache->nr_shards)
		return NULL;
	s = shard_of(cache, key_hash(log_id, pos));
	pthread_mutex_lock(&s->lock);
	/* While the cache grows, the hand is among the free blocks of the last slab. */
	block = s->nr_blocks ? clock_locked(s) : NULL;
	if ((!block || block->hashed) && s->nr_blocks < s->max_blocks) {
		grow_locked(s);
		block = s->nr_blocks ? clock_locked(s) : NULL;
	}
	if (block) {
		if (block->hashed)
			unhash_locked(s, block);
		block->log_id = log_id;
		block->pos = pos;
		block->recent = false;
		__atomic_store_n(&block->refs, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&s->lock);
	return block;
}

void mls_block_cache_publish(struct mls_block_cache *cache, struct mls_cached_block *block)
{
	uint64_t hash = key_hash(block->log_id, block->pos);
	struct shard *s = shard_of(cache, hash);
	uint32_t *head;

	pthread_mutex_lock(&s->lock);
	MLS_INVARIANT(!block->hashed);
	if (!find_locked(s, hash, block->log_id, block->pos)) {
		head = &s->heads[hash & (s->nr_heads - 1)];
		block->next = *head;
		*head = (uint32_t)(block - s->blocks);
		block->hashed = true;
	}
	pthread_mutex_unlock(&s->lock);
}

void mls_block_cache_put(struct mls_cached_block *block)
{
	uint32_t before = __atomic_fetch_sub(&block->refs, 1, __ATOMIC_RELEASE);

	MLS_INVARIANT(before > 0);
}

void mls_block_cache_drop_log(struct mls_block_cache *cache, uint64_t log_id)
{
	for (uint32_t i = 0; i < cache->nr_shards; i++) {
		struct shard *s = &cache->shards[i];

		pthread_mutex_lock(&s->lock);
		for (uint32_t k = 0; k < s->nr_blocks; k++)
			if (s->blocks[k].hashed && s->blocks[k].log_id == log_id)
				unhash_locked(s, &s->blocks[k]);
		pthread_mutex_unlock(&s->lock);
	}
}

void mls_block_cache_stat(struct mls_block_cache *cache, struct mls_block_cache_stat *stat)
{
	memset(stat, 0, sizeof *stat);
	for (uint32_t i = 0; i < cache->nr_shards; i++) {
		struct shard *s = &cache->shards[i];

		pthread_mutex_lock(&s->lock);
		stat->hits += s->hits;
		stat->misses += s->misses;
		stat->nr_blocks += s->nr_blocks;
		stat->max_blocks += s->max_blocks;
		pthread_mutex_unlock(&s->lock);
	}
}
