/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_cache.h - layer 4: SSTable blocks in memory, bounded by bytes.
 *
 * Role     Keeps decrypted blocks by (log id, position). Blocks of a log never change and log ids
 *          are never reused, so nothing in here can be out of date.
 * Pins     lookup and reserve give a block pinned: it stays where it is until mls_block_cache_put.
 *          A block is published after it was filled in, and not written after that.
 * Memory   Never more than cache_bytes of blocks; allocated in slabs as the cache fills. Without
 *          memory, or when all is pinned, reserve answers NULL, and the caller goes on uncached.
 * Threads  Any. 16 shards, each with a lock that is never held over I/O; lookup takes one of them
 *          for some dozen instructions, put none. Two threads that miss the same block both read
 *          it; one copy stays.
 */
#ifndef MLS_LSM_BLOCK_CACHE_H
#define MLS_LSM_BLOCK_CACHE_H

#include "mlsdisk/mlsdisk.h"

struct mls_block_cache;

struct mls_cached_block {
	void *data;		/* MLS_BLOCK_BYTES, aligned */
	/* the cache's own: */
	uint64_t log_id, pos;
	uint32_t refs;		/* pins, atomic; grows only under the shard's lock */
	uint32_t next;		/* in the hash chain */
	bool hashed, recent;
};

/* cache_bytes is rounded down to blocks; 0 is a cache that never holds anything. MLS_ENOMEM. */
MLS_MUST_CHECK int mls_block_cache_new(struct mls_block_cache **cache, uint64_t cache_bytes);
void mls_block_cache_free(struct mls_block_cache *cache);	/* nothing may be pinned; NULL is fine */

/* The block, pinned; NULL: not there. Counts a hit or a miss. */
struct mls_cached_block *mls_block_cache_lookup(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos);
/* Likewise, for who reads it once: neither counted nor a reason to keep it. */
struct mls_cached_block *mls_block_cache_peek(struct mls_block_cache *cache, uint64_t log_id, uint64_t pos);

/*
 * Room for a block that nobody else sees yet, pinned; its data is undefined. NULL: no room. Fill in
 * data, then publish; or put it without having published: it is then free again.
 */
struct mls_cached_block *mls_block_cache_reserve(struct mls_block_cache *cache, uint64_t log_id,
						 uint64_t pos);

/* From now on others find it. The pin stays. Nothing happens if another copy was published first. */
void mls_block_cache_publish(struct mls_block_cache *cache, struct mls_cached_block *block);

void mls_block_cache_put(struct mls_cached_block *block);	/* unpin */

/* Forget the log's blocks (it was deleted). Walks the whole cache: some microseconds a MiB. */
void mls_block_cache_drop_log(struct mls_block_cache *cache, uint64_t log_id);

struct mls_block_cache_stat {
	uint64_t hits, misses;
	uint64_t nr_blocks;		/* allocated */
	uint64_t max_blocks;
};
void mls_block_cache_stat(struct mls_block_cache *cache, struct mls_block_cache_stat *stat);

#endif
