/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_disk.c - the whole disk against plain arrays, with the power cut at random operations.
 *
 * Goal     Guarantees 2, 4, 5 and 6 as statements about every step: reads return what was written; after
 *          a cut the disk opens by itself; it contains the state of the last completed sync or, if one
 *          was in flight, that one's, and nothing else; once the trusted store has moved, only the newer.
 * Method   Each disk is small (so that memtable flush, compaction and cleaning happen all the time), of
 *          random geometry, and lives for some steps: write, discard, read, sync, reopen, cut. The cut
 *          falls on the Nth write, flush or advance of the trusted store from some step on, wherever
 *          that is, also in the recovery after another cut. What the cut leaves is chosen by crash_dev.
 *          On a copy of the image recovery runs without a cut: the state it decides for is the one
 *          that the original must decide for, however often that is interrupted. mlsdisk-fsck finds
 *          nothing in the copy, before that and after.
 * Replay   Everything, the engine's random source too, comes from the seed. A failure prints the line
 *          that repeats it.
 *
 *	MLS_SEED     first seed; default 1. One disk per seed.
 *	MLS_DISKS    number of disks
 *	MLS_STEPS    steps of each
 *	MLS_VERBOSE  1: print each step
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/rand.h"
#include "mlsdisk/mlsdisk.h"
#include "tests/crash/disk_model.h"
#include "tests/lib/crash_dev.h"
#include "tests/lib/test_fsck.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_store.h"

#define DISKS_DEFAULT 40u
#define STEPS_DEFAULT 400u
#define CALL_BLOCKS_MAX 48u
#define NR_LOG_LINES 24u

static const uint8_t key_file[32] = "a key file of thirty-two bytes..";

struct run {
	uint64_t seed, step, nr_steps;
	struct test_rand rand, engine_rand;
	struct test_power power;
	struct test_store store;
	struct mls_block_dev *medium;
	struct crash_dev *crash;
	struct mls_open_opts opts;
	struct mls_disk *disk;			/* NULL: closed */
	struct disk_model model;
	uint8_t *buf;				/* room for the whole disk */
	bool thin;				/* BACKING can't hold all of the disk */
	bool tiny_tables;			/* each wastes most of its run: the index outgrows its reserve */
	char what[160];				/* the running step */
};

/* What the campaign met: a run that never compacts proves little. */
static struct {
	uint64_t blocks, syncs, cuts, recovery_cuts, kept_in_flight, undone_in_flight, enospc;
	uint64_t early_syncs, flushes, compactions, cleaned, moved, in_call_syncs, fscks;
} total;

static char log_lines[NR_LOG_LINES][256];
static uint64_t nr_log_lines;
static bool verbose;

static void keep_log(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	snprintf(log_lines[nr_log_lines++ % NR_LOG_LINES], sizeof log_lines[0], "%d %s", (int)level, message);
	if (verbose)
		fprintf(stderr, "        %s\n", message);
}

_Noreturn static void fail(const struct run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void fail(const struct run *run, const char *format, ...)
{
	va_list args;

	if (run->disk) {
		struct mls_disk_stat stat;

		mls_disk_stat(run->disk, &stat);
		fprintf(stderr,
			"  %" PRIu64 " runs of %" PRIu64 ": %" PRIu64 " free, %" PRIu64 " segments (%" PRIu64
			" live blocks), %" PRIu64 " chunks\n",
			stat.nr_runs, stat.run_blocks, stat.nr_free_runs, stat.nr_segments, stat.live_blocks,
			stat.nr_chunks);
	}
	for (uint64_t i = nr_log_lines > NR_LOG_LINES ? nr_log_lines - NR_LOG_LINES : 0; i < nr_log_lines; i++)
		fprintf(stderr, "  log: %s\n", log_lines[i % NR_LOG_LINES]);
	fprintf(stderr, "FAILED at step %" PRIu64 " (%s): ", run->step, run->what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nreplay: MLS_SEED=%" PRIu64 " MLS_DISKS=1 MLS_STEPS=%" PRIu64 " tests/crash/crash_disk\n",
		run->seed, run->nr_steps);
	exit(1);
}

#define SAY(run, ...)                                                                      \
	do {                                                                               \
		snprintf((run)->what, sizeof(run)->what, __VA_ARGS__);                     \
		if (verbose)                                                               \
			fprintf(stderr, "%6" PRIu64 "  %s\n", (run)->step, (run)->what);   \
	} while (0)

static uint64_t disk_bytes(const struct run *run)
{
	return run->model.nr_blocks * MLS_BLOCK_BYTES;
}

/* ---- A disk's birth and end ---- */

static struct mls_secret secret(void)
{
	return (struct mls_secret){ key_file, sizeof key_file, false };
}

static int open_on(struct run *run, struct mls_block_dev *dev, struct test_store *store, struct mls_disk **disk)
{
	struct mls_secret s = secret();

	return mls_disk_open(disk, dev, &store->base, &s, &run->opts);
}

/* Sizes near the edges: the shortest WAL the memtable allows, thin backing, runs of 16 blocks. */
static void draw_disk(struct run *run, struct mls_format_opts *format, uint64_t *backing_blocks)
{
	struct test_rand *r = &run->rand;
	uint64_t nr_blocks = test_rand_between(r, 100, 2048);
	uint32_t records = 64u << test_rand_below(r, 5);

	memset(format, 0, sizeof *format);
	format->disk_bytes = nr_blocks * MLS_BLOCK_BYTES;
	format->run_blocks = test_rand_chance(r, 3, 4) ? 16 : 32;
	format->wal_blocks = (uint32_t)test_rand_between(r, 64, 256);
	if (test_rand_chance(r, 1, 8))
		records = 4096;			/* one epoch then exceeds MLS_SYNC_VERIFY_MAX */
	*backing_blocks = mls_backing_bytes(format->disk_bytes) / MLS_BLOCK_BYTES + format->wal_blocks;
	if (format->run_blocks > 16)
		*backing_blocks += 24 * 16;	/* the spare runs are larger, too */
	/* A memtable makes a table, and a table takes a run at least: far more than mls_backing_bytes
	 * allows for memtables of the usual size. */
	*backing_blocks += (nr_blocks / records * 2 + 12) * format->run_blocks;
	run->thin = test_rand_chance(r, 1, 6);
	if (run->thin)
		*backing_blocks -= test_rand_below(r, nr_blocks / 2);
	run->tiny_tables = records * 32 < format->run_blocks * MLS_BLOCK_BYTES / 2;
	run->opts = (struct mls_open_opts){ .inline_work = true,
					    .strict_sync = test_rand_chance(r, 1, 3),
					    .cache_bytes = test_rand_chance(r, 1, 2) ? 64 * 1024 : 0,
					    .memtable_records = records };
	model_init(&run->model, nr_blocks);
}

static void run_init(struct run *run, uint64_t seed, uint64_t nr_steps)
{
	uint8_t uuid[MLS_UUID_BYTES];
	struct mls_secret s = secret();
	struct mls_format_opts format;
	uint64_t backing_blocks;
	int err;

	memset(run, 0, sizeof *run);
	run->seed = seed;
	run->nr_steps = nr_steps;
	test_rand_seed(&run->rand, seed);
	test_rand_seed(&run->engine_rand, test_rand_mix(seed, 1));
	mls_rand_set_source(test_rand_source, &run->engine_rand);
	draw_disk(run, &format, &backing_blocks);
	run->buf = mls_blocks_zalloc(run->model.nr_blocks);
	MLS_INVARIANT(run->buf != NULL);
	MLS_INVARIANT(mls_block_dev_mem_new(&run->medium, backing_blocks) == 0);
	run->crash = crash_dev_new(run->medium, &run->power);
	MLS_INVARIANT(run->crash != NULL);
	test_store_init(&run->store, &run->power);
	SAY(run, "format: %" PRIu64 " blocks on %" PRIu64 ", runs of %u, WAL %u, memtable %u%s%s", run->model.nr_blocks,
	    backing_blocks, format.run_blocks, format.wal_blocks, run->opts.memtable_records,
	    run->opts.strict_sync ? ", strict" : "", run->thin ? ", thin" : "");
	MLS_INVARIANT(mls_uuid_new(uuid) == 0);
	err = mls_disk_format(&run->crash->base, &run->store.base, &s, uuid, &format);
	if (err)
		fail(run, "format: %s", mls_strerror(err));
	err = open_on(run, &run->crash->base, &run->store, &run->disk);
	if (err)
		fail(run, "first open: %s", mls_strerror(err));
}

static void note_stat(struct run *run)
{
	struct mls_disk_stat stat;

	mls_disk_stat(run->disk, &stat);
	total.early_syncs += stat.early_syncs;
	total.flushes += stat.memtable_flushes;
	total.compactions += stat.compactions;
	total.cleaned += stat.cleaned_segments;
	total.moved += stat.moved_blocks;
	if (stat.integrity_errors)
		fail(run, "%" PRIu64 " integrity errors on an honest device", stat.integrity_errors);
}

static void run_release(struct run *run)
{
	if (run->disk) {
		note_stat(run);
		(void)mls_disk_close(run->disk);	/* judged by the reopen of the next seed's like */
	}
	mls_block_dev_destroy(&run->crash->base);
	mls_block_dev_destroy(run->medium);
	model_release(&run->model);
	mls_blocks_free(run->buf);
	mls_rand_set_source(NULL, NULL);
}

static void read_all(struct run *run, struct mls_disk *disk)
{
	int err = mls_disk_read(disk, 0, run->buf, disk_bytes(run));

	if (err)
		fail(run, "reading the whole disk: %s", mls_strerror(err));
}

/* ---- A cut ---- */

static void check_state(struct run *run, unsigned allowed, const char *where)
{
	uint64_t not_synced = 0, not_now = 0;
	unsigned match = model_match(&run->model, run->buf, &not_synced, &not_now);

	if (match & allowed)
		return;
	fail(run, "%s: neither the synced state (LBA %" PRIu64 " differs)%s%s", where, not_synced,
	     allowed & MODEL_NOW ? " nor the one in flight" : "",
	     match & MODEL_NOW ? "; it is an unsynced one" : "");
}

/* mlsdisk-fsck, as a library: a crash isn't a fault, nor is what recovery or a close leave behind. */
static void fsck_finds_nothing(struct run *run, struct mls_block_dev *dev, struct test_store *store, const char *when)
{
	struct mls_secret s = secret();
	struct test_fsck found;
	int err = test_fsck(dev, &store->base, &s, &found);

	if (err)
		fail(run, "fsck %s: %s", when, mls_strerror(err));
	if (found.nr_faults)
		fail(run, "fsck %s: %" PRIu64 " faults, the first: %s", when, found.nr_faults, found.first);
	total.fscks++;
}

/* Look at a copy, and open it without any cut: *state gets what recovery decides for. */
static void decide_on_copy(struct run *run, unsigned allowed, uint8_t *state)
{
	struct mls_block_dev *copy = crash_dev_image(run->crash, 0);	/* nothing is pending */
	struct test_store store = run->store;
	struct mls_disk *disk;
	int err;

	MLS_INVARIANT(copy != NULL);
	store.power = NULL;
	fsck_finds_nothing(run, copy, &store, "after the cut");
	err = open_on(run, copy, &store, &disk);
	if (err)
		fail(run, "opening a copy after the cut: %s", mls_strerror(err));
	read_all(run, disk);
	check_state(run, allowed, "copy after the cut");
	memcpy(state, run->buf, disk_bytes(run));
	err = mls_disk_close(disk);
	if (err)
		fail(run, "closing a copy: %s", mls_strerror(err));
	fsck_finds_nothing(run, copy, &store, "after the recovery's close");
	mls_block_dev_destroy(copy);
}

static void power_fails(struct run *run)
{
	crash_dev_cut(run->crash, test_rand_u64(&run->rand));
	test_power_on(&run->power, 0);
	run->power.swallow = false;
}

/* Recover, with further cuts meanwhile. */
static void recover(struct run *run)
{
	for (unsigned nr_cuts = 0;; nr_cuts++) {
		bool cut = nr_cuts < 5 && test_rand_chance(&run->rand, 1, 2);
		int err;

		if (cut)
			test_power_on(&run->power, test_rand_between(&run->rand, 1, 12));
		run->store.keep_at_cut = test_rand_chance(&run->rand, 1, 2);
		err = open_on(run, &run->crash->base, &run->store, &run->disk);
		if (!run->power.off) {
			if (err)
				fail(run, "reopen after the cut: %s", mls_strerror(err));
			test_power_on(&run->power, 0);
			return;
		}
		if (!err)		/* the cut came behind all that an open needs */
			(void)mls_disk_close(run->disk);
		run->disk = NULL;
		total.recovery_cuts++;
		power_fails(run);
	}
}

/* The power is off: the step in flight may have begun a sync that isn't in the model yet. */
static void after_cut(struct run *run, bool sync_in_flight)
{
	unsigned allowed = MODEL_SYNCED | (sync_in_flight ? MODEL_NOW : 0u), match;
	uint8_t *decided = mls_blocks_alloc(run->model.nr_blocks);

	MLS_INVARIANT(decided != NULL);
	total.cuts++;
	if (run->disk) {
		note_stat(run);
		(void)mls_disk_close(run->disk);	/* nothing it does can reach the medium any more */
		run->disk = NULL;
	}
	power_fails(run);
	decide_on_copy(run, allowed, decided);
	recover(run);
	read_all(run, run->disk);
	check_state(run, allowed, "after the cut");
	if (memcmp(decided, run->buf, disk_bytes(run)) != 0)
		fail(run, "an interrupted recovery decided for another state");
	mls_blocks_free(decided);
	match = model_match(&run->model, run->buf, NULL, NULL);
	if (sync_in_flight && match == MODEL_NOW)
		total.kept_in_flight++;
	else if (sync_in_flight && match == MODEL_SYNCED)
		total.undone_in_flight++;
	model_restart(&run->model, run->buf);
	SAY(run, "recovered");
}

/* ---- Steps ---- */

/*
 * A call that may change [offset, offset + bytes) is over. Follow what it did to the store and, if the
 * power went off within it, go through the crash.
 */
static void settle_call(struct run *run, int err, uint64_t sync_id_before)
{
	struct disk_model *m = &run->model;
	uint64_t bad = 0;

	if (run->store.trust.sync_id != sync_id_before) {
		if (run->opts.strict_sync)
			fail(run, "an early sync under the strict policy");
		total.in_call_syncs++;
		model_synced_within_call(m);
	}
	if (run->power.off) {
		after_cut(run, !run->opts.strict_sync);
		return;
	}
	if (err == MLS_ENOSPC && (run->thin || run->tiny_tables || run->opts.strict_sync)) {
		total.enospc++;
		read_all(run, run->disk);
		if (!model_settle(m, run->buf, &bad))
			fail(run, "ENOSPC left LBA %" PRIu64 " neither old nor new", bad);
		return;
	}
	if (err)
		fail(run, "%s", mls_strerror(err));
	model_end(m);
}

/* Half of all calls go to a small hot part of the disk; many are whole blocks. */
static void draw_range(struct run *run, uint64_t *offset, uint64_t *bytes)
{
	struct test_rand *r = &run->rand;
	uint64_t end = disk_bytes(run);

	if (test_rand_chance(r, 1, 2))
		end = mls_max_u64(end / 8, MLS_BLOCK_BYTES) / MLS_BLOCK_BYTES * MLS_BLOCK_BYTES;
	*offset = test_rand_below(r, end);
	*bytes = test_rand_chance(r, 2, 3) ? test_rand_between(r, 1, 3 * MLS_BLOCK_BYTES)
					   : test_rand_between(r, 1, CALL_BLOCKS_MAX * MLS_BLOCK_BYTES);
	if (test_rand_chance(r, 2, 3)) {
		*offset -= *offset % MLS_BLOCK_BYTES;
		*bytes += MLS_BLOCK_BYTES - 1;
		*bytes -= *bytes % MLS_BLOCK_BYTES;
	}
	*bytes = mls_min_u64(*bytes, disk_bytes(run) - *offset);
}

static void step_write_range(struct run *run, uint64_t offset, uint64_t bytes)
{
	uint64_t sync_id = run->store.trust.sync_id;
	int err;

	SAY(run, "write %" PRIu64 " + %" PRIu64, offset, bytes);
	model_begin(&run->model, offset, bytes);
	test_rand_fill(&run->rand, run->model.now + offset, bytes);
	err = mls_disk_write(run->disk, offset, run->model.now + offset, bytes);
	total.blocks += run->model.call.nr_blocks;
	settle_call(run, err, sync_id);
}

static void step_write(struct run *run)
{
	uint64_t offset, bytes;

	draw_range(run, &offset, &bytes);
	step_write_range(run, offset, bytes);
}

/* Much at once without a sync: more than the memtable holds, and more than may be verified. */
static void step_stream(struct run *run)
{
	uint64_t chunk = CALL_BLOCKS_MAX * MLS_BLOCK_BYTES;
	uint64_t offset = test_rand_below(&run->rand, run->model.nr_blocks) * MLS_BLOCK_BYTES;
	uint64_t nr = test_rand_between(&run->rand, 1, 40), cuts = total.cuts;

	for (uint64_t i = 0; i < nr && total.cuts == cuts; i++) {
		step_write_range(run, offset, mls_min_u64(chunk, disk_bytes(run) - offset));
		offset = offset + chunk < disk_bytes(run) ? offset + chunk : 0;
	}
}

static void step_discard(struct run *run)
{
	uint64_t sync_id = run->store.trust.sync_id, offset, bytes;
	int err;

	draw_range(run, &offset, &bytes);
	if (test_rand_chance(&run->rand, 1, 4))
		bytes = test_rand_between(&run->rand, 1, disk_bytes(run) - offset);
	SAY(run, "discard %" PRIu64 " + %" PRIu64, offset, bytes);
	model_begin(&run->model, offset, bytes);
	memset(run->model.now + offset, 0, bytes);
	err = mls_disk_discard(run->disk, offset, bytes);
	if (err == MLS_ENOSPC && (offset | bytes) % MLS_BLOCK_BYTES == 0 && !run->tiny_tables)
		fail(run, "a discard of whole blocks needs space");
	total.blocks += run->model.call.nr_blocks;
	settle_call(run, err, sync_id);
}

static void step_read(struct run *run)
{
	uint64_t offset, bytes;
	int err;

	draw_range(run, &offset, &bytes);
	SAY(run, "read %" PRIu64 " + %" PRIu64, offset, bytes);
	err = mls_disk_read(run->disk, offset, run->buf, bytes);
	total.blocks += bytes / MLS_BLOCK_BYTES + 1;
	if (err)
		fail(run, "%s", mls_strerror(err));
	for (uint64_t i = 0; i < bytes; i++)
		if (run->buf[i] != run->model.now[offset + i])
			fail(run, "byte %" PRIu64 " (LBA %" PRIu64 ") isn't what was written", offset + i,
			     (offset + i) / MLS_BLOCK_BYTES);
}

static void step_sync(struct run *run)
{
	uint64_t sync_id = run->store.trust.sync_id;
	int err;

	SAY(run, "sync");
	err = mls_disk_sync(run->disk);
	total.syncs++;
	if (run->store.trust.sync_id != sync_id || (!err && !run->power.off))
		model_synced(&run->model);
	if (run->power.off)
		after_cut(run, true);
	else if (err)
		fail(run, "%s", mls_strerror(err));
}

static void step_reopen(struct run *run)
{
	uint64_t sync_id = run->store.trust.sync_id;
	int err;

	SAY(run, "reopen");
	note_stat(run);
	err = mls_disk_close(run->disk);
	run->disk = NULL;
	if (run->store.trust.sync_id != sync_id || (!err && !run->power.off))
		model_synced(&run->model);
	if (err && !run->power.off)
		fail(run, "close: %s", mls_strerror(err));
	if (run->power.off) {
		after_cut(run, true);
		return;
	}
	if (test_rand_chance(&run->rand, 1, 2)) {	/* a flush is owed for all that close calls durable */
		crash_dev_cut(run->crash, test_rand_u64(&run->rand));
		test_power_on(&run->power, 0);
	}
	recover(run);
	read_all(run, run->disk);
	check_state(run, MODEL_SYNCED, "after a reopen");
	model_restart(&run->model, run->buf);
}

/* From some step on the power fails at an operation that is random on a logarithmic scale. */
static void step_arm(struct run *run)
{
	uint64_t range = UINT64_C(4) << test_rand_below(&run->rand, 8);

	if (run->power.cut_at)
		return;			/* armed already */
	test_power_on(&run->power, test_rand_between(&run->rand, 1, range));
	run->power.swallow = test_rand_chance(&run->rand, 1, 4);
	run->store.keep_at_cut = test_rand_chance(&run->rand, 1, 2);
	SAY(run, "power fails at operation %" PRIu64 " from now", run->power.cut_at);
}

static void one_step(struct run *run)
{
	uint64_t draw = test_rand_below(&run->rand, 1000);

	if (draw < 560)
		step_write(run);
	else if (draw < 580)
		step_stream(run);
	else if (draw < 640)
		step_discard(run);
	else if (draw < 850)
		step_read(run);
	else if (draw < 930)
		step_sync(run);
	else if (draw < 940)
		step_reopen(run);
	else
		step_arm(run);
}

static void live(uint64_t seed, uint64_t nr_steps)
{
	struct run run;

	run_init(&run, seed, nr_steps);
	for (run.step = 1; run.step <= nr_steps; run.step++)
		one_step(&run);
	run_release(&run);
}

int main(void)
{
	uint64_t seed = test_env_u64("MLS_SEED", 1), nr_disks = test_env_u64("MLS_DISKS", DISKS_DEFAULT);
	uint64_t nr_steps = test_env_u64("MLS_STEPS", STEPS_DEFAULT);

	verbose = test_env_u64("MLS_VERBOSE", 0);
	mls_set_logger(keep_log, NULL);
	for (uint64_t i = 0; i < nr_disks; i++)
		live(seed + i, nr_steps);
	printf("%" PRIu64 " disks from seed %" PRIu64 ": %" PRIu64 " block operations, %" PRIu64 " syncs, %" PRIu64
	       " early in %" PRIu64 " calls, %" PRIu64 " cuts and %" PRIu64 " in recovery, in flight %" PRIu64
	       " kept %" PRIu64 " undone, %" PRIu64 " ENOSPC; %" PRIu64 " memtable flushes, %" PRIu64
	       " compactions, %" PRIu64 " segments cleaned, %" PRIu64 " blocks moved\n",
	       nr_disks, seed, total.blocks, total.syncs, total.early_syncs, total.in_call_syncs, total.cuts,
	       total.recovery_cuts, total.kept_in_flight, total.undone_in_flight, total.enospc, total.flushes,
	       total.compactions, total.cleaned, total.moved);
	printf("%" PRIu64 " times fsck found nothing\n", total.fscks);
	return 0;
}
