/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_bench.h - tests of SSTables: a real log store on memory, behind a device that fails its Nth operation, and
 * what a table must answer.
 */
#ifndef MLS_TEST_SST_BENCH_H
#define MLS_TEST_SST_BENCH_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/sst_block.h"
#include "tests/lib/check_must.h"
#include "tests/lib/fault_dev.h"
#include "tests/lib/test_rand.h"

#define SST_RUN_BLOCKS 64u
#define SST_NR_RUNS 32u

struct sst_world {
	struct mls_block_dev *disk;
	struct fault_dev *dev;		/* above disk */
	struct mls_keyring *keys;
	struct mls_journal *journal;
	struct mls_chunk_alloc *alloc;
	struct mls_tx_store *store;
};

struct sst_world *sst_world_new(void);
void sst_world_free(struct sst_world *w);

/* ---- Records: age tells tables apart; some are tombstones ---- */

struct mls_index_rec sst_rec(uint64_t lba, unsigned age);
bool sst_is_rec(const struct mls_index_rec *rec, uint64_t lba, unsigned age);

/* ---- Tables of the LBAs first, first + step, ... ---- */

/* cache NULL: the builder has none. */
int sst_build_cached(struct sst_world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step, uint64_t nr,
		     unsigned age, struct mls_sst_info *info);
int sst_build(struct sst_world *w, uint64_t first, uint64_t step, uint64_t nr, unsigned age,
	      struct mls_sst_info *info);
struct mls_sst *sst_open(struct sst_world *w, struct mls_block_cache *cache, const struct mls_sst_info *info);
struct mls_sst *sst_new(struct sst_world *w, struct mls_block_cache *cache, uint64_t first, uint64_t step,
			uint64_t nr);
struct mls_block_cache *sst_cache(uint64_t nr_blocks);

/* ---- Checks against the model: record iff lba = first + k * step, k < nr ---- */

struct sst_model {
	uint64_t first, step, nr;
};

bool sst_model_has(const struct sst_model *m, uint64_t lba);
/* With rand, some of recs are found already, by a newer source (age 9). */
void sst_check_range(struct mls_sst *sst, const struct sst_model *m, uint64_t lba, size_t nr, struct test_rand *rand);
/* Single LBAs, some of them twice, some found already; steps wide apart now and then. */
void sst_check_each(struct mls_sst *sst, const struct sst_model *m, struct test_rand *rand);
void sst_check_next(struct mls_sst *sst, const struct sst_model *m, uint64_t lba);
void sst_check_iter(struct mls_sst *sst, const struct sst_model *m, uint64_t lba, uint32_t ahead_blocks);
/* Looking for every stride-th LBA; between skips the next records come in order. */
void sst_check_skip(struct mls_sst *sst, const struct sst_model *m, uint64_t stride, uint32_t ahead_blocks);

#endif
