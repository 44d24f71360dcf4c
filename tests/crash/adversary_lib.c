/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_lib.c - cases and looks; see adversary_lib.h.
 *
 * What a look takes for the truth. A disk has one, or two if a sync was in flight when it was last seen:
 * then tampering may make that sync incomplete, and the state before it counts. Never a mixture: all
 * blocks that can be read are of one of the two. After "going on" the same holds for the last sync and
 * what was written after it.
 */
#include "tests/crash/adversary_lib.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/rand.h"
#include "tests/lib/test_log.h"

#define GO_ON_CALLS 60u

static struct test_last_log last_log;
static struct test_rand engine_rand;

void adv_init(struct adv *a)
{
	a->buf = mls_blocks_alloc(ADV_LBAS_MAX);
	a->synced = mls_blocks_alloc(ADV_LBAS_MAX);
	a->now = mls_blocks_alloc(ADV_LBAS_MAX);
	MLS_INVARIANT(a->buf && a->synced && a->now);
	mls_set_logger(test_log_keep, &last_log);
	mls_rand_set_source(test_rand_source, &engine_rand);
	test_rand_seed(&engine_rand, a->seed);
}

/* ---- Cases ---- */

void adv_fail(const struct adv *a, const char *format, ...)
{
	va_list args;
	char what[200];

	snprintf(what, sizeof what, a->what ? a->what : "the disk's life", a->args[0], a->args[1], a->args[2]);
	fprintf(stderr, "FAILED: disk %s, %s: %s: ", a->d ? a->d->name : "?", a->class ? a->class : "life",
		what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n  last message: %s\nreplay: MLS_SEED=%" PRIu64, last_log.message, a->seed);
	if (a->d)
		fprintf(stderr, " MLS_DISK=%s", a->d->name);
	if (a->class)
		fprintf(stderr, " MLS_CLASS=%s MLS_CASE=%" PRIu64, a->class, a->case_nr - 1);
	fprintf(stderr, " tests/crash/adversary\n");
	exit(1);
}

void adv_must(const struct adv *a, int err, const char *what)
{
	if (err)
		adv_fail(a, "%s: %s", what, mls_strerror(err));
}

static bool is_due(const struct adv *a, uint64_t nr, uint64_t draw, uint64_t share)
{
	if (a->only_case != ADV_EVERY_CASE)
		return nr == a->only_case;
	return nr % a->nr_jobs == a->job && (a->all || draw % (share * a->thin) == 0);
}

bool adv_case(struct adv *a, uint64_t share, const char *what, uint64_t x, uint64_t y, uint64_t z)
{
	uint64_t nr = a->case_nr++, draw = test_rand_mix(a->d->seed ^ (uintptr_t)a->class[0] << 32, nr);

	if (!is_due(a, nr, draw >> 8, share))
		return false;
	a->what = what;
	a->args[0] = x;
	a->args[1] = y;
	a->args[2] = z;
	test_rand_seed(&a->rand, draw);
	test_rand_seed(&engine_rand, draw + 1);
	a->count->tried++;
	return true;
}

/* ---- Blocks ---- */

bool adv_is_used(const struct adv_disk *d, uint64_t hba)
{
	return !tamper_dev_is_zero(d->dev, hba);
}

uint64_t adv_any_used(struct adv *a)
{
	uint64_t hba;

	do
		hba = test_rand_below(&a->rand, a->d->dev->base.nr_blocks);
	while (!adv_is_used(a->d, hba));
	return hba;
}

const uint8_t *adv_old_block(const struct adv_moment *moment, uint64_t hba)
{
	static const uint8_t zero[MLS_BLOCK_BYTES];

	return hba < moment->image.nr_blocks ? moment->image.bytes + (size_t)hba * MLS_BLOCK_BYTES : zero;
}

const struct adv_moment *adv_any_moment(struct adv *a)
{
	return &a->d->moments[test_rand_below(&a->rand, a->d->nr_moments - 1)];
}

void adv_put_back(struct adv_disk *d, const struct adv_moment *moment, struct adv_range range)
{
	for (uint64_t hba = range.hba; hba < range.hba + range.nr_blocks; hba++)
		tamper_dev_put(d->dev, hba, adv_old_block(moment, hba));
}

struct adv_range adv_run(const struct adv_disk *d, uint64_t run)
{
	return (struct adv_range){d->parts[ADV_PART_RUNS].hba + run * d->run_blocks, d->run_blocks};
}

/* ---- A look ---- */

/* Which of the two candidates what was read so far can be. */
struct verdict {
	const uint8_t *candidate[2];
	bool possible[2], error;
};

static void judge(struct adv *a, struct verdict *v, uint64_t lba, uint64_t nr, const uint8_t *read)
{
	size_t at = (size_t)lba * MLS_BLOCK_BYTES;

	for (unsigned i = 0; i < 2; i++)
		if (v->possible[i])
			v->possible[i] = memcmp(read, v->candidate[i] + at, (size_t)nr * MLS_BLOCK_BYTES) == 0;
	if (!v->possible[0] && !v->possible[1])
		adv_fail(a,
			 "LBA %" PRIu64 " (or one of the %" PRIu64
			 " from it on) reads as something else, without an "
			 "error",
			 lba, nr);
}

static void read_blocks(struct adv *a, struct mls_disk *disk, struct verdict *v, uint64_t lba, uint64_t nr)
{
	int err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, a->buf, (size_t)nr * MLS_BLOCK_BYTES);

	if (!err) {
		judge(a, v, lba, nr, a->buf);
	} else if (err != MLS_EAUTH && !(err == MLS_EIO || err == MLS_EINVAL)) {
		adv_fail(a, "reading LBA %" PRIu64 ": %s", lba, mls_strerror(err));
	} else if ((err == MLS_EIO || err == MLS_EINVAL) &&
		   a->d->dev->base.nr_blocks >= a->d->dev->nr_blocks_then) {
		adv_fail(a, "reading LBA %" PRIu64 ", whole device: %s", lba, mls_strerror(err));
	} else if (nr > 1) {
		for (uint64_t i = 0; i < nr; i++)
			read_blocks(a, disk, v, lba + i, 1);
	} else {
		v->error = true;
	}
}

bool adv_read_all(struct adv *a, struct mls_disk *disk, const uint8_t *one, const uint8_t *other)
{
	struct verdict v = {.candidate = {one, other}, .possible = {true, other != NULL}};

	for (uint64_t lba = 0; lba < a->d->nr_lbas; lba += 256)
		read_blocks(a, disk, &v, lba, mls_min_u64(256, a->d->nr_lbas - lba));
	return !v.error;
}

static void copy_blocks(uint8_t *to, const uint8_t *from, uint64_t nr)
{
	memcpy(to, from, (size_t)nr * MLS_BLOCK_BYTES);
}

/* The disk lives on, on what was tampered with; then it's opened again: the last sync, or what came after. */
static void go_on(struct adv *a, struct mls_disk *disk, struct test_store *store)
{
	uint64_t nr = a->d->nr_lbas;
	bool whole_read = true;
	int err;

	/* What is there now, if there are two candidates, or errors: only what was read is known. */
	for (uint64_t lba = 0; lba < nr; lba++) {
		uint8_t *block = mls_block_at(a->now, lba);

		err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, MLS_BLOCK_BYTES);
		if (err) {
			whole_read = false;
			memcpy(block, mls_block_at(a->d->truth, lba), MLS_BLOCK_BYTES);
		}
	}
	if (!whole_read && a->d->given_up) {
		(void)mls_disk_close(disk);
		return;
	}
	copy_blocks(a->synced, a->now, nr);
	err = adv_churn(&a->rand, disk, nr, GO_ON_CALLS, a->now, a->synced);
	if (!err && mls_disk_close(disk) == 0)
		copy_blocks(a->synced, a->now, nr);
	else if (err)
		(void)mls_disk_close(disk);
	err = adv_open(a->d, store, true, 0, &disk);
	if (err == MLS_EAUTH || err == MLS_ESTALE)
		return;
	adv_must(a, err, "opening after going on");
	(void)adv_read_all(a, disk, a->synced, a->now);
	(void)mls_disk_close(disk);
}

static void look_into(struct adv *a, struct mls_disk *disk, struct test_store *store, enum adv_mode mode)
{
	if (adv_read_all(a, disk, a->d->truth, a->d->given_up))
		a->count->harmless++;
	else
		a->count->errors++;
	if (mode == ADV_GO_ON)
		go_on(a, disk, store);
	else
		(void)mls_disk_close(disk);
}

static enum adv_mode choose_mode(struct adv *a, enum adv_mode mode)
{
	uint64_t draw = test_rand_below(&a->rand, 64);

	if (mode != ADV_ANY_MODE)
		return mode;
	return draw == 0 ? ADV_GO_ON : draw < 8 ? ADV_WRITING : ADV_READ_ONLY;
}

void adv_look(struct adv *a, unsigned may, enum adv_mode mode)
{
	struct test_store store = a->d->store;
	uint64_t nr_writes = a->d->dev->nr_writes;
	struct mls_disk *disk;
	int err;

	mode = choose_mode(a, mode);
	err = adv_open(a->d, &store, mode == ADV_READ_ONLY, 64 * MLS_BLOCK_BYTES, &disk);
	if (!err) {
		look_into(a, disk, &store, mode);
	} else if (may & ADV_MAY(err)) {
		a->count->refused++;
		if (memcmp(&store, &a->d->store, sizeof store) != 0)
			adv_fail(a, "refused with \"%s\", but the trusted store was moved", mls_strerror(err));
		if (a->d->dev->nr_writes != nr_writes)
			adv_fail(a, "refused with \"%s\", but something was written", mls_strerror(err));
	} else {
		adv_fail(a, "open: %s, which isn't the answer to this", mls_strerror(err));
	}
	tamper_dev_undo(a->d->dev);
}
