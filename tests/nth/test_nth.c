/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_nth.c - every public operation, with its Nth read, write, flush, allocation, store advance, random
 * draw or thread creation failing, once and for ever, until a run is clean.
 *
 * After each:
 *   - the error came out, or the operation did what it should; and it is one that a failing call may
 *     cause: a broken device isn't tampering, a full memory isn't a wrong key;
 *   - every run of BACKING is free or owned, and all memory was given back;
 *   - a sync or close that failed at a flush stops writing until the disk is opened again;
 *   - the disk opens on the healthy device with the old or the new state, takes writes, and opens again;
 *   - nothing hung (an alarm) and no invariant broke (abort): the line printed replays the case.
 *
 * Replay   MLS_NTH="operation kind once|ever inline|threads N"
 * Length   By default N is sampled; MLS_NTH_ALL=1 takes every N (make check-nth).
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/lib/tamper.h"
#include "tests/lib/test_rand.h"
#include "tests/nth/nth.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define DISK_BYTES (2 * MIB)
#define NR_BLOCKS (DISK_BYTES / MLS_BLOCK_BYTES)
#define NR_SYNCED 400u			/* LBAs that the prepared disk has */
#define HANG_SECONDS 120
#define PART ((uint64_t)1 << 63)	/* with a version: its first PART_BYTES, then zeros */
#define PART_BYTES 2000u

/* What LBA holds: versions by block_fill. */
struct model {
	uint64_t synced[NR_BLOCKS];	/* at the last sync that succeeded */
	uint64_t now[NR_BLOCKS];
	uint64_t maybe[NR_BLOCKS];	/* of an operation that failed; else = now */
};

struct nth_case {
	const struct operation *op;
	enum nth_kind kind;
	bool sticky, threads;
	uint64_t n;
};

struct nth_world {
	struct disk_fixture f;		/* dev: the healthy one; store: the register */
	struct mls_block_dev *flaky;
	struct mls_trusted_store *store;
	struct tamper_image prepared;
	struct mls_trust prepared_trust;
	struct model model, prepared_model;
	struct mls_disk *disk;
	struct nth_case now;
	uint64_t next_version;
	uint8_t *buf;
	bool replays;			/* stop where it goes wrong, for a debugger */
};

struct operation {
	const char *name;
	int (*run)(struct nth_world *w);
	bool offline;			/* needs the disk closed */
	bool clean;			/* starts with nothing unsynced */
	bool synced_early;		/* may sync by itself: what is durable may lie between old and new */
};

static struct nth_world world;

/* ---- When it goes wrong ---- */

static char case_line[256];

static void last_words(int sig)
{
	ssize_t n = write(STDERR_FILENO, case_line, strlen(case_line));

	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void announce(const struct nth_case *c)
{
	snprintf(case_line, sizeof case_line, "stopped in MLS_NTH=\"%s %s %s %s %llu\"\n", c->op->name,
		 nth_kind_name[c->kind], c->sticky ? "ever" : "once", c->threads ? "threads" : "inline",
		 (unsigned long long)c->n);
}

__attribute__((format(printf, 2, 3))) static void world_fail(struct nth_world *w, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	nth_disarm();
	if (w->replays) {
		fprintf(stderr, "%s\n", text);
		abort();
	}
	ck_abort_msg("%s; %s", text, case_line);
}

#define nth_assert(w, cond, ...)                                       \
	do {                                                           \
		if (!(cond))                                           \
			world_fail(w, __VA_ARGS__);                    \
	} while (0)

/* ---- Model ---- */

/* What a failed operation may have written, it may have written for good. */
static void model_settle(struct nth_world *w)
{
	memcpy(w->model.synced, w->model.now, sizeof w->model.now);
}

static int put(struct nth_world *w, uint64_t lba, uint64_t nr)
{
	uint64_t version = w->next_version++;
	int err;

	for (uint64_t i = 0; i < nr; i++)
		block_fill(w->buf + i * MLS_BLOCK_BYTES, lba + i, version);
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES, w->buf, nr * MLS_BLOCK_BYTES);
	for (uint64_t i = lba; i < lba + nr; i++) {
		if (err)
			w->model.maybe[i] = version;
		else
			w->model.now[i] = w->model.maybe[i] = version;
	}
	return err;
}

static bool holds(const uint8_t *block, uint64_t lba, uint64_t version)
{
	uint8_t expected[MLS_BLOCK_BYTES];

	block_fill(expected, lba, version & ~PART);
	if (version & PART)
		memset(expected + PART_BYTES, 0, sizeof expected - PART_BYTES);
	return memcmp(block, expected, sizeof expected) == 0;
}

/* The disk is what the model allows: durable false: as the user sees it now; true: after a reopen. */
static void check_content(struct nth_world *w, struct mls_disk *disk, bool all_synced, bool mixed)
{
	bool old = true, new = true;

	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++) {
		int err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, w->buf, MLS_BLOCK_BYTES);
		bool is_old, is_new;

		nth_assert(w, !err, "LBA %llu: %s", (unsigned long long)lba, mls_strerror(err));
		is_old = holds(w->buf, lba, w->model.synced[lba]);
		is_new = holds(w->buf, lba, w->model.now[lba]) || holds(w->buf, lba, w->model.maybe[lba]);
		nth_assert(w, is_old || is_new || mixed, "LBA %llu holds neither old nor new",
			   (unsigned long long)lba);
		old = old && is_old;
		new = new && is_new;
	}
	nth_assert(w, new || (!all_synced && (old || mixed)), "the disk holds neither the old nor the new state");
}

static void check_runs(struct nth_world *w, struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	nth_assert(w, stat.nr_free_runs + stat.nr_segments + stat.nr_chunks == stat.nr_runs,
		   "%llu free + %llu segments + %llu chunks != %llu runs", (unsigned long long)stat.nr_free_runs,
		   (unsigned long long)stat.nr_segments, (unsigned long long)stat.nr_chunks,
		   (unsigned long long)stat.nr_runs);
}

/* ---- Operations ---- */

static int op_write(struct nth_world *w)
{
	return put(w, 33, 1);
}

static int op_write_many(struct nth_world *w)
{
	int err = 0;

	for (uint64_t i = 0; i < 5 && !err; i++)
		err = put(w, i * 80, 60);
	return err;
}

static int op_overwrite(struct nth_world *w)
{
	struct test_rand r;
	int err = 0;

	test_rand_seed(&r, 11);
	for (unsigned i = 0; i < 250 && !err; i++)
		err = put(w, test_rand_below(&r, NR_BLOCKS - 8), 8);
	return err;
}

static int op_write_part(struct nth_world *w)
{
	uint64_t version = w->next_version++, lba = 450;	/* a hole */
	int err;

	block_fill(w->buf, lba, version);
	w->model.maybe[lba] = version | PART;
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES, w->buf, PART_BYTES);
	if (err)
		return err;
	w->model.now[lba] = version | PART;
	w->model.maybe[lba] = version;
	err = mls_disk_write(w->disk, lba * MLS_BLOCK_BYTES + PART_BYTES, w->buf + PART_BYTES,
			     MLS_BLOCK_BYTES - PART_BYTES);
	if (!err)
		w->model.now[lba] = version;
	return err;
}

static int op_discard(struct nth_world *w)
{
	uint64_t lba = 20, nr = 100;
	int err = mls_disk_discard(w->disk, lba * MLS_BLOCK_BYTES, nr * MLS_BLOCK_BYTES);

	for (uint64_t i = lba; i < lba + nr; i++) {
		w->model.maybe[i] = 0;
		if (!err)
			w->model.now[i] = 0;
	}
	return err;
}

static int op_read(struct nth_world *w)
{
	uint8_t *to = malloc(3 * MLS_BLOCK_BYTES);
	int err = to ? mls_disk_read(w->disk, 0, w->buf, 128 * MLS_BLOCK_BYTES) : MLS_ENOMEM;

	if (!err)
		err = mls_disk_read(w->disk, 77, to, 2 * MLS_BLOCK_BYTES);
	free(to);
	return err;
}

static int op_seek(struct nth_world *w)
{
	uint64_t at = 0;
	int err = mls_disk_seek(w->disk, 0, false, &at);

	if (!err && at / MLS_BLOCK_BYTES < NR_SYNCED)
		err = 1;	/* a hole where there is none */
	if (!err)
		err = mls_disk_seek(w->disk, (NR_SYNCED - 1) * MLS_BLOCK_BYTES, true, &at);
	return err;
}

static int op_sync(struct nth_world *w)
{
	int err = mls_disk_sync(w->disk);

	if (!err)
		model_settle(w);
	return err;
}

static int disk_open(struct nth_world *w, bool flaky)
{
	struct mls_open_opts opts = { .inline_work = !w->now.threads, .memtable_records = 64,
				      .cache_bytes = MIB };

	return mls_disk_open(&w->disk, flaky ? w->flaky : w->f.dev, flaky ? w->store : &w->f.store.base,
			     &w->f.secret, &opts);
}

static int op_open(struct nth_world *w)
{
	return disk_open(w, true);
}

static int op_open_read_only(struct nth_world *w)
{
	struct mls_open_opts opts = { .read_only = true, .inline_work = !w->now.threads, .cache_bytes = MIB };
	int err = mls_disk_open(&w->disk, w->flaky, w->store, &w->f.secret, &opts);

	if (!err) {
		err = mls_disk_close(w->disk);
		w->disk = NULL;
	}
	return err;
}

static int op_close(struct nth_world *w)
{
	int err = mls_disk_close(w->disk);

	w->disk = NULL;
	if (!err)
		model_settle(w);
	return err;
}

static const char second_key[32] = "another key that is 32 bytes ..";

static int op_key_add(struct nth_world *w)
{
	struct mls_secret second = { second_key, sizeof second_key, false };

	return mls_key_add(w->flaky, &w->f.secret, &second, MLS_KEY_SLOT_ANY, "second", NULL);
}

static int op_key_change(struct nth_world *w)
{
	struct mls_secret second = { second_key, sizeof second_key, false };
	int err = mls_key_change(w->flaky, &w->f.secret, &second, MLS_KEY_SLOT_ANY, "second", NULL);
	struct mls_open_opts opts = { .read_only = true, .inline_work = true, .cache_bytes = MIB };

	/* Which secret it is now, a program would find out by trying. */
	nth_disarm();
	if (mls_disk_open(&w->disk, w->f.dev, &w->f.store.base, &second, &opts) == 0) {
		mls_disk_close(w->disk);
		w->f.secret.data = second_key;
	} else if (!err) {
		return 1;
	}
	w->disk = NULL;
	return err;
}

static int op_format(struct nth_world *w)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BYTES };
	int err = mls_disk_format(w->flaky, w->store, &w->f.secret, w->f.uuid, &opts);

	memset(&w->model, 0, sizeof w->model);
	if (err) {	/* what is there is no disk, or the new one; either way it can be formatted again */
		nth_disarm();
		err = mls_disk_format(w->f.dev, &w->f.store.base, &w->f.secret, w->f.uuid, &opts) ? 1 : err;
	}
	return err;
}

static const struct operation operations[] = {
	{ "write", op_write, false, false, false },
	{ "write-many", op_write_many, false, false, true },
	{ "overwrite", op_overwrite, false, false, true },
	{ "write-part", op_write_part, false, false, false },
	{ "discard", op_discard, false, false, true },
	{ "read", op_read, false, true, false },
	{ "seek", op_seek, false, true, false },
	{ "sync", op_sync, false, false, false },
	{ "close", op_close, false, false, false },
	{ "open", op_open, true, true, false },
	{ "open-read-only", op_open_read_only, true, true, false },
	{ "key-add", op_key_add, true, true, false },
	{ "key-change", op_key_change, true, true, false },
	{ "format", op_format, true, true, false },
};

/* ---- One case ---- */

static bool answer_fits(const struct nth_case *c, int err)
{
	if (err == 0)
		return true;
	/* A cleaner's round that failed gained nothing: a writer that waits for space hears of no space. */
	if (err == MLS_ENOSPC && c->threads && c->op->synced_early)
		return true;
	if (c->kind == NTH_MEMORY || c->kind == NTH_THREAD)
		return err == MLS_ENOMEM || err == MLS_EPOISONED || err == MLS_EABORTED;
	return err == MLS_EIO || err == MLS_EPOISONED || err == MLS_EABORTED;
}

/* No ck_assert within a case: libcheck allocates behind our back. */
static void begin(struct nth_world *w)
{
	tamper_image_put_back(&w->prepared, w->f.dev);
	w->f.store.trust = w->prepared_trust;
	w->f.store.held = true;
	w->f.secret.data = fixture_key;
	w->model = w->prepared_model;
	w->next_version = 1000;
	if (w->now.op->offline)
		return;
	nth_assert(w, disk_open(w, true) == 0, "open before");
	if (!w->now.op->clean)
		for (uint64_t lba = 10; lba < 40; lba++)
			nth_assert(w, put(w, lba, 1) == 0, "write before");
}

/* After a failed flush in a sync nothing may be written; after anything else the disk may go on. */
static void check_live(struct nth_world *w, int err)
{
	struct mls_disk_stat stat;

	mls_disk_stat(w->disk, &stat);
	if (w->now.op->run == op_sync && err && w->now.kind == NTH_FLUSH) {
		nth_assert(w, stat.poisoned, "a failed flush didn't poison");
		nth_assert(w, mls_disk_sync(w->disk) == MLS_EPOISONED, "sync after a failed flush");
		nth_assert(w, mls_disk_write(w->disk, 0, w->buf, MLS_BLOCK_BYTES) == MLS_EPOISONED,
			   "write after a failed flush");
	}
	if (w->now.sticky)
		return;
	check_content(w, w->disk, false, false);
	if (!w->now.threads && !stat.poisoned)
		check_runs(w, w->disk);
}

/* The disk on the healthy device: old or new, and good for more. */
static void check_after(struct nth_world *w, bool all_synced)
{
	int err = disk_open(w, false);

	nth_assert(w, !err, "reopen on the healthy device: %s", mls_strerror(err));
	check_content(w, w->disk, all_synced, w->now.op->synced_early);
	if (!w->now.threads)
		check_runs(w, w->disk);
	err = mls_disk_write(w->disk, 0, w->buf, MLS_BLOCK_BYTES);
	nth_assert(w, !err, "write after reopen: %s", mls_strerror(err));
	err = mls_disk_close(w->disk);
	w->disk = NULL;
	nth_assert(w, !err, "close after reopen: %s", mls_strerror(err));
}

/* Did the N-th call happen at all? */
static bool run_case(struct nth_world *w)
{
	int64_t live = nth_live_allocations();
	bool fired, all_synced = w->now.op->offline;
	int err;

	announce(&w->now);
	alarm(HANG_SECONDS);
	begin(w);
	nth_arm(w->now.kind, w->now.n, w->now.sticky);
	err = w->now.op->run(w);
	fired = nth_fired();
	if (!w->now.sticky || w->now.op->offline)
		nth_disarm();
	nth_assert(w, err == 0 || fired, "failed by itself: %s", mls_strerror(err));
	nth_assert(w, answer_fits(&w->now, err), "answers %s", mls_strerror(err));
	if (w->now.op->run == op_close)
		all_synced = err == 0;
	if (w->disk && !w->now.op->offline)
		check_live(w, err);
	if (w->disk) {
		int e = op_close(w);

		fired = fired || nth_fired();
		nth_assert(w, e == 0 || fired, "close: %s", mls_strerror(e));
		nth_assert(w, answer_fits(&w->now, e), "close answers %s", mls_strerror(e));
		all_synced = e == 0;
	}
	nth_disarm();
	nth_assert(w, nth_live_allocations() == live, "%lld allocations leaked",
		   (long long)(nth_live_allocations() - live));
	check_after(w, all_synced);
	alarm(0);
	return fired;
}

/* ---- The loop ---- */

static void run_all_n(struct nth_world *w, const struct nth_case *c, bool all)
{
	uint64_t nr = 0, steps_dense = all ? UINT64_MAX : test_env_u64("MLS_NTH_DENSE", 12);
	struct test_rand r;

	test_rand_seed(&r, test_env_u64("MLS_NTH_SEED", 1));
	w->now = *c;
	for (uint64_t n = 1;; nr++) {
		w->now.n = n;
		if (!run_case(w))
			break;
		n += n < steps_dense ? 1 : test_rand_between(&r, 1, n);
	}
	if (all)
		printf("%-15s %-7s %s %s: clean after %llu\n", c->op->name, nth_kind_name[c->kind],
		       c->sticky ? "ever" : "once", c->threads ? "threads" : "inline ", (unsigned long long)nr);
	fflush(stdout);
}

static void prepare(struct nth_world *w)
{
	struct mls_disk_stat stat;
	struct test_rand r;

	memset(w, 0, sizeof *w);
	test_rand_seed(&r, 5);
	w->buf = aligned_alloc(MLS_BLOCK_BYTES, 128 * MLS_BLOCK_BYTES);
	ck_assert_ptr_nonnull(w->buf);
	/* Tiny memtables make a large index: twice the space that a disk of this size needs. */
	fixture_init(&w->f, DISK_BYTES, 2 * mls_backing_bytes(DISK_BYTES));
	w->flaky = nth_dev_new(w->f.dev);
	w->store = nth_store_new(&w->f.store.base);
	ck_assert_ptr_nonnull(w->flaky);
	nth_watch_random();
	w->next_version = 1;
	ck_assert_int_eq(disk_open(w, false), 0);
	ck_assert_int_eq(put(w, 0, 100), 0);
	for (uint64_t lba = 100; lba < NR_SYNCED; lba += 100)
		ck_assert_int_eq(put(w, lba, 100), 0);
	for (unsigned i = 0; i < 300; i++)
		ck_assert_int_eq(put(w, test_rand_below(&r, NR_SYNCED - 2), 2), 0);
	check_runs(w, w->disk);
	mls_disk_stat(w->disk, &stat);
	ck_assert_uint_gt(stat.compactions, 0);
	ck_assert_int_eq(op_close(w), 0);
	tamper_image_take(&w->prepared, w->f.dev);
	w->prepared_trust = w->f.store.trust;
	w->prepared_model = w->model;
}

static void unprepare(struct nth_world *w)
{
	tamper_image_release(&w->prepared);
	mls_block_dev_destroy(w->flaky);
	fixture_release(&w->f);
	free(w->buf);
}

static bool worth_it(const struct operation *op, enum nth_kind kind, bool sticky, bool threads, bool all)
{
	if (kind == NTH_THREAD)
		return threads && op->run == op_open && !sticky;
	if (threads && !all)
		return op->run == op_overwrite && kind != NTH_RANDOM && !sticky;
	return true;
}

START_TEST(every_operation_bears_every_nth_failure)
{
	const struct operation *op = &operations[_i];
	bool all = getenv("MLS_NTH_ALL") != NULL;

	for (int kind = 0; kind < NR_NTH_KINDS; kind++)
		for (int sticky = 0; sticky < 2; sticky++)
			for (int threads = 0; threads < 2; threads++) {
				struct nth_case c = { op, (enum nth_kind)kind, sticky, threads, 0 };

				if (!worth_it(op, c.kind, sticky, threads, all))
					continue;
				prepare(&world);
				nth_store_keeps(sticky);
				run_all_n(&world, &c, all);
				unprepare(&world);
			}
}
END_TEST

/* ---- One case again ---- */

START_TEST(one_case_again)
{
	char op[32], kind[16], once[16], threads[16];
	unsigned long long n;

	ck_assert_int_eq(sscanf(getenv("MLS_NTH"), "%31s %15s %15s %15s %llu", op, kind, once, threads, &n), 5);
	prepare(&world);
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (strcmp(operations[i].name, op) == 0)
			world.now.op = &operations[i];
	for (int i = 0; i < NR_NTH_KINDS; i++)
		if (strcmp(nth_kind_name[i], kind) == 0)
			world.now.kind = (enum nth_kind)i;
	ck_assert_ptr_nonnull(world.now.op);
	world.now.sticky = strcmp(once, "ever") == 0;
	world.now.threads = strcmp(threads, "threads") == 0;
	world.now.n = n;
	world.replays = true;
	nth_store_keeps(world.now.sticky);
	printf("%s\n", run_case(&world) ? "fired" : "clean");
	unprepare(&world);
}
END_TEST

static void quiet(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	(void)message;
}

int main(void)
{
	Suite *suite = suite_create("nth failure");
	TCase *tc = tcase_create("nth");
	SRunner *runner;
	int failed;

	signal(SIGABRT, last_words);
	signal(SIGALRM, last_words);
	if (!getenv("MLS_LOUD"))
		mls_set_logger(quiet, NULL);
	tcase_set_timeout(tc, 0);
	if (getenv("MLS_NTH"))
		tcase_add_test(tc, one_case_again);
	else
		tcase_add_loop_test(tc, every_operation_bears_every_nth_failure, 0,
				    (int)(sizeof operations / sizeof *operations));
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
