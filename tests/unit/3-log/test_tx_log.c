/* SPDX-License-Identifier: MPL-2.0 */
/* test_tx_log.c - logs appear and go with their transaction, and each run has one owner. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "2-edit/edit_group.h"
#include "base/buf.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_log.h"
#include "tests/unit/3-log/log_bench.h"

static struct mls_block_dev *dev;

static void setup(void)
{
	ck_assert_int_eq(mls_block_dev_mem_new(&dev, BENCH_DEV_BLOCKS), 0);
}

static void teardown(void)
{
	mls_block_dev_destroy(dev);
}

static void assert_books_balance(struct bench *bench)
{
	uint64_t nr_free = mls_chunk_alloc_nr_free(bench->alloc);

	ck_assert_uint_eq(nr_free, bench_nr_free_by_list(bench));
	ck_assert_uint_eq(mls_tx_store_nr_chunks(bench->store), BENCH_NR_RUNS - nr_free);
}

START_TEST(logs_come_back)
{
	static const uint32_t sizes[] = { 1, 14, 15, 16, 17, 100, 255, 256 };
	uint64_t ids[8];
	struct bench *bench = bench_open_ok(dev);

	for (int i = 0; i < 8; i++) {
		ck_assert_int_eq(bench_create(bench, (uint8_t)(i % 3), sizes[i], 100 + i, &ids[i]), 0);
		ck_assert(i == 0 || ids[i] > ids[i - 1]);
		ck_assert_uint_eq(bench->value, 100 + i);
		ck_assert_uint_eq(bench->log_seen, ids[i]);	/* by the owner above, in its apply */
	}
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++)
			ck_assert(bench_has(bench, ids[i], sizes[i]));
		ck_assert_uint_eq(bench_nr_logs(bench, -1), 8);
		ck_assert_uint_eq(bench_nr_logs(bench, 0), 3);
		ck_assert_uint_eq(bench_nr_logs(bench, 2), 2);
		ck_assert_uint_eq(bench_nr_logs(bench, 9), 0);
		assert_books_balance(bench);
		bench_close(bench);
		bench = bench_open_ok(dev);
	}
	for (int i = 0; i < 8; i += 2)
		ck_assert_int_eq(bench_delete(bench, ids[i]), 0);
	assert_books_balance(bench);
	bench_close(bench);

	bench = bench_open_ok(dev);
	for (int i = 0; i < 8; i++)
		ck_assert(bench_has(bench, ids[i], sizes[i]) == (i % 2 == 1));
	assert_books_balance(bench);
	bench_close(bench);
}
END_TEST

static int stop_at(void *arg, const struct mls_log_info *info)
{
	uint64_t *last = arg;

	ck_assert_uint_gt(info->id, *last);
	ck_assert_uint_eq(info->bucket, 5);
	ck_assert_uint_eq(info->nr_data_blocks, 3);
	ck_assert_uint_eq(info->nr_chunks, 1);
	*last = info->id;
	return info->id >= 3 ? 77 : 0;
}

START_TEST(list_is_in_order_and_stops)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_tx *tx;
	uint64_t id, last = 0;

	/* Several in one transaction. */
	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(bench_add_log(tx, 5, 3, &id), 0);
	ck_assert_uint_eq(bench_nr_logs(bench, -1), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	ck_assert_int_eq(mls_tx_store_list(bench->store, 5, stop_at, &last), 77);
	ck_assert_uint_eq(last, 3);
	bench_close(bench);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_log_writer *writer;
	struct mls_log_reader *reader;
	uint64_t kept, id;
	struct mls_tx *tx;

	ck_assert_int_eq(bench_create(bench, 0, 20, 1, &kept), 0);
	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	ck_assert_int_eq(bench_add_log(tx, 0, 40, &id), 0);
	ck_assert_int_eq(mls_log_open(bench->store, id, &reader), MLS_ENOENT);	/* not committed */
	ck_assert_int_eq(mls_tx_log_delete(tx, id), MLS_ENOENT);
	ck_assert_int_eq(mls_tx_log_delete(tx, kept), 0);
	ck_assert_int_eq(mls_tx_log_delete(tx, kept), MLS_ENOENT);		/* it is doing so already */
	ck_assert_int_eq(mls_tx_edit(tx, MLS_OWNER_SEGMENTS, "0123456789abcdef", 16), 0);
	ck_assert_int_eq(mls_tx_log_create(tx, 0, &writer, &id), 0);		/* abort frees the writer */
	mls_tx_abort(tx);

	ck_assert(bench_has(bench, kept, 20));
	ck_assert_uint_eq(bench->value, 1);
	assert_books_balance(bench);
	ck_assert_int_eq(bench_delete(bench, kept), 0);				/* nobody is deleting it now */
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS);
	bench_close(bench);
}
END_TEST

START_TEST(empty_transaction_writes_nothing)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_tx *tx;

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	ck_assert_uint_eq(mls_journal_last_commit(bench->journal), 0);
	bench_close(bench);
}
END_TEST

START_TEST(misuse_of_writers)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_log_writer *writer;
	struct mls_tx *tx;
	uint64_t id;

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_create(tx, 0, &writer, &id), 0);
	ck_assert_int_eq(mls_tx_commit(tx), MLS_EINVAL);	/* unfinished */

	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	ck_assert_int_eq(mls_tx_log_create(tx, 0, &writer, &id), 0);
	ck_assert_int_eq(mls_log_finish(writer), MLS_EINVAL);	/* empty */
	ck_assert_int_eq(mls_tx_log_create(tx, 0, &writer, &id), MLS_EABORTED);
	ck_assert_int_eq(mls_tx_log_delete(tx, id), MLS_EABORTED);
	ck_assert_int_eq(mls_tx_edit(tx, MLS_OWNER_LSM, "x", 1), MLS_EABORTED);
	ck_assert_int_eq(mls_tx_commit(tx), MLS_EABORTED);
	ck_assert_uint_eq(mls_journal_last_commit(bench->journal), 0);
	assert_books_balance(bench);
	bench_close(bench);
}
END_TEST

START_TEST(ids_are_never_used_twice)
{
	uint64_t last = 0, id;

	for (int round = 0; round < 5; round++) {
		struct bench *bench = bench_open_ok(dev);

		ck_assert_int_eq(bench_create(bench, 0, 2, 0, &id), 0);
		ck_assert_uint_gt(id, last);
		last = id;
		ck_assert_int_eq(bench_delete(bench, id), 0);
		ck_assert_int_eq(bench_delete(bench, id), MLS_ENOENT);
		if (round % 2)		/* a snapshot that doesn't name the log */
			for (int i = 0; i < 100; i++) {
				ck_assert_int_eq(bench_create(bench, 0, 1, 0, &last), 0);
				ck_assert_int_eq(bench_delete(bench, last), 0);
			}
		bench_close(bench);
	}
}
END_TEST

/* Goal: ENOSPC with n runs left, for each n: the transaction is gone, the runs are back, what was
 * there is there, and with the space back the next one succeeds. */
START_TEST(no_space_leaks_nothing)
{
	struct bench *bench = bench_open_ok(dev);
	uint64_t kept, id, taken[BENCH_NR_RUNS];
	unsigned nr_taken = 0;

	ck_assert_int_eq(bench_create(bench, 0, 20, 0, &kept), 0);
	while (mls_chunk_alloc_take(bench->alloc, MLS_RUN_INDEX, &taken[nr_taken]) == 0)
		nr_taken++;
	for (unsigned nr_free = 0; nr_free < 20; nr_free++) {
		uint64_t commit = mls_journal_last_commit(bench->journal);
		/* 300 blocks and 3 nodes take 19 runs. */
		int err = bench_create(bench, 0, 300, 0, &id);

		ck_assert_int_eq(err, nr_free < 19 ? MLS_ENOSPC : 0);
		ck_assert_uint_eq(mls_journal_last_commit(bench->journal), commit + (err ? 0 : 1));
		ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), err ? nr_free : 0);
		ck_assert(bench_has(bench, kept, 20));
		mls_chunk_alloc_give(bench->alloc, taken[--nr_taken]);
	}
	ck_assert(bench_has(bench, id, 300));
	bench_close(bench);
}
END_TEST

START_TEST(delete_waits_for_the_last_reader)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_log_reader *a, *b, *c;
	uint64_t id;

	ck_assert_int_eq(bench_create(bench, 0, 40, 0, &id), 0);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS - 3);
	ck_assert_int_eq(mls_log_open(bench->store, id, &a), 0);
	ck_assert_int_eq(mls_log_open(bench->store, id, &b), 0);
	ck_assert_int_eq(bench_delete(bench, id), 0);
	ck_assert_int_eq(mls_log_open(bench->store, id, &c), MLS_ENOENT);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS - 3);
	ck_assert_uint_eq(mls_tx_store_nr_chunks(bench->store), 3);
	mls_log_close(a);
	ck_assert(reader_shows(b, id, 40));
	mls_log_close(b);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS);
	ck_assert_uint_eq(mls_tx_store_nr_chunks(bench->store), 0);
	mls_log_close(NULL);
	bench_close(bench);
}
END_TEST

START_TEST(one_transaction_deletes_a_log)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_tx *first, *second;
	uint64_t id;

	ck_assert_int_eq(bench_create(bench, 0, 5, 0, &id), 0);
	ck_assert_int_eq(mls_tx_begin(bench->store, &first), 0);
	ck_assert_int_eq(mls_tx_begin(bench->store, &second), 0);
	ck_assert_int_eq(mls_tx_log_delete(first, id), 0);
	ck_assert_int_eq(mls_tx_log_delete(second, id), MLS_ENOENT);
	mls_tx_abort(first);
	ck_assert_int_eq(mls_tx_log_delete(second, id), 0);
	ck_assert_int_eq(mls_tx_commit(second), 0);
	assert_books_balance(bench);
	bench_close(bench);
}
END_TEST

struct on_commit {
	struct bench *bench;
	uint64_t created, deleted, nr_free;
	bool ran;
};

static void check_on_commit(void *arg)
{
	struct on_commit *check = arg;
	struct mls_log_reader *reader;

	ck_assert(bench_has(check->bench, check->created, 20));
	ck_assert_int_eq(mls_log_open(check->bench->store, check->deleted, &reader), MLS_ENOENT);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(check->bench->alloc), check->nr_free);
	check->ran = true;
}

START_TEST(on_commit_runs_between_apply_and_give)
{
	struct bench *bench = bench_open_ok(dev);
	struct on_commit check = { .bench = bench };
	struct mls_tx *tx;

	ck_assert_int_eq(bench_create(bench, 0, 20, 0, &check.deleted), 0);
	ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
	ck_assert_int_eq(bench_add_log(tx, 0, 20, &check.created), 0);
	ck_assert_int_eq(mls_tx_log_delete(tx, check.deleted), 0);
	mls_tx_on_commit(tx, check_on_commit, &check);
	check.nr_free = BENCH_NR_RUNS - 4;
	ck_assert_int_eq(mls_tx_commit(tx), 0);
	ck_assert(check.ran);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS - 2);
	bench_close(bench);
}
END_TEST

START_TEST(recovery_drops_logs)
{
	struct bench *bench = bench_open_ok(dev);
	struct mls_edit_group *group;
	uint8_t session[MLS_SESSION_BYTES] = { 99 };
	uint64_t kept, dropped;
	int err;

	ck_assert_int_eq(bench_create(bench, 0, 20, 0, &kept), 0);
	ck_assert_int_eq(bench_create(bench, 0, 30, 0, &dropped), 0);
	bench_close(bench);

	bench = bench_load(dev, &err);
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	ck_assert_int_eq(mls_tx_store_drop_edit(bench->store, 1234, group), MLS_ENOENT);
	ck_assert_int_eq(mls_tx_store_drop_edit(bench->store, dropped, group), 0);
	ck_assert(bench_has(bench, dropped, 30));
	ck_assert_int_eq(mls_journal_apply_loaded(bench->journal, group), 0);
	ck_assert(!bench_has(bench, dropped, 30));
	ck_assert_int_eq(mls_journal_apply_loaded(bench->journal, group), MLS_EFORMAT);	/* gone already */
	mls_edit_group_free(group);
	assert_books_balance(bench);
	ck_assert_int_eq(mls_journal_start(bench->journal, session), 0);
	bench_close(bench);

	bench = bench_open_ok(dev);
	ck_assert(bench_has(bench, kept, 20));
	ck_assert_uint_eq(bench_nr_logs(bench, -1), 1);
	assert_books_balance(bench);
	bench_close(bench);
}
END_TEST

/* Goal: changed blocks of a log give EAUTH, never other bytes. */
START_TEST(tampered_log_is_refused)
{
	struct bench *bench = bench_open_ok(dev);
	uint8_t *block = mls_blocks_alloc(1), *out = mls_blocks_alloc(20);
	unsigned nr_refused = 0;
	uint64_t id;

	ck_assert_int_eq(bench_create(bench, 0, 20, 0, &id), 0);
	for (uint64_t i = 0; i < 2 * BENCH_RUN_BLOCKS; i++) {
		struct mls_log_reader *reader;
		int err;

		ck_assert_int_eq(mls_block_dev_read(dev, BENCH_RUN_HBA + i, 1, block), 0);
		block[i * 100] ^= 1;
		ck_assert_int_eq(mls_block_dev_write(dev, BENCH_RUN_HBA + i, 1, block), 0);
		ck_assert_int_eq(mls_log_open(bench->store, id, &reader), 0);
		err = mls_log_read(reader, 0, 20, out);
		ck_assert(err == MLS_EAUTH || (err == 0 && i >= 21));
		nr_refused += err == MLS_EAUTH;
		mls_log_close(reader);
		block[i * 100] ^= 1;
		ck_assert_int_eq(mls_block_dev_write(dev, BENCH_RUN_HBA + i, 1, block), 0);
	}
	ck_assert_uint_eq(nr_refused, 21);	/* data blocks and their node */
	ck_assert(bench_has(bench, id, 20));
	mls_blocks_free(block);
	mls_blocks_free(out);
	bench_close(bench);
}
END_TEST

/* ---- Forged edits: authentic, but they can't be ---- */

struct forged_log {
	struct mls_log_create_disk head;
	uint8_t runs[4][8];
};

static struct forged_log good_log(uint64_t id, uint64_t run)
{
	struct forged_log log = { .head = { .type = MLS_LOG_EDIT_CREATE } };

	mls_put_le32(log.head.nr_chunks, 2);
	mls_put_le64(log.head.id, id);
	mls_put_le64(log.head.nr_data_blocks, 20);
	for (int i = 0; i < 4; i++)
		mls_put_le64(log.runs[i], run + i);
	return log;
}

/* Apply good logs 5 (runs 0, 1) and 6 (runs 2, 3), then these bytes. */
static int apply_forged(const void *edit, size_t bytes, uint64_t *nr_free)
{
	struct forged_log five = good_log(5, 0), six = good_log(6, 2);
	struct mls_edit_group *group;
	struct bench *bench;
	int err;

	bench = bench_load(dev, &err);
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	ck_assert_int_eq(mls_edit_add(group, MLS_OWNER_LOGS, &five, sizeof five.head + 16), 0);
	ck_assert_int_eq(mls_edit_add(group, MLS_OWNER_LOGS, &six, sizeof six.head + 16), 0);
	ck_assert_int_eq(mls_edit_add(group, MLS_OWNER_LOGS, edit, bytes), 0);
	err = mls_journal_apply_loaded(bench->journal, group);
	*nr_free = mls_chunk_alloc_nr_free(bench->alloc);
	assert_books_balance(bench);
	mls_edit_group_free(group);
	bench_close(bench);
	return err;
}

static void refused(const void *edit, size_t bytes)
{
	uint64_t nr_free;

	ck_assert_int_eq(apply_forged(edit, bytes, &nr_free), MLS_EFORMAT);
	ck_assert_uint_eq(nr_free, BENCH_NR_RUNS - 4);		/* no run marked for what was refused */
}

START_TEST(forged_edits_are_refused)
{
	struct forged_log log = good_log(7, 10);
	size_t bytes = sizeof log.head + 16;
	uint8_t id_edit[16] = { MLS_LOG_EDIT_DELETE, 0, 0, 0, 0, 0, 0, 0, 5 };
	uint64_t nr_free;

	bench_close(bench_open_ok(dev));
	ck_assert_int_eq(apply_forged(&log, bytes, &nr_free), 0);
	ck_assert_int_eq(apply_forged(id_edit, 16, &nr_free), 0);
	ck_assert_uint_eq(nr_free, BENCH_NR_RUNS - 2);
	refused(id_edit, 15);
	id_edit[8] = 7;
	refused(id_edit, 16);			/* no such log */
	id_edit[8] = 5, id_edit[3] = 1;
	refused(id_edit, 16);
	id_edit[3] = 0, id_edit[0] = MLS_LOG_EDIT_NEXT_ID;
	refused(id_edit, 16);			/* an id that is used */
	memset(id_edit + 8, 0xff, 8);
	refused(id_edit, 16);
	id_edit[0] = 9;
	refused(id_edit, 16);

	refused(&log, bytes - 1);
	refused(&log, bytes + 8);
	refused(&log, 71);
	refused(&log, 1);
	log = good_log(7, 3);
	refused(&log, bytes);			/* run 3 is log 6's */
	log = good_log(7, 9);
	mls_put_le64(log.runs[1], 9);
	refused(&log, bytes);			/* twice its own */
	log = good_log(7, BENCH_NR_RUNS - 1);
	refused(&log, bytes);			/* outside */
	log = good_log(6, 10);
	refused(&log, bytes);			/* id used */
	log = good_log(0, 10);
	refused(&log, bytes);
	log = good_log(UINT64_MAX, 10);
	refused(&log, bytes);
	log = good_log(7, 10);
	mls_put_le64(log.head.nr_data_blocks, 0);
	refused(&log, bytes);
	mls_put_le64(log.head.nr_data_blocks, 15);
	refused(&log, bytes);			/* fits one chunk */
	mls_put_le64(log.head.nr_data_blocks, 32);
	refused(&log, bytes);			/* needs three */
	mls_put_le64(log.head.nr_data_blocks, UINT64_MAX);
	refused(&log, bytes);
	log = good_log(7, 10);
	log.head.reserved[1] = 1;
	refused(&log, bytes);
	log = good_log(7, 10);
	mls_put_le32(log.head.nr_chunks, 0);
	refused(&log, sizeof log.head);
	mls_put_le32(log.head.nr_chunks, UINT32_MAX);
	refused(&log, bytes);
}
END_TEST

/* ---- Threads ---- */

struct worker {
	struct bench *bench;
	unsigned seed;
};

/* Create, read, delete, abort; other threads' logs come and go meanwhile. */
static void *work(void *arg)
{
	struct worker *worker = arg;
	struct bench *bench = worker->bench;

	for (unsigned round = 0; round < 40; round++) {
		uint32_t nr_blocks = 1 + (round * 7 + worker->seed * 3) % 40;
		struct mls_log_reader *reader;
		struct mls_tx *tx;
		uint64_t id, other;

		ck_assert_int_eq(bench_create(bench, (uint8_t)worker->seed, nr_blocks, round + 1, &id), 0);
		ck_assert_int_eq(mls_log_open(bench->store, id, &reader), 0);
		ck_assert(reader_shows(reader, id, nr_blocks));
		bench_nr_logs(bench, -1);

		ck_assert_int_eq(mls_tx_begin(bench->store, &tx), 0);
		ck_assert_int_eq(bench_add_log(tx, 9, 3, &other), 0);
		if (round % 2)
			ck_assert_int_eq(mls_tx_log_delete(tx, id), 0);
		if (round % 3)
			mls_tx_abort(tx);
		else
			ck_assert_int_eq(mls_tx_commit(tx), 0);

		ck_assert(reader_shows(reader, id, nr_blocks));	/* deleted or not */
		mls_log_close(reader);
		if (round % 3 == 0)
			ck_assert_int_eq(bench_delete(bench, other), 0);
		if (!(round % 2 && round % 3 == 0))
			ck_assert_int_eq(bench_delete(bench, id), 0);
	}
	return NULL;
}

START_TEST(threads_change_logs_at_once)
{
	struct bench *bench = bench_open_ok(dev);
	struct worker workers[4];
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++) {
		workers[i] = (struct worker){ .bench = bench, .seed = i };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(bench_nr_logs(bench, -1), 0);
	ck_assert_uint_eq(mls_chunk_alloc_nr_free(bench->alloc), BENCH_NR_RUNS);
	bench_close(bench);
	bench = bench_open_ok(dev);
	ck_assert_uint_eq(bench_nr_logs(bench, -1), 0);
	bench_close(bench);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tx_log");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, logs_come_back);
	tcase_add_test(tc, list_is_in_order_and_stops);
	tcase_add_test(tc, abort_leaves_nothing);
	tcase_add_test(tc, empty_transaction_writes_nothing);
	tcase_add_test(tc, misuse_of_writers);
	tcase_add_test(tc, ids_are_never_used_twice);
	tcase_add_test(tc, no_space_leaks_nothing);
	tcase_add_test(tc, delete_waits_for_the_last_reader);
	tcase_add_test(tc, one_transaction_deletes_a_log);
	tcase_add_test(tc, on_commit_runs_between_apply_and_give);
	tcase_add_test(tc, recovery_drops_logs);
	tcase_add_test(tc, tampered_log_is_refused);
	tcase_add_test(tc, forged_edits_are_refused);
	tcase_add_test(tc, threads_change_logs_at_once);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
