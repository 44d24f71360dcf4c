/* SPDX-License-Identifier: MPL-2.0 */
/*
 * log_bench.h - tests of layer 3: a store on any device, with all that stands below it.
 *
 * Logs are filled with blocks that say whose they are, so that a reader of the wrong one shows.
 */
#ifndef MLS_TESTS_LOG_BENCH_H
#define MLS_TESTS_LOG_BENCH_H

#include "3-log/tx_log.h"

#define BENCH_RUN_BLOCKS 16u
#define BENCH_NR_RUNS 60u
#define BENCH_AREA_BLOCKS 64u
#define BENCH_JOURNAL_HBA 1u
#define BENCH_RUN_HBA (BENCH_JOURNAL_HBA + 2 * BENCH_AREA_BLOCKS)
#define BENCH_DEV_BLOCKS (BENCH_RUN_HBA + BENCH_NR_RUNS * BENCH_RUN_BLOCKS)

struct bench {
	struct mls_block_dev *dev;		/* borrowed */
	struct mls_keyring *keys;
	struct mls_chunk_alloc *alloc;
	struct mls_journal *journal;
	struct mls_tx_store *store;
	uint64_t value;				/* of an owner above: its one edit sets it */
	uint64_t log_seen;			/* by its apply: a log of this id could be opened */
};

/* Load what is there (or nothing), don't start. *err: of the load. */
struct bench *bench_load(struct mls_block_dev *dev, int *err);
/* Load and start; on error NULL and *err. */
struct bench *bench_open(struct mls_block_dev *dev, int *err);
struct bench *bench_open_ok(struct mls_block_dev *dev);
void bench_close(struct bench *bench);

void log_pattern(uint8_t *blocks, uint64_t id, uint64_t pos, uint32_t nr_blocks);

/* Create a finished log of nr_blocks in tx. */
int bench_add_log(struct mls_tx *tx, uint8_t bucket, uint32_t nr_blocks, uint64_t *id);

/* Add the edit that makes the owner's value value, and lets its apply look for log id. */
int bench_add_value(struct mls_tx *tx, uint64_t value, uint64_t id);

/* One transaction with one log; the owner's value becomes value (0: no edit). */
int bench_create(struct bench *bench, uint8_t bucket, uint32_t nr_blocks, uint64_t value, uint64_t *id);
int bench_delete(struct bench *bench, uint64_t id);

/* Does log id exist, with nr_blocks of its own pattern? */
bool bench_has(struct bench *bench, uint64_t id, uint32_t nr_blocks);
bool reader_shows(struct mls_log_reader *reader, uint64_t id, uint32_t nr_blocks);

unsigned bench_nr_logs(struct bench *bench, int bucket);
/* Runs that no log has, by the list of logs: must be what the allocator says. */
uint64_t bench_nr_free_by_list(struct bench *bench);

#endif
