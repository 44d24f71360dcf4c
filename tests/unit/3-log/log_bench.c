/* SPDX-License-Identifier: MPL-2.0 */
/* log_bench.c - tests of layer 3: a store on any device, with all that stands below it. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/endian.h"
#include "tests/unit/3-log/log_bench.h"

/* ---- The owner above: one number ---- */

static void value_reset(void *arg)
{
	((struct bench *)arg)->value = 0;
}

static int value_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct bench *bench = arg;
	struct mls_log_reader *reader;

	if (bytes != 16)
		return MLS_EFORMAT;
	bench->value = mls_get_le64(edit);
	if (mls_log_open(bench->store, mls_get_le64(edit + 8), &reader) == 0) {
		bench->log_seen = mls_get_le64(edit + 8);
		mls_log_close(reader);
	}
	return 0;
}

static void value_edit(uint8_t edit[16], uint64_t value, uint64_t id)
{
	mls_put_le64(edit, value);
	mls_put_le64(edit + 8, id);
}

static int value_snapshot(void *arg, struct mls_edit_group *group)
{
	struct bench *bench = arg;
	uint8_t edit[16];

	value_edit(edit, bench->value, 0);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, edit, sizeof edit);
}

/* ---- Open and close ---- */

static int load_newest(struct bench *bench)
{
	unsigned areas[MLS_NR_JOURNAL_AREAS], nr;
	struct mls_journal_info info;
	int err = mls_journal_candidates(bench->journal, areas, &nr);

	for (unsigned i = 0; i < nr && !err; i++) {
		mls_chunk_alloc_reset(bench->alloc);
		err = mls_journal_load(bench->journal, areas[i], &info);
		if (!err)
			return 0;
		if (err == MLS_ENOENT)
			err = 0;
	}
	return err;
}

struct bench *bench_load(struct mls_block_dev *dev, int *err)
{
	static const uint8_t master[MLS_KEY_BYTES] = "an example of a master key";
	static const uint8_t uuid[MLS_UUID_BYTES] = "disk";
	struct bench *bench = calloc(1, sizeof *bench);
	struct mls_edit_owner owner = { value_reset, value_apply, value_snapshot, bench };

	bench->dev = dev;
	ck_assert_int_eq(mls_keyring_new(&bench->keys, master, uuid), 0);
	ck_assert_int_eq(mls_chunk_alloc_new(&bench->alloc, BENCH_RUN_HBA, BENCH_RUN_BLOCKS, BENCH_NR_RUNS), 0);
	ck_assert_int_eq(mls_journal_new(&bench->journal, dev, bench->keys, BENCH_JOURNAL_HBA,
					 BENCH_AREA_BLOCKS), 0);
	ck_assert_int_eq(mls_tx_store_new(&bench->store, dev, bench->alloc, bench->keys, bench->journal), 0);
	mls_journal_set_owner(bench->journal, MLS_OWNER_SEGMENTS, &owner);
	*err = load_newest(bench);
	return bench;
}

struct bench *bench_open(struct mls_block_dev *dev, int *err)
{
	static uint8_t session[MLS_SESSION_BYTES];
	struct bench *bench = bench_load(dev, err);

	session[0]++;
	if (!*err)
		*err = mls_journal_start(bench->journal, session);
	if (*err) {
		bench_close(bench);
		return NULL;
	}
	return bench;
}

struct bench *bench_open_ok(struct mls_block_dev *dev)
{
	int err;
	struct bench *bench = bench_open(dev, &err);

	ck_assert_int_eq(err, 0);
	return bench;
}

void bench_close(struct bench *bench)
{
	mls_tx_store_free(bench->store);
	mls_journal_free(bench->journal);
	mls_chunk_alloc_free(bench->alloc);
	mls_keyring_free(bench->keys);
	free(bench);
}

/* ---- Logs ---- */

void log_pattern(uint8_t *blocks, uint64_t id, uint64_t pos, uint32_t nr_blocks)
{
	for (uint32_t i = 0; i < nr_blocks; i++) {
		memset(blocks + (size_t)i * MLS_BLOCK_BYTES, (int)(id * 31 + pos + i), MLS_BLOCK_BYTES);
		mls_put_le64(blocks + (size_t)i * MLS_BLOCK_BYTES, id);
		mls_put_le64(blocks + (size_t)i * MLS_BLOCK_BYTES + 8, pos + i);
	}
}

int bench_add_log(struct mls_tx *tx, uint8_t bucket, uint32_t nr_blocks, uint64_t *id)
{
	struct mls_log_writer *writer;
	uint8_t *blocks = mls_blocks_alloc(7);
	int err = mls_tx_log_create(tx, bucket, &writer, id);

	if (!err) {
		for (uint32_t pos = 0; pos < nr_blocks && !err; pos += 7) {
			uint32_t nr = nr_blocks - pos < 7 ? nr_blocks - pos : 7;

			log_pattern(blocks, *id, pos, nr);
			err = mls_log_append(writer, blocks, nr);
		}
		if (err)
			ck_assert_int_eq(mls_log_finish(writer), MLS_EABORTED);
		else
			err = mls_log_finish(writer);
	}
	mls_blocks_free(blocks);
	return err;
}

int bench_add_value(struct mls_tx *tx, uint64_t value, uint64_t id)
{
	uint8_t edit[16];

	value_edit(edit, value, id);
	return mls_tx_edit(tx, MLS_OWNER_SEGMENTS, edit, sizeof edit);
}

int bench_create(struct bench *bench, uint8_t bucket, uint32_t nr_blocks, uint64_t value, uint64_t *id)
{
	struct mls_tx *tx;
	int err;

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	err = bench_add_log(tx, bucket, nr_blocks, id);
	if (!err && value)
		err = bench_add_value(tx, value, *id);
	if (err) {
		ck_assert_int_eq(mls_tx_commit(tx), MLS_EABORTED);
		return err;
	}
	return mls_tx_commit(tx);
}

int bench_delete(struct bench *bench, uint64_t id)
{
	struct mls_tx *tx;
	int err;

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	err = mls_tx_log_delete(tx, id);
	if (err) {
		mls_tx_abort(tx);
		return err;
	}
	return mls_tx_commit(tx);
}

bool reader_shows(struct mls_log_reader *reader, uint64_t id, uint32_t nr_blocks)
{
	uint8_t *blocks = mls_blocks_alloc(nr_blocks), *want = mls_blocks_alloc(nr_blocks);
	bool shows = mls_log_nr_blocks(reader) == nr_blocks;

	log_pattern(want, id, 0, nr_blocks);
	if (shows)
		shows = mls_log_read(reader, 0, nr_blocks, blocks) == 0 &&
			memcmp(blocks, want, (size_t)nr_blocks * MLS_BLOCK_BYTES) == 0;
	mls_blocks_free(blocks);
	mls_blocks_free(want);
	return shows;
}

bool bench_has(struct bench *bench, uint64_t id, uint32_t nr_blocks)
{
	struct mls_log_reader *reader;
	bool shows;

	if (mls_log_open(bench->store, id, &reader) != 0)
		return false;
	shows = reader_shows(reader, id, nr_blocks);
	mls_log_close(reader);
	return shows;
}

static int count_log(void *arg, const struct mls_log_info *info)
{
	(void)info;
	++*(unsigned *)arg;
	return 0;
}

unsigned bench_nr_logs(struct bench *bench, int bucket)
{
	unsigned nr = 0;

	ck_assert_int_eq(mls_tx_store_list(bench->store, bucket, count_log, &nr), 0);
	return nr;
}

struct usage {
	const struct bench *bench;
	bool seen[BENCH_NR_RUNS];
	uint64_t nr_free;
};

static int use_runs(void *arg, const struct mls_log_info *info)
{
	struct usage *usage = arg;

	for (uint32_t i = 0; i < info->nr_chunks; i++) {
		uint64_t run;
		uint32_t slot;

		ck_assert(mls_chunk_alloc_run_of(usage->bench->alloc, info->chunk_hbas[i], &run, &slot));
		ck_assert(slot == 0 && !usage->seen[run]);
		ck_assert(mls_chunk_alloc_used(usage->bench->alloc, run));
		usage->seen[run] = true;
		usage->nr_free--;
	}
	return 0;
}

uint64_t bench_nr_free_by_list(struct bench *bench)
{
	struct usage usage = { .bench = bench, .nr_free = BENCH_NR_RUNS };

	ck_assert_int_eq(mls_tx_store_list(bench->store, -1, use_runs, &usage), 0);
	return usage.nr_free;
}
