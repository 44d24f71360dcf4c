/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_work.c - bases and operations of the crash explorer; see crash_work.h.
 *
 * The disks are as small as the format allows, so that an opening costs a fraction of a millisecond. Flush,
 * compaction and cleaning have no public call; they are asked for at the doors that the disk's own threads
 * use.
 */
#include "tests/crash/crash_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/lsm_internal.h"
#include "5-disk/disk.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rand.h"

#define RUN_BLOCKS 16u
#define WAL_BLOCKS 16u
#define JOURNAL_BLOCKS 64u		/* the shortest area */
#define MEMTABLE_RECORDS 64u

/* Where the operations go; the bases fill LBAs below FRESH_LBA. */
#define FRESH_LBA 48u
#define FRESH_BLOCKS 7u			/* three of them cross a segment's end */

const char crash_ops[] = "wopsdrfcg";

static const uint8_t key_file[32] = "a key file of thirty-two bytes..";

struct crash_base crash_bases[CRASH_NR_BASES] = {
	{ .name = "fresh", .nr_ops = 2 },
	{ .name = "wal", .nr_ops = 2 },
	{ .name = "tables", .nr_ops = 2 },
	{ .name = "levels", .nr_ops = 3 },
	{ .name = "full", .nr_ops = 2 },
	{ .name = "crashed", .nr_ops = 2, .strict = true },
	{ .name = "storeless", .nr_ops = 2, .no_store = true },
};

static void *must(void *memory)
{
	MLS_INVARIANT(memory != NULL);
	return memory;
}

struct mls_secret crash_secret(void)
{
	return (struct mls_secret){ key_file, sizeof key_file, false };
}

uint64_t crash_backing_blocks(void)
{
	return 32 + 2 * JOURNAL_BLOCKS + WAL_BLOCKS + CRASH_NR_RUNS * RUN_BLOCKS;
}

/* ---- A run ---- */

static void add_sync(struct crash_run *run, uint64_t id)
{
	uint32_t event = run->medium->trace ? run->medium->trace->nr : 0;

	MLS_INVARIANT(run->nr_syncs < CRASH_SYNCS_MAX);
	run->syncs[run->nr_syncs++] = (struct crash_sync){ id, event, run->old_version, run->new_version };
}

static void note_advance(void *arg, const struct mls_trust *trust)
{
	add_sync(arg, trust->sync_id);
}

void crash_run_init(struct crash_run *run, struct crash_medium *medium)
{
	memset(run, 0, sizeof *run);
	run->medium = medium;
	crash_store_init(&run->store, medium);
	run->store.arg = run;
	for (unsigned i = 0; i <= CRASH_OPS_MAX; i++)
		run->versions[i] = must(mls_blocks_zalloc(CRASH_DISK_BLOCKS));
}

void crash_run_release(struct crash_run *run)
{
	crash_run_kill(run);
	for (unsigned i = 0; i <= CRASH_OPS_MAX; i++)
		mls_blocks_free(run->versions[i]);
	mls_rand_set_source(NULL, NULL);
}

struct mls_trusted_store *crash_run_store(struct crash_run *run)
{
	return run->base->no_store ? NULL : &run->store.base;
}

static void forget_history(struct crash_run *run)
{
	run->keys[0] = (uint64_t)(run->base - crash_bases);
	run->old_version = run->new_version = 0;
	run->nr_syncs = 0;
	add_sync(run, run->store.trust.sync_id);
}

void crash_run_load(struct crash_run *run, const struct crash_base *base)
{
	run->base = base;
	crash_medium_load(run->medium, base->bytes);
	run->store.trust = base->trust;
	run->store.held = true;
	memcpy(run->versions[0], base->content, CRASH_DISK_BYTES);
	forget_history(run);
}

int crash_run_open(struct crash_run *run, uint64_t seed, bool discard)
{
	struct mls_open_opts opts = { .inline_work = true,
				      .strict_sync = run->base->strict,
				      .no_discard = !discard,
				      .cache_bytes = 64 * 1024,
				      .memtable_records = MEMTABLE_RECORDS };
	struct mls_secret secret = crash_secret();

	test_rand_seed(&run->rand, seed);
	mls_rand_set_source(test_rand_source, &run->rand);
	return mls_disk_open(&run->disk, &run->medium->base, crash_run_store(run), &secret, &opts);
}

void crash_run_kill(struct crash_run *run)
{
	if (!run->disk)
		return;
	run->medium->frozen = true;
	(void)mls_disk_close(run->disk);
	run->medium->frozen = false;
	run->disk = NULL;
}

int crash_read_all(struct crash_run *run, uint8_t *out)
{
	return mls_disk_read(run->disk, 0, out, CRASH_DISK_BYTES);
}

/* ---- Operations ---- */

static uint64_t stamp_of(const struct crash_run *run)
{
	return test_rand_mix(run->new_version, 77);
}

/* The running operation's new content of the range, and the disk's. */
static int write_range(struct crash_run *run, uint64_t offset, uint64_t bytes)
{
	uint8_t *now = run->versions[run->new_version];
	struct test_rand rand;

	test_rand_seed(&rand, test_rand_mix(stamp_of(run), offset));
	test_rand_fill(&rand, now + offset, bytes);
	return mls_disk_write(run->disk, offset, now + offset, bytes);
}

static int discard_range(struct crash_run *run, uint64_t offset, uint64_t bytes)
{
	memset(run->versions[run->new_version] + offset, 0, bytes);
	return mls_disk_discard(run->disk, offset, bytes);
}

static int write_blocks(struct crash_run *run, uint64_t lba, uint64_t nr_blocks)
{
	return write_range(run, lba * MLS_BLOCK_BYTES, nr_blocks * MLS_BLOCK_BYTES);
}

static int flush_memtable(struct crash_run *run)
{
	struct mls_lsm *lsm = run->disk->lsm;

	pthread_mutex_lock(&lsm->mem_lock);
	if (mls_memtable_nr_versions(lsm->active) > 0 && mls_lsm_freeze_allowed_locked(lsm))
		mls_lsm_freeze_locked(lsm);
	pthread_mutex_unlock(&lsm->mem_lock);
	return mls_lsm_flush(lsm);
}

static int compact_index(struct crash_run *run)
{
	bool progress;

	return mls_lsm_compact_all(run->disk->lsm, &progress);
}

/* MLS_ENOSPC: there was nothing to gain. */
static int clean(struct crash_run *run)
{
	int err = mls_cleaner_wait(run->disk->cleaner, &(uint64_t){ 0 });

	return err == MLS_ENOSPC ? 0 : err;
}

static int reopen(struct crash_run *run)
{
	int err = mls_disk_close(run->disk);

	run->disk = NULL;
	return err ? err : crash_run_open(run, test_rand_u64(&run->rand), true);
}

static int operate(struct crash_run *run, char op)
{
	switch (op) {
	case 'w':
		return write_blocks(run, FRESH_LBA + run->old_version * FRESH_BLOCKS, FRESH_BLOCKS);
	case 'o':
		return write_blocks(run, 2 + run->old_version, 2);
	case 'p':
		return write_range(run, (4 + run->old_version) * MLS_BLOCK_BYTES + 3700, 1000);
	case 's':
		return mls_disk_sync(run->disk);
	case 'd':	/* a large one waits in memory to be buried (bury.c) */
		return discard_range(run, 3 * MLS_BLOCK_BYTES,
				     (run->old_version % 2 ? 2 : 20) * MLS_BLOCK_BYTES + 1500);
	case 'r':
		return reopen(run);
	case 'f':
		return flush_memtable(run);
	case 'c':
		return compact_index(run);
	case 'g':
		return clean(run);
	default:
		return MLS_EINVAL;
	}
}

/* Without a store nothing is advanced: the syncs that the disk says it completed are noted here. */
static void note_storeless(struct crash_run *run)
{
	struct mls_disk_stat stat;

	if (!run->base->no_store)
		return;
	mls_disk_stat(run->disk, &stat);
	while (run->syncs[run->nr_syncs - 1].id < stat.sync_id)
		add_sync(run, run->syncs[run->nr_syncs - 1].id + 1);
}

static uint64_t key_after(uint64_t key, char op, unsigned place)
{
	return strchr("wopd", op) ? test_rand_mix(key, (uint64_t)place << 8 | (unsigned char)op) : key;
}

int crash_run_workload(struct crash_run *run, const char *ops, unsigned nr, struct crash_trace *trace,
		       const char **what)
{
	int err;

	MLS_INVARIANT(nr <= CRASH_OPS_MAX);
	*what = "open";
	crash_trace_clear(trace);
	run->medium->trace = trace;
	run->store.advanced = note_advance;
	err = crash_run_open(run, 1, true);
	for (unsigned i = 0; i < nr && !err; i++) {
		note_storeless(run);
		run->op_begin[i] = trace->nr;
		memcpy(run->versions[i + 1], run->versions[i], CRASH_DISK_BYTES);
		run->keys[i + 1] = key_after(run->keys[i], ops[i], i);
		run->old_version = i;
		run->new_version = i + 1;
		*what = &ops[i];
		err = operate(run, ops[i]);
		run->old_version = i + 1;
	}
	run->op_begin[nr] = trace->nr;
	if (!err)
		note_storeless(run);
	run->medium->trace = NULL;
	run->store.advanced = NULL;
	if (!err)
		crash_run_kill(run);
	return err;
}

/* ---- What may be there ---- */

static bool sync_allows(const struct crash_run *run, const struct crash_sync *sync, const uint8_t *content,
			uint64_t *lba)
{
	for (*lba = 0; *lba < CRASH_DISK_BLOCKS; ++*lba) {
		size_t at = (size_t)*lba * MLS_BLOCK_BYTES;

		if (memcmp(content + at, run->versions[sync->old_version] + at, MLS_BLOCK_BYTES) != 0 &&
		    memcmp(content + at, run->versions[sync->new_version] + at, MLS_BLOCK_BYTES) != 0)
			return false;
	}
	return true;
}

uint64_t crash_synced_before(const struct crash_run *run, uint32_t event)
{
	uint64_t id = run->syncs[0].id;

	for (unsigned i = 1; i < run->nr_syncs && run->syncs[i].event <= event; i++)
		id = run->syncs[i].id;
	return id;
}

static uint64_t sync_key(const struct crash_run *run, const struct crash_sync *sync)
{
	return test_rand_mix(run->keys[sync->old_version], run->keys[sync->new_version]);
}

static bool may_be(const struct crash_sync *sync, uint64_t sync_id)
{
	return sync->id == sync_id || sync->id == sync_id + 1;
}

bool crash_content_allowed(const struct crash_run *run, uint64_t sync_id, const uint8_t *content, uint64_t *lba,
			   uint64_t *key)
{
	uint64_t at = 0;

	*lba = UINT64_MAX;
	for (unsigned i = 0; i < run->nr_syncs; i++) {
		if (!may_be(&run->syncs[i], sync_id))
			continue;
		if (sync_allows(run, &run->syncs[i], content, &at)) {
			*key = sync_key(run, &run->syncs[i]);
			return true;
		}
		if (*lba == UINT64_MAX)
			*lba = at;
	}
	return false;
}

uint64_t crash_allowed_key(const struct crash_run *run, uint64_t sync_id)
{
	uint64_t key = 0;

	for (unsigned i = 0; i < run->nr_syncs; i++)
		if (may_be(&run->syncs[i], sync_id))
			key = test_rand_mix(key, sync_key(run, &run->syncs[i]));
	return key;
}

/* ---- Bases ---- */

/* The base's own operations all make version 1 of version 0, which follows. */
static void must_do(struct crash_run *run, int err, const char *what)
{
	if (err) {
		fprintf(stderr, "base %s: %s: %s\n", run->base->name, what, mls_strerror(err));
		abort();
	}
}

#define MUST(run, call) must_do(run, call, #call)

static void base_wal(struct crash_run *run)
{
	MUST(run, write_blocks(run, 0, 24));
	MUST(run, mls_disk_sync(run->disk));
	MUST(run, write_blocks(run, 4, 3));
	MUST(run, discard_range(run, 9 * MLS_BLOCK_BYTES, 2 * MLS_BLOCK_BYTES));
	MUST(run, mls_disk_sync(run->disk));
}

static void base_tables(struct crash_run *run)
{
	base_wal(run);
	MUST(run, flush_memtable(run));
	MUST(run, write_blocks(run, 0, 12));
	MUST(run, mls_disk_sync(run->disk));
	MUST(run, flush_memtable(run));
	MUST(run, write_blocks(run, 24, 6));
	MUST(run, mls_disk_sync(run->disk));
}

/* Two levels, and segments that are half dead: there is something to compact and to clean. */
static void base_levels(struct crash_run *run)
{
	base_tables(run);
	MUST(run, compact_index(run));
	for (uint64_t lba = 0; lba < FRESH_LBA; lba += 2)
		MUST(run, write_blocks(run, lba, 1));
	MUST(run, mls_disk_sync(run->disk));
	MUST(run, flush_memtable(run));
	MUST(run, discard_range(run, 20 * MLS_BLOCK_BYTES, 3 * MLS_BLOCK_BYTES));
	for (uint64_t lba = 5; lba < 30; lba += 3)
		MUST(run, write_blocks(run, lba, 1));
	MUST(run, mls_disk_sync(run->disk));
	MUST(run, flush_memtable(run));
	MUST(run, write_blocks(run, 1, 2));
	MUST(run, mls_disk_sync(run->disk));
}

/* Each segment keeps a live block, until a write must wait for the cleaner. */
static void base_full(struct crash_run *run)
{
	struct mls_disk_stat stat;
	uint64_t lba = 0;

	base_levels(run);
	for (mls_disk_stat(run->disk, &stat); stat.nr_free_runs > 10 && lba < 34; mls_disk_stat(run->disk, &stat)) {
		MUST(run, write_blocks(run, lba++, 1));
		MUST(run, write_blocks(run, 34, 14));
		MUST(run, mls_disk_sync(run->disk));
	}
}

/* Segments without a summary, half of them undone. */
static void base_crashed(struct crash_run *run)
{
	base_levels(run);
	MUST(run, write_blocks(run, 30, 10));
	MUST(run, mls_disk_sync(run->disk));
	memcpy(run->versions[0], run->versions[1], CRASH_DISK_BYTES);
	run->medium->frozen = true;		/* what comes now is undone */
	MUST(run, write_blocks(run, 0, 10));
	(void)mls_disk_close(run->disk);
	run->medium->frozen = false;
	MUST(run, crash_run_open(run, 3, true));
	memcpy(run->versions[1], run->versions[0], CRASH_DISK_BYTES);
}

typedef void base_fn(struct crash_run *run);
static base_fn *const makers[CRASH_NR_BASES] = {
	NULL, base_wal, base_tables, base_levels, base_full, base_crashed, base_levels,
};

static void make_base(struct crash_base *base, base_fn *maker)
{
	struct mls_format_opts format = { .disk_bytes = CRASH_DISK_BYTES, .run_blocks = RUN_BLOCKS,
					  .wal_blocks = WAL_BLOCKS };
	struct mls_secret secret = crash_secret();
	uint8_t uuid[MLS_UUID_BYTES] = { 1, 2, 3 };
	struct crash_medium medium;
	struct mls_disk_stat stat;
	struct crash_run run;

	crash_medium_init(&medium, crash_backing_blocks());
	crash_run_init(&run, &medium);
	run.base = base;
	run.new_version = 1;
	test_rand_seed(&run.rand, 2);
	mls_rand_set_source(test_rand_source, &run.rand);
	MUST(&run, mls_disk_format(&medium.base, crash_run_store(&run), &secret, uuid, &format));
	MUST(&run, crash_run_open(&run, 2, true));
	if (maker)
		maker(&run);
	mls_disk_stat(run.disk, &stat);
	base->nr_chunks = stat.nr_chunks;
	base->nr_segments = stat.nr_segments;
	base->nr_free_runs = stat.nr_free_runs;
	base->trust.sync_id = stat.sync_id;
	MUST(&run, mls_disk_close(run.disk));
	run.disk = NULL;
	if (!base->no_store)
		base->trust = run.store.trust;
	base->bytes = medium.bytes;
	medium.bytes = NULL;
	base->content = run.versions[1];
	run.versions[1] = NULL;
	crash_run_release(&run);
	crash_medium_release(&medium);
}

void crash_bases_init(void)
{
	for (unsigned i = 0; i < CRASH_NR_BASES; i++)
		make_base(&crash_bases[i], makers[i]);
}

void crash_bases_release(void)
{
	for (unsigned i = 0; i < CRASH_NR_BASES; i++) {
		mls_blocks_free(crash_bases[i].bytes);
		mls_blocks_free(crash_bases[i].content);
	}
}
