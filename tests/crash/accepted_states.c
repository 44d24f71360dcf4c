/* SPDX-License-Identifier: MPL-2.0 */
/*
 * accepted_states.c - how many states can an adversary get accepted who copies BACKING at every single
 * write? One a sync.
 *
 * Goal     Guarantees 4 to 6: between two moves of the trusted register a copy opens with the state of
 *          the last sync, or with that of the one in flight, never with another; and once the register
 *          has moved on, no copy of before brings back what was given up.
 * Method   A disk lives: writes, discards, syncs, flushes of the memtable, compactions, reopenings, power
 *          cuts. After each block that is written, BACKING as it is then is opened with the register as
 *          it is then, and must be accepted. At the end all these copies are made again, one after the
 *          other, and each is offered to later values of the register: the next, the last, some between;
 *          and mixed with blocks of later copies.
 * Count    For each value of the register the states that were accepted by it. Their number over the
 *          whole trace must be the number of syncs that were tried (each has content of its own), and the
 *          empty disk.
 *
 *	MLS_SEED     default 1: the first trace's; the next one has the next seed
 *	MLS_TRACES   default 4
 *	MLS_SYNCS    of a trace; default 40
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rand.h"
#include "tests/lib/tamper_dev.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"

#define NR_LBAS 160u
#define CONTENT_BYTES (NR_LBAS * MLS_BLOCK_BYTES)
#define RUN_BLOCKS 16u
#define WAL_BLOCKS 64u
#define SECTOR_BYTES 512u
#define VALUES_MAX 512u

static const uint8_t key_file[32] = "the adversary hasn't got this...";

/* A value that the register held, and what it accepted. */
struct value {
	struct mls_trust trust;
	uint8_t *content;   /* of its sync */
	uint8_t *in_flight; /* of the sync that was tried while it stood; NULL: none */
	bool accepted, accepted_in_flight;
};

/* One block that was written (or, at a power cut, came to be what it is). */
struct step {
	uint64_t hba;
	uint32_t value; /* index of the register's value then */
	uint8_t *bytes, *old;
};

struct trace {
	struct mls_trusted_store store; /* first */
	uint64_t seed;
	struct test_rand rand, engine_rand;
	struct tamper_dev *dev, *replay;
	struct mls_disk *disk;
	uint8_t *now, *buf;
	struct value values[VALUES_MAX];
	unsigned nr_values;
	bool quiet; /* a copy is being tried: nothing is recorded */

	struct step *steps;
	size_t nr_steps, cap_steps;
	size_t nr_durable;	/* steps before it were flushed */
	size_t nr_format_steps; /* while it's formatted there's no disk to offer yet */
	uint64_t cut_in;	/* power goes at this many operations from now; 0: not soon */
	bool off;
	char what[120];
};

static struct {
	uint64_t copies, offers, mixed, accepted, refused, syncs, states, values, cuts, given_up, unreadable;
} total;

static struct test_last_log last_log;

_Noreturn static void fail(const struct trace *t, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void fail(const struct trace *t, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "FAILED at write %zu, register value %u (%s): ", t->nr_steps, t->nr_values - 1,
		t->what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr,
		"\n  last message: %s\nreplay: MLS_SEED=%" PRIu64 " MLS_TRACES=1 tests/crash/accepted_states\n",
		last_log.message, t->seed);
	exit(1);
}

#define WHAT(t, ...) snprintf((t)->what, sizeof(t)->what, __VA_ARGS__)

static void must(const struct trace *t, int err, const char *what)
{
	if (err)
		fail(t, "%s: %s", what, mls_strerror(err));
}

static uint8_t *content_copy(const uint8_t *content)
{
	uint8_t *copy = mls_blocks_alloc(NR_LBAS);

	MLS_INVARIANT(copy != NULL);
	memcpy(copy, content, CONTENT_BYTES);
	return copy;
}

static struct value *last_value(struct trace *t)
{
	return &t->values[t->nr_values - 1];
}

/* ---- Offering a copy to a value of the register ---- */

/* A register that the copy may move as it likes: nobody sees it. */
struct offer {
	struct mls_trusted_store store; /* first */
	struct mls_trust trust;
};

static int offer_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	*trust = ((struct offer *)store)->trust;
	return 0;
}

static int offer_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	((struct offer *)store)->trust = *trust;
	return 0;
}

static void offer_destroy(struct mls_trusted_store *store)
{
	(void)store;
}

static const struct mls_trusted_store_ops offer_ops = {
	.read = offer_read,
	.advance = offer_advance,
	.destroy = offer_destroy,
};

static int open_with(struct mls_disk **disk, struct tamper_dev *dev, struct mls_trusted_store *store,
		     bool read_only)
{
	struct mls_secret secret = {key_file, sizeof key_file, false};
	struct mls_open_opts opts = {.inline_work = true,
				     .strict_sync = true,
				     .no_discard = true,
				     .memtable_records = 64,
				     .cache_bytes = 32 * MLS_BLOCK_BYTES,
				     .read_only = read_only};

	return mls_disk_open(disk, &dev->base, store, &secret, &opts);
}

/* Which of the value's two states is there; blocks that can't be read are of either. whole: there may be none.
 */
static void judge(struct trace *t, struct mls_disk *disk, struct value *value, bool whole)
{
	bool is_content = true, is_in_flight = value->in_flight != NULL, error = false;

	for (uint64_t lba = 0; lba < NR_LBAS; lba++) {
		size_t at = lba * MLS_BLOCK_BYTES;
		int err = mls_disk_read(disk, at, t->buf, MLS_BLOCK_BYTES);

		if (err == MLS_EAUTH && !whole) {
			error = true;
			continue;
		}
		must(t, err, "reading an accepted copy");
		is_content = is_content && memcmp(t->buf, value->content + at, MLS_BLOCK_BYTES) == 0;
		is_in_flight = is_in_flight && memcmp(t->buf, value->in_flight + at, MLS_BLOCK_BYTES) == 0;
		if (!is_content && !is_in_flight)
			fail(t,
			     "accepted by value %u of the register, but LBA %" PRIu64
			     " is neither of its sync nor of the "
			     "one in flight",
			     (unsigned)(value - t->values), lba);
	}
	total.unreadable += error;
	if (error)
		return;
	value->accepted |= is_content;
	value->accepted_in_flight |= !is_content;
}

/* The caller takes back what an opening for writing changes. */
static void offer(struct trace *t, struct tamper_dev *dev, struct value *value, bool must_open, bool whole)
{
	bool read_only = !test_rand_chance(&t->rand, 1, 16);
	struct offer o = {.store = {&offer_ops}, .trust = value->trust};
	struct mls_disk *disk;
	int err;

	err = open_with(&disk, dev, &o.store, read_only);
	total.offers++;
	if (!err) {
		total.accepted++;
		judge(t, disk, value, whole);
		(void)mls_disk_close(disk);
	} else if (must_open || (err != MLS_ESTALE && err != MLS_EAUTH)) {
		fail(t, "a copy of just now doesn't open: %s", mls_strerror(err));
	} else {
		total.refused++;
	}
}

/* ---- The living disk's device and register ---- */

static void offer_now(struct trace *t)
{
	t->quiet = true;
	tamper_dev_begin(t->dev);
	offer(t, t->dev, last_value(t), true, true);
	tamper_dev_undo(t->dev);
	t->quiet = false;
	total.copies++;
}

static bool power_goes(struct trace *t)
{
	if (t->cut_in && --t->cut_in == 0)
		return t->off = true;
	return false;
}

static void add_step(struct trace *t, uint64_t hba, const uint8_t *bytes, const uint8_t *old)
{
	struct step *step;

	if (t->nr_steps == t->cap_steps) {
		t->cap_steps = t->cap_steps ? 2 * t->cap_steps : 4096;
		t->steps = realloc(t->steps, t->cap_steps * sizeof *t->steps);
		MLS_INVARIANT(t->steps != NULL);
	}
	step = &t->steps[t->nr_steps++];
	*step = (struct step){
		.hba = hba, .value = t->nr_values ? t->nr_values - 1 : 0, .bytes = mls_blocks_alloc(2)};
	MLS_INVARIANT(step->bytes != NULL);
	step->old = mls_block_at(step->bytes, 1);
	memcpy(step->bytes, bytes, MLS_BLOCK_BYTES);
	memcpy(step->old, old, MLS_BLOCK_BYTES);
}

static int written(void *arg, uint64_t hba, const uint8_t *old)
{
	struct trace *t = arg;

	if (t->quiet)
		return 0;
	if (t->off) {
		memcpy(tamper_dev_touch(t->dev, hba), old, MLS_BLOCK_BYTES);
		return MLS_EIO;
	}
	add_step(t, hba, tamper_dev_at(t->dev, hba), old);
	if (t->nr_values)
		offer_now(t);
	return power_goes(t) ? MLS_EIO : 0;
}

static int flushed(void *arg)
{
	struct trace *t = arg;

	if (t->quiet)
		return 0;
	if (t->off || power_goes(t))
		return MLS_EIO;
	t->nr_durable = t->nr_steps;
	return 0;
}

static int register_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	*trust = last_value((struct trace *)store)->trust;
	return 0;
}

/* Which state is its own is seen by opening; when a sync moves it, it must be that sync's. */
static int register_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	struct trace *t = (struct trace *)store;
	struct value *before, *value;
	bool keep = true;

	if (t->off)
		return MLS_EIO;
	if (power_goes(t))
		keep = test_rand_chance(&t->rand, 1, 2);
	if (!keep)
		return MLS_EIO;
	MLS_INVARIANT(t->nr_values < VALUES_MAX);
	before = t->nr_values ? last_value(t) : NULL;
	value = &t->values[t->nr_values++];
	*value = (struct value){.trust = *trust};
	value->content = content_copy(before ? before->content : t->now);
	if (before && before->in_flight) {
		value->in_flight = before->in_flight; /* until it's known which */
		offer_now(t);
		if (value->accepted && value->accepted_in_flight)
			fail(t, "one copy, two states");
		if (value->accepted_in_flight)
			memcpy(value->content, before->in_flight, CONTENT_BYTES);
		else
			total.given_up++;
		value->in_flight = NULL;
		value->accepted = true;
		value->accepted_in_flight = false;
	} else if (before) {
		offer_now(t);
	}
	return t->off ? MLS_EIO : 0;
}

static const struct mls_trusted_store_ops register_ops = {
	.read = register_read,
	.advance = register_advance,
	.destroy = offer_destroy,
};

/* ---- Its life ---- */

static void power_comes_back(struct trace *t)
{
	size_t nr = t->nr_steps;
	unsigned mode = (unsigned)test_rand_below(&t->rand, 4); /* all, none, most, half */
	uint8_t *block = mls_blocks_alloc(1);

	MLS_INVARIANT(block != NULL);
	WHAT(t, "after a power cut");
	for (size_t i = nr; i-- > t->nr_durable;) {
		bool lost = mode == 1 || (mode > 1 && test_rand_chance(&t->rand, 1, mode == 2 ? 8 : 2));
		uint8_t *there = tamper_dev_touch(t->dev, t->steps[i].hba);

		if (!lost)
			continue;
		memcpy(block, there, MLS_BLOCK_BYTES);
		for (uint32_t at = 0; at < MLS_BLOCK_BYTES; at += SECTOR_BYTES)
			if (test_rand_chance(&t->rand, 7, 8))
				memcpy(there + at, t->steps[i].old + at, SECTOR_BYTES);
		add_step(t, t->steps[i].hba, there, block);
	}
	mls_blocks_free(block);
	t->nr_durable = t->nr_steps;
	t->off = false;
	t->cut_in = 0;
	total.cuts++;
	offer_now(t);
}

static void open_disk(struct trace *t)
{
	if (test_rand_chance(&t->rand, 1, 6))
		t->cut_in = test_rand_between(&t->rand, 1, 12);
	while (open_with(&t->disk, t->dev, &t->store, false)) {
		if (!t->off)
			fail(t, "reopening failed with the power on");
		power_comes_back(t);
	}
	t->cut_in = 0;
	must(t, mls_disk_read(t->disk, 0, t->now, CONTENT_BYTES), "reading it all");
	if (memcmp(t->now, last_value(t)->content, CONTENT_BYTES) != 0)
		fail(t, "reopened, it isn't what the register stands for");
}

static void crash(struct trace *t)
{
	(void)mls_disk_close(t->disk);
	power_comes_back(t);
	open_disk(t);
}

static bool some_calls(struct trace *t)
{
	uint64_t nr = test_rand_between(&t->rand, 1, 24);

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t lba = test_rand_below(&t->rand, NR_LBAS), at = lba * MLS_BLOCK_BYTES;
		int err;

		if (i && test_rand_chance(&t->rand, 1, 12)) {
			memset(t->now + at, 0, MLS_BLOCK_BYTES);
			err = mls_disk_discard(t->disk, at, MLS_BLOCK_BYTES);
		} else {
			test_rand_fill(&t->rand, t->now + at, MLS_BLOCK_BYTES);
			err = mls_disk_write(t->disk, at, t->now + at, MLS_BLOCK_BYTES);
		}
		if (err && t->off)
			return false;
		must(t, err, "write");
	}
	return true;
}

static void sync_or_close(struct trace *t)
{
	bool close = test_rand_chance(&t->rand, 1, 8);
	int err;

	if (test_rand_chance(&t->rand, 1, 5))
		t->cut_in = test_rand_between(&t->rand, 1, 30);
	WHAT(t, "sync %" PRIu64, total.syncs);
	last_value(t)->in_flight = content_copy(t->now);
	total.syncs++;
	err = close ? mls_disk_close(t->disk) : mls_disk_sync(t->disk);
	if (err && t->off) {
		WHAT(t, "a sync that was cut off");
		if (!close)
			(void)mls_disk_close(t->disk);
		power_comes_back(t);
		open_disk(t);
		return;
	}
	must(t, err, close ? "close" : "sync");
	if (memcmp(last_value(t)->content, t->now, CONTENT_BYTES) != 0)
		fail(t, "the sync returned, but the register stands for another state");
	if (close) {
		t->cut_in = 0;
		t->off = false;
		open_disk(t);
	}
}

static void live(struct trace *t, uint64_t nr_syncs)
{
	open_disk(t);
	for (uint64_t i = 0; i < nr_syncs; i++) {
		WHAT(t, "writing, before sync %" PRIu64, i);
		if (!t->cut_in && test_rand_chance(&t->rand, 1, 10))
			t->cut_in = test_rand_between(&t->rand, 1, 60);
		if (!some_calls(t))
			crash(t);
		else
			sync_or_close(t);
	}
	(void)mls_disk_close(t->disk);
}

/* ---- All copies once more, and later values of the register ---- */

static void offer_later(struct trace *t, size_t nr_done)
{
	unsigned then = t->steps[nr_done - 1].value, last = t->nr_values - 1;
	unsigned later[] = {then + 1, last, then + 2,
			    then + 3 + (unsigned)test_rand_below(&t->rand, t->nr_values)};

	for (unsigned i = 0; i < sizeof later / sizeof later[0]; i++) {
		if (later[i] > last)
			continue;
		WHAT(t, "copy at write %zu, value %u of the register", nr_done, later[i]);
		tamper_dev_begin(t->replay);
		offer(t, t->replay, &t->values[later[i]], false, false);
		tamper_dev_undo(t->replay);
	}
}

/* This copy with some of the blocks that were written in the next while, under a value of then. */
static void offer_mixed(struct trace *t, size_t nr_done)
{
	size_t ahead = (size_t)test_rand_between(&t->rand, 1, 200);
	size_t end = nr_done + ahead < t->nr_steps ? nr_done + ahead : t->nr_steps;
	uint64_t in = test_rand_between(&t->rand, 1, 8);
	unsigned value = t->steps[end - 1].value;

	if (test_rand_chance(&t->rand, 1, 2))
		value = t->steps[nr_done - 1].value;
	tamper_dev_begin(t->replay);
	for (size_t i = nr_done; i < end; i++)
		if (test_rand_below(&t->rand, in) == 0)
			tamper_dev_put(t->replay, t->steps[i].hba, t->steps[i].bytes);
	WHAT(t, "copy at write %zu mixed with the next %zu writes, value %u of the register", nr_done, ahead,
	     value);
	offer(t, t->replay, &t->values[value], false, false);
	tamper_dev_undo(t->replay);
	total.mixed++;
}

static void offer_all_again(struct trace *t)
{
	for (size_t i = 0; i < t->nr_steps; i++) {
		tamper_dev_put(t->replay, t->steps[i].hba, t->steps[i].bytes);
		if (i + 1 >= t->nr_format_steps && i + 1 < t->nr_steps) {
			offer_later(t, i + 1);
			offer_mixed(t, i + 1);
		}
	}
}

/* ---- The count ---- */

static unsigned count_states(const struct trace *t)
{
	const uint8_t *states[2 * VALUES_MAX];
	unsigned nr = 0;

	for (unsigned v = 0; v < t->nr_values; v++) {
		const uint8_t *of[2] = {t->values[v].accepted ? t->values[v].content : NULL,
					t->values[v].accepted_in_flight ? t->values[v].in_flight : NULL};

		for (unsigned k = 0; k < 2; k++) {
			unsigned i = 0;

			while (of[k] && i < nr && memcmp(states[i], of[k], CONTENT_BYTES) != 0)
				i++;
			if (of[k] && i == nr)
				states[nr++] = of[k];
		}
	}
	return nr;
}

static void run(uint64_t seed, uint64_t nr_syncs)
{
	struct mls_secret secret = {key_file, sizeof key_file, false};
	struct mls_format_opts format = {
		.disk_bytes = CONTENT_BYTES, .run_blocks = RUN_BLOCKS, .wal_blocks = WAL_BLOCKS};
	uint64_t nr_blocks = mls_backing_bytes(CONTENT_BYTES) / MLS_BLOCK_BYTES + WAL_BLOCKS + 40 * RUN_BLOCKS;
	uint64_t syncs = total.syncs;
	struct trace t = {.store = {&register_ops}, .seed = seed};
	uint8_t uuid[MLS_UUID_BYTES];
	unsigned states;

	test_rand_seed(&t.rand, seed);
	test_rand_seed(&t.engine_rand, test_rand_mix(seed, 1));
	mls_rand_set_source(test_rand_source, &t.engine_rand);
	t.dev = tamper_dev_new(nr_blocks, nr_blocks);
	t.replay = tamper_dev_new(nr_blocks, nr_blocks);
	t.now = mls_blocks_zalloc(NR_LBAS);
	t.buf = mls_blocks_alloc(1);
	MLS_INVARIANT(t.now && t.buf);
	t.dev->arg = &t;
	t.dev->written = written;
	t.dev->flushed = flushed;
	must(&t, mls_uuid_new(uuid), "uuid");
	must(&t, mls_disk_format(&t.dev->base, &t.store, &secret, uuid, &format), "format");
	t.nr_format_steps = t.nr_steps;
	live(&t, nr_syncs);
	offer_all_again(&t);

	states = count_states(&t);
	syncs = total.syncs - syncs;
	total.states += states;
	total.values += t.nr_values;
	if (states > syncs + 1)
		fail(&t, "%u states were accepted, but there were %" PRIu64 " syncs", states, syncs);
	for (unsigned v = 0; v < t.nr_values; v++) {
		if (!t.values[v].accepted && v > 0)
			fail(&t, "value %u of the register: its own state was never accepted", v);
		mls_blocks_free(t.values[v].content);
		mls_blocks_free(t.values[v].in_flight);
	}
	for (size_t i = 0; i < t.nr_steps; i++)
		mls_blocks_free(t.steps[i].bytes);
	free(t.steps);
	mls_blocks_free(t.now);
	mls_blocks_free(t.buf);
	mls_block_dev_destroy(&t.dev->base);
	mls_block_dev_destroy(&t.replay->base);
}

int main(void)
{
	uint64_t seed = test_env_u64("MLS_SEED", 1), nr = test_env_u64("MLS_TRACES", 4);

	mls_set_logger(test_log_keep, &last_log);
	mallopt(M_MMAP_THRESHOLD, 256 << 20);
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	for (uint64_t i = 0; i < nr; i++)
		run(seed + i, test_env_u64("MLS_SYNCS", 40));
	printf("%" PRIu64 " traces, %" PRIu64 " power cuts; %" PRIu64 " copies, one at each write; %" PRIu64
	       " offers to the "
	       "register then and later, %" PRIu64 " mixtures: %" PRIu64 " accepted, %" PRIu64
	       " refused, %" PRIu64 " accepted with blocks that gave errors\n",
	       nr, total.cuts, total.copies, total.offers, total.mixed, total.accepted, total.refused,
	       total.unreadable);
	printf("%" PRIu64 " syncs, %" PRIu64 " of them given up after a cut; %" PRIu64
	       " values of the register; %" PRIu64 " states accepted: one a sync, and %" PRIu64
	       " empty disks\n",
	       total.syncs, total.given_up, total.values, total.states, nr);
	return 0;
}
