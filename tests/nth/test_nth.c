/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_nth.c - every public operation, with its Nth read, write, flush, allocation (ours, OpenSSL's), store
 * call, random draw, thread creation or system call failing, once and for ever, until a run is clean.
 *
 * After each:
 *   - the error came out, or the operation did what it should; and it is one that a failing call may
 *     cause: a broken device isn't tampering, a full memory isn't a wrong key;
 *   - every run of BACKING is free or owned, and all memory, descriptors and threads were given back;
 *   - a failed flush has stopped writing until the disk is opened again;
 *   - the disk opens on the healthy device with the old or the new state (nth_model.h), fsck finds no fault
 *     in it, it takes writes, and opens again;
 *   - nothing hung (an alarm) and no invariant broke (abort): the line printed replays the case.
 *
 * Replay   MLS_NTH="operation kind once|ever inline|threads N"
 * Length   By default N is sampled, and threads are tried with one operation; MLS_NTH_ALL=1 takes every N of
 *          all (make check-nth); MLS_NTH_OPS="name ..." only those operations.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include <check.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "1-crypto/secret.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_fsck.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/nth/nth_ops.h"

#define HANG_SECONDS 120

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

/* ---- What must hold ---- */

static void check_content(struct nth_world *w, const char *when, size_t low, size_t high)
{
	const char *why = nth_model_check(&w->model, w->disk, low, high, w->buf);

	nth_assert(w, !why, "%s: %s", when, why);
}

static void check_runs(struct nth_world *w)
{
	struct mls_disk_stat stat;

	mls_disk_stat(w->disk, &stat);
	nth_assert(w, stat.nr_free_runs + stat.nr_segments + stat.nr_chunks == stat.nr_runs,
		   "%llu free + %llu segments + %llu chunks != %llu runs", (unsigned long long)stat.nr_free_runs,
		   (unsigned long long)stat.nr_segments, (unsigned long long)stat.nr_chunks,
		   (unsigned long long)stat.nr_runs);
}

static bool answer_fits(const struct nth_case *c, int err)
{
	if (err == 0)
		return true;
	/* A cleaner's round that failed gained nothing: a writer that waits for space hears of no space. */
	if (err == MLS_ENOSPC && c->threads && !(c->op->flags & OP_OFFLINE))
		return true;
	if (err == MLS_EPOISONED || err == MLS_EABORTED)
		return true;
	if (c->kind == NTH_MEMORY || c->kind == NTH_CRYPTO || c->kind == NTH_THREAD)
		return err == MLS_ENOMEM;
	return err == MLS_EIO;
}

/* After a failed flush nothing may be written; the first refusal may still say why. */
static void check_stopped(struct nth_world *w)
{
	int err = mls_disk_write(w->disk, 0, w->buf, MLS_BLOCK_BYTES);

	nth_assert(w, w->stat.poisoned, "a failed flush didn't poison");
	nth_assert(w, err == MLS_EPOISONED || err == MLS_EIO, "first write after a failed flush: %s", mls_strerror(err));
	err = mls_disk_write(w->disk, 0, w->buf, MLS_BLOCK_BYTES);
	nth_assert(w, err == MLS_EPOISONED, "write after a failed flush: %s", mls_strerror(err));
	err = mls_disk_discard(w->disk, 0, MLS_BLOCK_BYTES);
	nth_assert(w, err == MLS_EPOISONED, "discard after a failed flush: %s", mls_strerror(err));
	err = mls_disk_resize(w->disk, GROWN_BYTES);
	nth_assert(w, err == MLS_EPOISONED, "resize after a failed flush: %s", mls_strerror(err));
	err = mls_disk_sync(w->disk);
	nth_assert(w, err == MLS_EPOISONED, "sync after a failed flush: %s", mls_strerror(err));
}

static void check_live(struct nth_world *w, bool fired)
{
	if (w->now.threads)	/* a flush of the background may fail right now */
		nth_disarm();
	mls_disk_stat(w->disk, &w->stat);
	if (fired && w->now.kind == NTH_FLUSH)
		check_stopped(w);
	if (w->now.sticky && !w->now.threads)
		return;
	check_content(w, "live", w->model.nr_sure, w->model.nr);
	if (!w->now.threads && !w->stat.poisoned)
		check_runs(w);
}

/* How many changes a disk may hold whose last close failed. */
static size_t at_least(const struct nth_world *w, bool all_synced)
{
	return all_synced ? w->model.nr_sure : w->model.nr_synced;
}

/* A disk that didn't sync by itself has the old state or the new one, nothing between. */
static void check_old_or_new(struct nth_world *w, bool all_synced)
{
	const struct nth_model *m = &w->model;
	/* With threads a sync of the cleaner may have been under way when the call failed: it counts itself later. */
	bool any = all_synced || w->stat.early_syncs || w->now.threads;

	if (!any && !nth_model_check(m, w->disk, m->nr_synced, m->nr_synced, w->buf))
		return;
	check_content(w, "after reopening", at_least(w, all_synced), m->nr);
	nth_assert(w, any || !nth_model_check(m, w->disk, m->nr_sure, m->nr, w->buf),
		   "after reopening: the disk is of a moment between, but never synced by itself");
}

/* A superblock that was half written when the call failed is what the other copy is for. */
static void note_fault(void *arg, const struct mls_finding *finding)
{
	if (mls_finding_pass(finding->code) != 0 || mls_finding_severity(finding->code) > MLS_SEV_WARNING)
		test_fsck_report(arg, finding);
}

static void check_fsck(struct nth_world *w)
{
	struct test_fsck found = { .nr_faults = 0 };
	struct mls_inspect *x = NULL;
	int err = mls_inspect_open(&x, w->f.dev, &w->f.store.base, &w->f.secret, note_fault, &found);

	if (!err)
		err = mls_inspect_check(x, NULL, NULL);
	if (!err)
		err = mls_inspect_check_data(x, NULL, NULL, NULL, NULL);
	mls_inspect_close(x);

	nth_assert(w, !err, "fsck: %s", mls_strerror(err));
	nth_assert(w, !found.nr_faults, "fsck: %llu faults, the first: %s", (unsigned long long)found.nr_faults,
		   found.first);
}

/* The disk on the healthy device: old or new, sound, and good for more. */
static void check_after(struct nth_world *w, bool all_synced)
{
	struct mls_disk_stat before = w->stat;
	int err;

	if (w->now.n % 4 == 1 && !w->accept_rollback)
		check_fsck(w);
	err = nth_disk_open(w, false);
	nth_assert(w, !err, "reopen on the healthy device: %s", mls_strerror(err));
	check_old_or_new(w, all_synced);
	if (!w->now.threads)
		check_runs(w);
	err = mls_disk_write(w->disk, 0, w->buf, MLS_BLOCK_BYTES);
	nth_assert(w, !err, "write after reopen: %s", mls_strerror(err));
	err = nth_disk_close(w);
	nth_assert(w, !err, "close after reopen: %s", mls_strerror(err));
	nth_assert(w, w->stat.disk_bytes >= before.disk_bytes, "the disk shrank");
	w->accept_rollback = false;
}

/* ---- One case ---- */

/* No ck_assert within a case: libcheck allocates behind our back. */
static void begin(struct nth_world *w)
{
	unsigned flags = w->now.op->flags;

	w->f.secret = (struct mls_secret){ fixture_key, sizeof fixture_key, false };
	w->accept_rollback = false;
	memset(&w->stat, 0, sizeof w->stat);
	if (flags & OP_SYSTEM)
		return;
	tamper_image_put_back(&w->prepared, w->f.dev);
	w->f.store.trust = flags & OP_ROLLED_BACK ? w->later_trust : w->prepared_trust;
	w->f.store.held = true;
	w->model = w->prepared_model;
	w->next_version = 1000;
	if (flags & OP_TWO_KEYS)
		nth_assert(w, mls_key_add(w->f.dev, &w->f.secret, &nth_second, MLS_KEY_SLOT_ANY, "second", NULL) == 0,
			   "add a key before");
	if (flags & OP_DAMAGED)
		tamper_fill(w->f.dev, MLS_SUPERBLOCK_HBA_1, 1, 0);
	if (flags & OP_OFFLINE)
		return;
	nth_assert(w, nth_disk_open(w, true) == 0, "open before");
	if (!(flags & OP_CLEAN))
		for (uint64_t lba = 10; lba < 40; lba++)
			nth_assert(w, nth_put(w, lba, 1) == 0, "write before");
}

/* Something is still held: which? NULL: nothing. */
static const char *leaked(const struct nth_resources *before)
{
	static char text[128];
	struct nth_resources now = nth_resources();

	/* The kernel's own threads of a ring that was closed take a moment. */
	for (unsigned i = 0; i < 1000 && now.threads > before->threads; i++) {
		usleep(1000);
		now = nth_resources();
	}
	if (now.allocations == before->allocations && now.fds == before->fds && now.threads <= before->threads &&
	    now.crypto <= before->crypto)
		return NULL;
	snprintf(text, sizeof text, "leaked %lld allocations, %lld of OpenSSL's, %d descriptors, %d threads",
		 (long long)(now.allocations - before->allocations), (long long)(now.crypto - before->crypto),
		 (int)(now.fds - before->fds), (int)(now.threads - before->threads));
	return text;
}

/* The operation and, of what it leaves open, the close. fired: did the Nth call happen at all? Answers whether
 * all that succeeded must be durable. */
static bool run_armed(struct nth_world *w, bool *fired)
{
	bool all_synced = w->now.op->flags & OP_OFFLINE;
	int err;

	nth_arm(w->now.kind, w->now.n, w->now.sticky);
	err = w->now.op->run(w);
	*fired = nth_fired();
	if (!w->now.sticky || all_synced)
		nth_disarm();
	nth_assert(w, err == 0 || *fired, "failed by itself: %s", mls_strerror(err));
	nth_assert(w, answer_fits(&w->now, err), "answers %s (%d)", mls_strerror(err), err);
	if (nth_is(w, "close") || nth_is(w, "sync"))
		all_synced = err == 0;
	if (w->disk && !(w->now.op->flags & OP_OFFLINE))
		check_live(w, *fired);
	if (w->disk) {
		int e = nth_disk_close(w);

		*fired = *fired || nth_fired();
		nth_assert(w, e == 0 || *fired, "close: %s", mls_strerror(e));
		nth_assert(w, answer_fits(&w->now, e), "close answers %s", mls_strerror(e));
		all_synced = all_synced || e == 0;
	}
	nth_disarm();
	/* With threads a write may be under way when the flush fails; nothing is written later than that. */
	nth_assert(w, w->now.threads || nth_writes_after_failed_flush() == 0, "%llu writes after a failed flush",
		   (unsigned long long)nth_writes_after_failed_flush());
	return all_synced;
}

/* Did the N-th call happen at all? */
static bool run_case(struct nth_world *w)
{
	struct nth_resources before = nth_resources();
	bool fired, all_synced;
	const char *leak;

	announce(&w->now);
	alarm(HANG_SECONDS);
	begin(w);
	all_synced = run_armed(w, &fired);
	leak = leaked(&before);
	/* OpenSSL keeps some memory for the next call. What it keeps it keeps once. */
	for (unsigned i = 0; leak && w->now.kind == NTH_CRYPTO && i < 8; i++) {
		before = nth_resources();
		begin(w);
		all_synced = run_armed(w, &fired);
		leak = leaked(&before);
	}
	nth_assert(w, !leak, "%s", leak);
	if (!(w->now.op->flags & OP_SYSTEM))
		check_after(w, all_synced);
	alarm(0);
	return fired;
}

/* ---- The loop ---- */

static void run_all_n(struct nth_world *w, const struct nth_case *c, bool all)
{
	uint64_t nr = 0, steps_dense = all ? UINT64_MAX : test_env_u64("MLS_NTH_DENSE", 6);
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

/* A later sync, so that the store can be ahead of the prepared image. */
static void prepare_rollback(struct nth_world *w)
{
	ck_assert_int_eq(nth_disk_open(w, false), 0);
	ck_assert_int_eq(nth_put(w, 0, 1), 0);
	ck_assert_int_eq(nth_disk_close(w), 0);
	w->later_trust = w->f.store.trust;
}

/* Larger than the disk's runs, so that it can grow. */
static void enlarge_backing(struct nth_world *w)
{
	struct tamper_image image;

	tamper_image_take(&image, w->f.dev);
	mls_block_dev_destroy(w->f.dev);
	ck_assert_int_eq(mls_block_dev_mem_new(&w->f.dev, image.nr_blocks + 200), 0);
	tamper_image_put_back_range(&image, w->f.dev, 0, image.nr_blocks);
	tamper_image_release(&image);
}

static void prepare(struct nth_world *w)
{
	struct test_rand r;

	memset(w, 0, sizeof *w);
	test_rand_seed(&r, 5);
	w->buf = aligned_alloc(MLS_BLOCK_BYTES, 128 * MLS_BLOCK_BYTES);
	ck_assert_ptr_nonnull(w->buf);
	strcpy(w->dir, "mlsdisk-nth-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(w->dir));
	w->image_fd = memfd_create("salvaged", MFD_CLOEXEC);
	ck_assert_int_ge(w->image_fd, 0);
	/* Tiny memtables make a large index: twice the space that a disk of this size needs. */
	fixture_init(&w->f, NTH_DISK_BYTES, 2 * mls_backing_bytes(NTH_DISK_BYTES));
	enlarge_backing(w);
	w->flaky = nth_dev_new(w->f.dev);
	w->store = nth_store_new(&w->f.store.base);
	ck_assert_ptr_nonnull(w->flaky);
	nth_watch_random();
	ERR_raise(ERR_LIB_NONE, 1);	/* OpenSSL makes room for a thread's errors when the first one comes */
	ERR_clear_error();
	w->next_version = 1;
	ck_assert_int_eq(nth_disk_open(w, false), 0);
	for (uint64_t lba = 0; lba < NR_SYNCED; lba += 100)
		ck_assert_int_eq(nth_put(w, lba, 100), 0);
	for (unsigned i = 0; i < 300; i++)
		ck_assert_int_eq(nth_put(w, test_rand_below(&r, NR_SYNCED - 2), 2), 0);
	check_runs(w);
	ck_assert_int_eq(nth_disk_close(w), 0);
	ck_assert_uint_gt(w->stat.compactions, 0);
	nth_model_settle(&w->model);
	w->prepared_model = w->model;
	tamper_image_take(&w->prepared, w->f.dev);
	w->prepared_trust = w->f.store.trust;
	prepare_rollback(w);
}

static void unprepare(struct nth_world *w)
{
	close(w->image_fd);
	rmdir(w->dir);
	tamper_image_release(&w->prepared);
	mls_block_dev_destroy(w->flaky);
	fixture_release(&w->f);
	free(w->buf);
}

/* Which failures an operation can meet, and in a short run which are tried with threads. */
static bool worth_it(const struct nth_operation *op, enum nth_kind kind, bool sticky, bool threads, bool all)
{
	bool on_files = op->flags & OP_SYSTEM;

	if (kind == NTH_SYSTEM || on_files)
		return !threads && (kind == NTH_SYSTEM || kind == NTH_MEMORY || kind == NTH_CRYPTO || kind == NTH_RANDOM) &&
		       on_files;
	if (kind == NTH_THREAD)
		return (op->flags & OP_THREADS) && !sticky && threads;
	if (threads && !all)
		return strcmp(op->name, "overwrite") == 0 && kind != NTH_RANDOM && !sticky;
	return !threads || !(op->flags & OP_OFFLINE) || (op->flags & OP_THREADS);
}

static bool asked_for(const struct nth_operation *op)
{
	const char *names = getenv("MLS_NTH_OPS"), *at = names;
	size_t length = strlen(op->name);

	while (at && (at = strstr(at, op->name))) {
		if ((at == names || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
			return true;
		at += length;
	}
	return !names;
}

START_TEST(every_operation_bears_every_nth_failure)
{
	const struct nth_operation *op = &nth_operations[_i];
	bool all = getenv("MLS_NTH_ALL") != NULL;

	if (!asked_for(op))
		return;
	prepare(&world);
	for (int kind = 0; kind < NR_NTH_KINDS; kind++)
		for (int sticky = 0; sticky < 2; sticky++)
			for (int threads = 0; threads < 2; threads++) {
				struct nth_case c = { op, (enum nth_kind)kind, sticky, threads, 0 };

				if (!worth_it(op, c.kind, sticky, threads, all))
					continue;
				nth_store_keeps(sticky);
				run_all_n(&world, &c, all);
			}
	unprepare(&world);
}
END_TEST

/* ---- One case again ---- */

START_TEST(one_case_again)
{
	char op[32], kind[16], once[16], threads[16];
	unsigned long long n;

	ck_assert_int_eq(sscanf(getenv("MLS_NTH"), "%31s %15s %15s %15s %llu", op, kind, once, threads, &n), 5);
	prepare(&world);
	for (unsigned i = 0; i < nth_nr_operations; i++)
		if (strcmp(nth_operations[i].name, op) == 0)
			world.now.op = &nth_operations[i];
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

int main(void)
{
	Suite *suite = suite_create("nth failure");
	TCase *tc = tcase_create("nth");

	nth_watch_crypto();
	mls_secret_keep(0);		/* each key's page is one that may not be had */
	signal(SIGABRT, last_words);
	signal(SIGALRM, last_words);
	if (!getenv("MLS_LOUD"))
		mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 0);
	if (getenv("MLS_NTH"))
		tcase_add_test(tc, one_case_again);
	else
		tcase_add_loop_test(tc, every_operation_bears_every_nth_failure, 0, (int)nth_nr_operations);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
