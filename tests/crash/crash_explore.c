/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_explore.c - every short workload, cut at every write.
 *
 * Goal     Guarantees 4, 5 and 6: after a crash at any moment, with any part of what wasn't flushed done,
 *          undone or torn, the disk opens by itself; it contains the last completed sync, or the one in
 *          flight, and nothing else; a crash within recovery changes nothing of that; and mlsdisk-fsck
 *          finds no fault in what recovery leaves.
 * Method   All sequences of up to MLS_OPS operations out of crash_ops, on each base (crash_work.c). The last
 *          operation is cut at each of its transfers, flushes and advances of the trusted store (earlier
 *          ones: that's a shorter sequence). Of each cut some images are made (crash_cut.h); each that
 *          wasn't seen before is a crash state: it's opened, read, compared, closed and checked. The
 *          opening is recorded in its turn and cut at each of its events, too, and so on, MLS_DEPTH deep;
 *          there the content must be what the uninterrupted recovery decided for.
 * Replay   Nothing is random but by MLS_SEED. A failure prints the line that repeats that one state.
 *
 *	MLS_OPS      operations of the longest workload; default: each base's own (3 or 2)
 *	MLS_IMAGES   new images wanted of a cut in the workload; default 4; 0: all there are
 *	MLS_IMAGES2  the same of a cut in recovery; default 1
 *	MLS_DEPTH    cuts in recovery after a cut; default 1
 *	MLS_SEED     which images, where not all are tried; default 1
 *	MLS_BASE     only this base
 *	MLS_PART     "0/2": one half of the workloads; "1/2": the other one
 *	MLS_CASE     one state: BASE/OPS/CUT.CHOICE and /CUT.CHOICE for each cut in recovery
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "tests/crash/crash_cut.h"
#include "tests/crash/crash_work.h"
#include "tests/lib/test_fsck.h"
#include "tests/lib/test_rand.h"

#define DEPTH_MAX 4u
#define NR_LOG_LINES 24u
#define CONTENT_NONE UINT64_MAX

/* One cut and the image made of it, by numbers. */
struct step {
	uint32_t at;
	uint64_t choice;
};

/* What one level of cuts works with: level 0 cuts the workload, level n the recovery after n cuts. */
struct level {
	struct crash_trace trace;	/* recorded; what is cut here */
	struct crash_cut cut;
	struct step step;		/* the running one */
	uint8_t *decided;		/* what the recovery recorded in it decided for (levels from 1 on) */
};

static struct {
	uint64_t nr_ops, images, images2, depth, seed, part, nr_parts;
	const char *only_base;
	bool verbose;

	struct crash_medium medium;
	struct crash_run run;
	struct level levels[DEPTH_MAX + 1];
	unsigned level;			/* of the state that is looked at */
	uint64_t decided_key;		/* names the content that the recovery after level 0 decided for */
	uint8_t *content;
	char ops[CRASH_OPS_MAX + 1];

	/* One state to replay. */
	struct step path[DEPTH_MAX + 1];
	unsigned path_levels;		/* 0: explore */

	uint64_t workloads, cuts, recovery_cuts, judged, states, recovery_states, fscks;
} e;

/* ---- States seen before ---- */

/* Open addressing; 0: a free place. */
static struct {
	uint64_t *keys, size, nr;
} seen;

static bool seen_place(uint64_t key, uint64_t *place)
{
	uint64_t i = key & (seen.size - 1);

	while (seen.keys[i] && seen.keys[i] != key)
		i = (i + 1) & (seen.size - 1);
	*place = i;
	return seen.keys[i] == key;
}

static void seen_grow(void)
{
	uint64_t *old = seen.keys, old_size = seen.size, place;

	seen.size = old_size ? 2 * old_size : 65536;
	seen.keys = calloc(seen.size, sizeof *seen.keys);
	MLS_INVARIANT(seen.keys != NULL);
	for (uint64_t i = 0; i < old_size; i++)
		if (old[i] && !seen_place(old[i], &place))
			seen.keys[place] = old[i];
	free(old);
}

/* Was it new? */
static bool see(uint64_t key)
{
	uint64_t place;

	if (2 * seen.nr >= seen.size)
		seen_grow();
	key = key ? key : 1;
	if (seen_place(key, &place))
		return false;
	seen.keys[place] = key;
	seen.nr++;
	return true;
}

/* ---- Telling ---- */

static char log_lines[NR_LOG_LINES][256];
static uint64_t nr_log_lines;

static void keep_log(void *arg, enum mls_log_level log_level, const char *message)
{
	(void)arg;
	snprintf(log_lines[nr_log_lines++ % NR_LOG_LINES], sizeof log_lines[0], "%d %s", (int)log_level, message);
	if (e.verbose)
		fprintf(stderr, "        %s\n", message);
}

_Noreturn static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void fail(const char *format, ...)
{
	va_list args;

	for (uint64_t i = nr_log_lines > NR_LOG_LINES ? nr_log_lines - NR_LOG_LINES : 0; i < nr_log_lines; i++)
		fprintf(stderr, "  log: %s\n", log_lines[i % NR_LOG_LINES]);
	fprintf(stderr, "FAILED: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nreplay: MLS_CASE=%s/%s", e.run.base->name, e.ops);
	for (unsigned i = 0; i <= e.level; i++)
		fprintf(stderr, "/%" PRIu32 ".%" PRIu64, e.levels[i].step.at, e.levels[i].step.choice);
	fprintf(stderr, " tests/crash/crash_explore\n");
	exit(1);
}

/* ---- One state ---- */

static void fsck_finds_nothing(const char *when)
{
	struct mls_secret secret = crash_secret();
	struct test_fsck found;
	int err = test_fsck(&e.medium.base, crash_run_store(&e.run), &secret, &found);

	if (err)
		fail("fsck %s: %s", when, mls_strerror(err));
	if (found.nr_faults)
		fail("fsck %s: %" PRIu64 " faults, the first: %s", when, found.nr_faults, found.first);
	e.fscks++;
}

static void read_and_compare(uint64_t synced, uint8_t *decided)
{
	uint64_t lba;
	int err = crash_read_all(&e.run, e.content);

	if (err)
		fail("reading the whole disk: %s", mls_strerror(err));
	if (e.level == 0 && !crash_content_allowed(&e.run, synced, e.content, &lba, &e.decided_key))
		fail("neither sync %" PRIu64 " (LBA %" PRIu64 " differs) nor the one in flight", synced, lba);
	if (e.level > 0 && memcmp(e.content, e.levels[e.level].decided, CRASH_DISK_BYTES) != 0)
		fail("an interrupted recovery decided for another state");
	memcpy(decided, e.content, CRASH_DISK_BYTES);
}

static void cut_all(uint32_t from);

/*
 * The medium holds what a crash at level e.level left. Recover; look; then the same again with that recovery
 * cut. Medium and store are left as they came.
 */
static void judge_state(uint64_t synced)
{
	struct level *next = &e.levels[e.level + 1];
	bool deeper = e.path_levels ? e.level + 1 < e.path_levels : e.level < e.depth;
	size_t mark = crash_medium_mark(&e.medium);
	struct mls_trust trust = e.run.store.trust;
	int err;

	crash_trace_clear(&next->trace);
	e.medium.trace = deeper ? &next->trace : NULL;
	err = crash_run_open(&e.run, test_rand_mix(e.medium.state, trust.sync_id), false);
	e.medium.trace = NULL;
	if (err)
		fail("reopen: %s", mls_strerror(err));
	read_and_compare(synced, next->decided);
	err = mls_disk_close(e.run.disk);
	e.run.disk = NULL;
	if (err)
		fail("close: %s", mls_strerror(err));
	fsck_finds_nothing("after recovery and close");
	crash_medium_revert(&e.medium, mark);
	e.run.store.trust = trust;
	if (!deeper)
		return;
	e.level++;
	cut_all(0);
	e.level--;
}

/* ---- Images of one cut ---- */

/* Bytes, register, and what is right for them: if all that was seen before, the answer is known. */
static uint64_t judgement_key(uint64_t image, uint64_t synced)
{
	uint64_t allowed = e.level ? e.decided_key : crash_allowed_key(&e.run, synced);

	return test_rand_mix(test_rand_mix(image, allowed), e.level);
}

/* Of an advance in flight the odd choices are those where the register has it already. */
static bool try_choice(uint64_t choice)
{
	struct level *level = &e.levels[e.level];
	bool in_advance = crash_cut_in_advance(&level->cut);
	size_t mark = crash_medium_mark(&e.medium);
	struct mls_trust trust = e.run.store.trust;
	uint64_t synced, image;
	bool is_new;

	level->step = (struct step){ level->cut.at, choice };
	crash_cut_apply(&level->cut, in_advance ? choice / 2 : choice, &e.medium);
	if (in_advance && choice % 2)
		e.run.store.trust = level->trace.events[level->cut.at].trust;
	synced = e.run.base->no_store && e.level == 0 ? crash_synced_before(&e.run, level->cut.at)
						      : e.run.store.trust.sync_id;
	image = test_rand_mix(e.medium.state, e.run.store.trust.sync_id);
	is_new = see(judgement_key(image, synced));
	if (is_new || e.path_levels) {
		bool is_state = see(image);

		e.judged++;
		e.states += is_state;
		e.recovery_states += is_state && e.level > 0;
		judge_state(synced);
	}
	crash_medium_revert(&e.medium, mark);
	e.run.store.trust = trust;
	return is_new;
}

static void try_some(uint64_t nr, uint64_t wanted)
{
	uint64_t tries = 3 * wanted + 2, got = 0;
	struct test_rand rand;

	test_rand_seed(&rand, test_rand_mix(e.medium.state, test_rand_mix(e.seed, e.levels[e.level].cut.at)));
	for (uint64_t i = 0; i < tries && got < wanted; i++)
		got += try_choice(test_rand_below(&rand, nr));
}

static void try_images(void)
{
	struct level *level = &e.levels[e.level];
	uint64_t nr = crash_cut_nr_choices(&level->cut), wanted = e.level ? e.images2 : e.images;

	if (crash_cut_in_advance(&level->cut))
		nr *= 2;
	if (e.level)
		e.recovery_cuts++;
	else
		e.cuts++;
	if (e.path_levels)
		try_choice(e.path[e.level].choice);
	else if (wanted && wanted < nr)
		try_some(nr, wanted);
	else
		for (uint64_t choice = 0; choice < nr; choice++)
			try_choice(choice);
}

/* ---- All cuts of the recording at this level ---- */

/* The medium is as it was before the recording; it and the store follow, event by event. */
static void cut_all(uint32_t from)
{
	struct level *level = &e.levels[e.level];
	const struct crash_trace *trace = &level->trace;
	size_t mark = crash_medium_mark(&e.medium);
	struct mls_trust trust = e.run.store.trust;
	uint32_t durable = 0;

	for (uint32_t at = 0; at <= trace->nr; at++) {
		bool wanted = e.path_levels ? at == e.path[e.level].at : at >= from && crash_cut_is_at(trace, at);

		if (wanted) {
			crash_cut_init(&level->cut, trace, durable, at);
			try_images();
		}
		if (at == trace->nr)
			break;
		if (trace->events[at].kind == CRASH_ADVANCE)
			e.run.store.trust = trace->events[at].trust;
		if (trace->events[at].kind != CRASH_FLUSH)
			continue;
		crash_trace_apply(trace, durable, at, &e.medium);
		durable = at + 1;
	}
	crash_medium_revert(&e.medium, mark);
	e.run.store.trust = trust;
}

/* ---- Workloads ---- */

static void explore_workload(const struct crash_base *base)
{
	unsigned nr = (unsigned)strlen(e.ops);
	const char *what;
	size_t mark;
	int err;

	crash_run_load(&e.run, base);
	mark = crash_medium_mark(&e.medium);
	e.level = 0;
	err = crash_run_workload(&e.run, e.ops, nr, &e.levels[0].trace, &what);
	if (err)
		fail("%s: %s", what, mls_strerror(err));
	crash_medium_revert(&e.medium, mark);
	e.run.store.trust = base->trust;
	e.workloads++;
	cut_all(nr ? e.run.op_begin[nr - 1] : 0);
}

/* Sequences that begin with the same two operations are one part's: they have crash states in common. */
static void explore_all(const struct crash_base *base, unsigned nr, uint64_t *number, bool mine)
{
	if (nr <= 2)
		mine = (*number)++ % e.nr_parts == e.part;
	if (mine)
		explore_workload(base);
	if (nr == (e.nr_ops ? e.nr_ops : base->nr_ops))
		return;
	for (const char *op = crash_ops; *op; op++) {
		e.ops[nr] = *op;
		e.ops[nr + 1] = 0;
		explore_all(base, nr + 1, number, mine);
	}
	e.ops[nr] = 0;
}

static const struct crash_base *base_named(const char *name, size_t bytes)
{
	for (unsigned i = 0; i < CRASH_NR_BASES; i++)
		if (strlen(crash_bases[i].name) == bytes && memcmp(crash_bases[i].name, name, bytes) == 0)
			return &crash_bases[i];
	fprintf(stderr, "no such base: %.*s\n", (int)bytes, name);
	exit(2);
}

/* BASE/OPS/CUT.CHOICE... */
static void replay(const char *text)
{
	const char *slash = strchr(text, '/');
	const struct crash_base *base = base_named(text, slash ? (size_t)(slash - text) : strlen(text));
	size_t bytes = slash ? strcspn(slash + 1, "/") : 0;

	if (!slash || bytes > CRASH_OPS_MAX)
		exit(2);
	memcpy(e.ops, slash + 1, bytes);
	for (text = slash + 1 + bytes; *text == '/' && e.path_levels <= DEPTH_MAX; e.path_levels++) {
		struct step *step = &e.path[e.path_levels];
		char *end;

		step->at = (uint32_t)strtoul(text + 1, &end, 10);
		step->choice = *end == '.' ? strtoull(end + 1, &end, 10) : 0;
		text = end;
	}
	e.verbose = true;
	explore_workload(base);
}

static void read_settings(void)
{
	const char *part = getenv("MLS_PART");
	char *end;

	e.nr_ops = test_env_u64("MLS_OPS", 0);
	e.images = test_env_u64("MLS_IMAGES", 4);
	e.images2 = test_env_u64("MLS_IMAGES2", 1);
	e.depth = test_env_u64("MLS_DEPTH", 1);
	e.seed = test_env_u64("MLS_SEED", 1);
	e.only_base = getenv("MLS_BASE");
	e.nr_parts = 1;
	if (part && *part) {
		e.part = strtoull(part, &end, 10);
		e.nr_parts = *end == '/' ? strtoull(end + 1, NULL, 10) : 1;
	}
	if (e.nr_ops > CRASH_OPS_MAX || e.depth >= DEPTH_MAX || e.nr_parts == 0) {
		fprintf(stderr, "MLS_OPS, MLS_DEPTH or MLS_PART: out of range\n");
		exit(2);
	}
}

static void init(void)
{
	read_settings();
	mallopt(M_MMAP_THRESHOLD, 1 << 30);	/* a disk's memory is freed and wanted again, all the time */
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mls_set_logger(keep_log, NULL);
	crash_bases_init();
	crash_medium_init(&e.medium, crash_backing_blocks());
	crash_run_init(&e.run, &e.medium);
	e.content = mls_blocks_alloc(CRASH_DISK_BLOCKS);
	MLS_INVARIANT(e.content != NULL);
	for (unsigned i = 0; i <= DEPTH_MAX; i++) {
		e.levels[i].decided = mls_blocks_alloc(CRASH_DISK_BLOCKS);
		MLS_INVARIANT(e.levels[i].decided != NULL);
	}
}

static void release(void)
{
	for (unsigned i = 0; i <= DEPTH_MAX; i++) {
		crash_trace_release(&e.levels[i].trace);
		mls_blocks_free(e.levels[i].decided);
	}
	mls_blocks_free(e.content);
	crash_run_release(&e.run);
	crash_medium_release(&e.medium);
	crash_bases_release();
	free(seen.keys);
}

/* The last line is what test-explore.sh adds up. */
static void tell(void)
{
	for (unsigned i = 0; i < CRASH_NR_BASES; i++)
		printf("base %s: sync %" PRIu64 ", %" PRIu64 " segments, %" PRIu64 " chunks, %" PRIu64 " of %u runs free\n",
		       crash_bases[i].name, crash_bases[i].trust.sync_id, crash_bases[i].nr_segments,
		       crash_bases[i].nr_chunks, crash_bases[i].nr_free_runs, CRASH_NR_RUNS);
	printf("workloads %" PRIu64 ", cuts %" PRIu64 ", cuts in recovery %" PRIu64 ", crash states %" PRIu64
	       ", of a recovery %" PRIu64 ", judged %" PRIu64 ", fsck clean %" PRIu64 "\n",
	       e.workloads, e.cuts, e.recovery_cuts, e.states, e.recovery_states, e.judged, e.fscks);
}

int main(void)
{
	const char *one_case = getenv("MLS_CASE");
	uint64_t number = 0;

	init();
	for (unsigned i = 0; i < CRASH_NR_BASES && !one_case; i++)
		if (!e.only_base || strcmp(e.only_base, crash_bases[i].name) == 0)
			explore_all(&crash_bases[i], 0, &number, true);
	if (one_case)
		replay(one_case);
	tell();
	release();
	return 0;
}
