/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_disk_threads.c - many threads on one disk, for TSan and for the eye.
 *
 * Each writer owns every nth block and knows what it wrote; readers look everywhere and accept only
 * whole versions; others write 512-byte parts of shared blocks, each its own part; one syncs. With
 * flushes, compactions and cleaning going on all the time.
 *
 * And: writers that wait for a buffer get their slots in the order in which they came; and what a sync is writing of a
 * segment isn't written once more when that is full.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "5-disk/disk.h"
#include "5-disk/location.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_WRITERS 3u
#define NR_BLOCKS 900u			/* written whole */
#define SHARED_LBA 1000u		/* eight writers of 512 bytes each share these blocks */
#define NR_SHARED 4u

static struct mls_disk *disk;
static atomic_bool stop;
static _Atomic uint64_t newest[NR_BLOCKS];

struct writer {
	pthread_t thread;
	unsigned index;
	uint64_t steps;
};

static void *write_whole(void *arg)
{
	struct writer *w = arg;
	struct test_rand r;

	test_rand_seed(&r, w->index);
	for (uint64_t i = 1; i <= w->steps; i++) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS / NR_WRITERS) * NR_WRITERS + w->index;

		ck_assert_int_eq(block_write(disk, lba, i), 0);
		atomic_store(&newest[lba], i);
		ck_assert(block_is(disk, lba, i));
	}
	return NULL;
}

static void *write_parts(void *arg)
{
	struct writer *w = arg;
	uint8_t part[512], back[512];

	for (uint64_t i = 1; i <= w->steps; i++) {
		uint64_t at = (SHARED_LBA + i % NR_SHARED) * MLS_BLOCK_BYTES + w->index * sizeof part;

		memset(part, (int)(i ^ w->index), sizeof part);
		ck_assert_int_eq(mls_disk_write(disk, at, part, sizeof part), 0);
		ck_assert_int_eq(mls_disk_read(disk, at, back, sizeof back), 0);
		ck_assert_mem_eq(part, back, sizeof part);
	}
	return NULL;
}

/* A block is one whole version. */
static void *read_any(void *arg)
{
	static _Thread_local _Alignas(MLS_BLOCK_BYTES) uint8_t buf[16 * MLS_BLOCK_BYTES];
	struct test_rand r;

	test_rand_seed(&r, (uintptr_t)arg);
	while (!atomic_load(&stop)) {
		uint64_t lba = test_rand_below(&r, NR_BLOCKS - 16), before[16];

		for (unsigned i = 0; i < 16; i++)
			before[i] = atomic_load(&newest[lba + i]);
		ck_assert_int_eq(mls_disk_read(disk, lba * MLS_BLOCK_BYTES, buf, sizeof buf), 0);
		for (unsigned i = 0; i < 16; i++)
			ck_assert_uint_ge(block_version(buf + i * MLS_BLOCK_BYTES, lba + i), before[i]);
	}
	return NULL;
}

static void *sync_often(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop))
		ck_assert_int_eq(mls_disk_sync(disk), 0);
	return NULL;
}

START_TEST(threads_see_whole_and_newest_versions)
{
	uint64_t steps = test_env_u64("MLS_STEPS", 4000);
	struct writer whole[NR_WRITERS], parts[8];
	pthread_t readers[2], syncer;
	struct disk_fixture f;

	fixture_init(&f, 8 * MIB, mls_backing_bytes(4 * MIB));
	f.opts.inline_work = false;
	f.opts.memtable_records = 256;
	disk = fixture_open(&f);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < NR_WRITERS; i++) {
		whole[i] = (struct writer){ .index = i, .steps = steps };
		ck_assert_int_eq(pthread_create(&whole[i].thread, NULL, write_whole, &whole[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		parts[i] = (struct writer){ .index = i, .steps = steps / 8 };
		ck_assert_int_eq(pthread_create(&parts[i].thread, NULL, write_parts, &parts[i]), 0);
	}
	for (uintptr_t i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&readers[i], NULL, read_any, (void *)(i + 100)), 0);
	ck_assert_int_eq(pthread_create(&syncer, NULL, sync_often, NULL), 0);

	for (unsigned i = 0; i < NR_WRITERS; i++)
		pthread_join(whole[i].thread, NULL);
	for (unsigned i = 0; i < 8; i++)
		pthread_join(parts[i].thread, NULL);
	atomic_store(&stop, true);
	pthread_join(readers[0], NULL);
	pthread_join(readers[1], NULL);
	pthread_join(syncer, NULL);
	ck_assert_int_eq(mls_disk_close(disk), 0);

	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < NR_BLOCKS; lba++)
		ck_assert(block_is(disk, lba, atomic_load(&newest[lba])));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* ---- In the order of coming ---- */

#define NR_WAITING 8u

#define GATE_BLOCKS 65536u

/* A device whose writes wait while it is shut. It counts how often each block was written. */
struct gate_dev {
	struct mls_block_dev base;
	struct mls_block_dev *inner;
	atomic_bool shut;
	atomic_bool fails;		/* the next one that finds it shut does, once it's open */
	atomic_uint nr_waiting;
	atomic_uint nr_writes[GATE_BLOCKS];
};

static void sleep_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static int gate_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return mls_block_dev_readv(((struct gate_dev *)dev)->inner, ios, nr);
}

static int gate_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct gate_dev *gate = (struct gate_dev *)dev;
	bool fails = atomic_load(&gate->shut) && atomic_exchange(&gate->fails, false);

	atomic_fetch_add(&gate->nr_waiting, 1);
	while (atomic_load(&gate->shut))
		sleep_ms(1);
	atomic_fetch_sub(&gate->nr_waiting, 1);
	for (unsigned i = 0; i < nr && fails; i++)
		ios[i].err = MLS_EIO;
	if (fails)
		return MLS_EIO;
	for (unsigned i = 0; i < nr; i++)
		for (uint64_t hba = ios[i].hba; hba < ios[i].hba + ios[i].nr_blocks; hba++)
			atomic_fetch_add(&gate->nr_writes[hba % GATE_BLOCKS], 1);
	return mls_block_dev_writev(gate->inner, ios, nr);
}

static int gate_flush(struct mls_block_dev *dev)
{
	return mls_block_dev_flush(((struct gate_dev *)dev)->inner);
}

static const struct mls_block_dev_ops gate_ops = { .read = gate_read, .write = gate_write, .flush = gate_flush };

static void gate_open_disk(struct gate_dev *gate, struct disk_fixture *f, uint64_t bytes)
{
	fixture_init(f, bytes, 0);
	f->opts.inline_work = false;
	memset(gate, 0, sizeof *gate);
	gate->base = (struct mls_block_dev){ &gate_ops, f->dev->nr_blocks };
	gate->inner = f->dev;
	ck_assert_uint_le(f->dev->nr_blocks, GATE_BLOCKS);
	ck_assert_int_eq(mls_disk_open(&disk, &gate->base, &f->store.base, &f->secret, &f->opts), 0);
}

static void gate_wait_for(struct gate_dev *gate, unsigned nr_waiting)
{
	while (atomic_load(&gate->nr_waiting) < nr_waiting)
		sleep_ms(1);
}

struct waiting {
	pthread_t thread;
	uint64_t lba, nr_blocks;
	_Atomic long tid;
	atomic_bool done;
};

static void *write_one_after_another(void *arg)
{
	struct waiting *w = arg;

	atomic_store(&w->tid, syscall(SYS_gettid));
	for (uint64_t i = 0; i < w->nr_blocks; i++)
		ck_assert_int_eq(block_write(disk, w->lba + i, 1), 0);
	atomic_store(&w->done, true);
	return NULL;
}

static bool is_asleep(const struct waiting *w)
{
	char path[64], text[256], *end;
	long tid = atomic_load(&w->tid);
	size_t bytes;
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/task/%ld/stat", tid);
	file = tid ? fopen(path, "r") : NULL;
	if (!file)
		return false;
	bytes = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[bytes] = '\0';
	end = strrchr(text, ')');
	return end && end[1] == ' ' && end[2] == 'S';
}

/* Start it, and see it asleep for 20 ms. */
static void start_and_see_waiting(struct waiting *w)
{
	ck_assert_int_eq(pthread_create(&w->thread, NULL, write_one_after_another, w), 0);
	for (unsigned asleep = 0; asleep < 20; sleep_ms(1)) {
		ck_assert(!atomic_load(&w->done));
		asleep = is_asleep(w) ? asleep + 1 : 0;
	}
}

static uint64_t place_of(uint64_t lba)
{
	struct mls_index_rec rec;

	ck_assert_int_eq(mls_lsm_get(disk->lsm, lba, 1, &rec), 0);
	return mls_loc_hba(rec.hba);
}

/* One takes all buffers and waits, others come one by one. Then the device goes on; their slots are neighbours. */
START_TEST(who_waits_is_served_in_the_order_of_coming)
{
	struct waiting first = { .lba = 0, .nr_blocks = 400 }, others[NR_WAITING] = { 0 };
	struct disk_fixture f;
	static struct gate_dev gate;

	gate_open_disk(&gate, &f, 8 * MIB);
	/* All buffers but for the first one's waiting block. */
	atomic_store(&gate.shut, true);
	start_and_see_waiting(&first);
	for (unsigned i = 0; i < NR_WAITING; i++) {
		others[i].lba = 1000 + i;
		others[i].nr_blocks = 1;
		start_and_see_waiting(&others[i]);
	}
	atomic_store(&gate.shut, false);
	pthread_join(first.thread, NULL);
	for (unsigned i = 0; i < NR_WAITING; i++)
		pthread_join(others[i].thread, NULL);
	for (unsigned i = 1; i < NR_WAITING; i++)
		ck_assert_uint_eq(place_of(1000 + i), place_of(1000) + i);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* ---- Once ---- */

static void *sync_once(void *err)
{
	*(int *)err = mls_disk_sync(disk);
	return NULL;
}

/* A sync writes the first half of a segment while a user fills the other half: both wait at the gate. Then it opens. Returns
 * how many blocks went into the segment, and what the sync answered. */
static uint64_t fill_beside_a_sync(struct gate_dev *gate, int *sync_err)
{
	uint64_t nr = mls_segment_slots(disk->sb.geo.run_blocks), half = nr / 2;
	pthread_t syncer;

	for (uint64_t lba = 0; lba < half; lba++)
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
	atomic_store(&gate->shut, true);
	ck_assert_int_eq(pthread_create(&syncer, NULL, sync_once, sync_err), 0);
	gate_wait_for(gate, 1);
	for (uint64_t lba = half; lba < nr; lba++)
		ck_assert_int_eq(block_write(disk, lba, 1), 0);
	gate_wait_for(gate, 2);
	atomic_store(&gate->shut, false);
	pthread_join(syncer, NULL);
	return nr;
}

START_TEST(what_a_sync_is_writing_is_written_once)
{
	struct disk_fixture f;
	static struct gate_dev gate;
	uint64_t nr;
	int err;

	gate_open_disk(&gate, &f, 64 * MIB);
	nr = fill_beside_a_sync(&gate, &err);
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert_uint_eq(atomic_load(&gate.nr_writes[place_of(lba) % GATE_BLOCKS]), 1);
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

/* The flusher has left out what the sync was writing, and that is lost: it has to be written all the same. */
START_TEST(what_a_sync_failed_to_write_is_written_by_others)
{
	struct disk_fixture f;
	static struct gate_dev gate;
	uint64_t nr;
	int err;

	mls_set_logger(test_log_quiet, NULL);
	gate_open_disk(&gate, &f, 64 * MIB);
	atomic_store(&gate.fails, true);
	nr = fill_beside_a_sync(&gate, &err);
	ck_assert_int_eq(err, MLS_EIO);
	ck_assert_int_eq(mls_disk_sync(disk), 0);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert_uint_ge(atomic_load(&gate.nr_writes[place_of(lba) % GATE_BLOCKS]), 1);
	ck_assert_int_eq(mls_disk_close(disk), 0);

	disk = fixture_open(&f);
	for (uint64_t lba = 0; lba < nr; lba++)
		ck_assert(block_is(disk, lba, 1));
	ck_assert_int_eq(mls_disk_close(disk), 0);
	fixture_release(&f);
}
END_TEST

static void loud(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	fprintf(stderr, "%d %s\n", level, message);
}

int main(void)
{
	Suite *suite = suite_create("disk threads");
	TCase *tc = tcase_create("disk threads");

	if (getenv("MLS_LOUD"))
		mls_set_logger(loud, NULL);
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, threads_see_whole_and_newest_versions);
	tcase_add_test(tc, who_waits_is_served_in_the_order_of_coming);
	tcase_add_test(tc, what_a_sync_is_writing_is_written_once);
	tcase_add_test(tc, what_a_sync_failed_to_write_is_written_by_others);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
