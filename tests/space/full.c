/* SPDX-License-Identifier: MPL-2.0 */
/*
 * full.c - a disk that is full stays full however often it is tried, and goes on by itself when space is freed.
 *
 *	full DIRECTORY [SECONDS]
 *
 * A thin disk is filled until ENOSPC. Then for SECONDS (10) six threads try: two write where nothing is yet, one writes
 * over what is there, one reads and compares, one syncs, one discards where nothing is. It fails when anything but ENOSPC
 * (or, for writes, success) is answered, when more than scraps are still taken, when a block isn't what was
 * written, when a call takes longer than LATENCY_MAX_S, and when resident memory or what is written to BACKING for a
 * refused write grows. In the end half of the data is discarded, and as much must find its place at once.
 *
 * Time is told by a thread that sleeps 10 ms and counts: a frozen group, or a machine that gives us no processor, stops
 * this clock as it stops the calls. Nor does it count how long the caller was ready to run but had no processor, which the
 * kernel tells: with chrt -i a thread may sit behind another's work on one core for seconds, while the others of
 * ours go on on the next. A call that waits while thousands of others end fails, whatever the clock says. The longest call's time on the wall, that part of it, and how many calls of others ended during
 * it, are printed.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_sanitizer.h"
#include "tests/lib/test_usage.h"

#define DISK_BLOCKS (128u << 20 >> 12)
#define HOLDS_BYTES (UINT64_C(64) << 20)	/* BACKING is for a disk of this size */
#define TICK_NS 10000000
#define LATENCY_MAX_S 10.0	/* on our clock: nothing is stuck; speed is for the figures that are printed */
#define OVERTAKEN_MAX 3000u	/* by so many calls of others; some ten are usual */
#define RSS_GROWTH_MAX_KIB (8u << 10)
#define SCRAPS_PART 50u		/* of the blocks: may still be found by cleaning */
#define SYNC_NS 20000000
#define DISCARD_US 500

enum job { WRITE_NEW_1, WRITE_NEW_2, OVERWRITE, READ, SYNC, DISCARD, NR_JOBS };

static const char *const job_names[NR_JOBS] = { "write", "write", "overwrite", "read", "sync", "discard" };

struct worker {
	enum job job;
	pthread_t thread;
	struct test_rand r;
	uint64_t nr, nr_no_space;
	double longest;
	double longest_wall, no_processor;	/* the longest by the wall, and of that ready to run */
	uint64_t overtaken;		/* calls of others that ended during it */
};

static const char key[32] = "full: a key for tests only     ";
static struct mls_disk *disk;
static uint64_t nr_filled;			/* [0, nr_filled) are taken */
static uint64_t version[DISK_BLOCKS];		/* of each block; changed by one thread each */
static pthread_mutex_t half_locks[2] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
static atomic_bool stop;
static atomic_uint_fast64_t nr_ticks, nr_calls;

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "full: FAILED: %s: %s\n", what, why);
	_exit(1);
}

static void must(int err, const char *what)
{
	if (err)
		fail(what, mls_strerror(err));
}

static void *tick(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		nanosleep(&(struct timespec){ .tv_nsec = TICK_NS }, NULL);
		atomic_fetch_add(&nr_ticks, 1);
	}
	return NULL;
}

static double now(void)
{
	return (double)atomic_load(&nr_ticks) * TICK_NS / 1e9;
}

/* So long this thread has been ready to run without a processor; 0: the kernel doesn't tell. */
static double waited(int schedstat)
{
	char text[128] = "";
	uint64_t ns = 0;

	if (schedstat < 0 || pread(schedstat, text, sizeof text - 1, 0) < 0 || sscanf(text, "%*u %" SCNu64, &ns) != 1)
		return 0;
	return (double)ns / 1e9;
}

static void content(uint8_t *block, uint64_t lba, uint64_t v)
{
	uint64_t words[2] = { lba * 0x9e3779b97f4a7c15 + v, v };

	memset(block, 0, MLS_BLOCK_BYTES);
	for (size_t at = 0; v && at < MLS_BLOCK_BYTES; at += sizeof words)
		memcpy(block + at, words, sizeof words);
}

static int write_block(uint64_t lba, uint64_t v)
{
	uint8_t block[MLS_BLOCK_BYTES];
	int err;

	content(block, lba, v);
	err = mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, sizeof block);
	if (!err)
		version[lba] = v;
	return err;
}

static int check_block(uint64_t lba)
{
	uint8_t expected[MLS_BLOCK_BYTES], block[MLS_BLOCK_BYTES];
	int err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, sizeof block);

	content(expected, lba, version[lba]);
	if (!err && memcmp(expected, block, sizeof block) != 0)
		fail("read", "a block isn't what was written last");
	return err;
}

static void check_all(void)
{
	for (uint64_t lba = 0; lba < DISK_BLOCKS; lba++)
		must(check_block(lba), "read");
}

/* ---- The retries ---- */

/* Reader and overwriter share the blocks that are there; the others have their own parts of the rest. */
static int try_once(struct worker *w)
{
	uint64_t third = (DISK_BLOCKS - nr_filled) / 3, lba;
	int err;

	if (w->job == OVERWRITE || w->job == READ) {
		lba = test_rand_below(&w->r, nr_filled);
		pthread_mutex_lock(&half_locks[lba % 2]);
		err = w->job == READ ? check_block(lba) : write_block(lba, version[lba] + 1);
		pthread_mutex_unlock(&half_locks[lba % 2]);
		return err;
	}
	if (w->job == SYNC) {
		nanosleep(&(struct timespec){ .tv_nsec = SYNC_NS }, NULL);
		return mls_disk_sync(disk);
	}
	lba = nr_filled + test_rand_below(&w->r, third);
	if (w->job == DISCARD) {
		usleep(DISCARD_US);
		return mls_disk_discard(disk, (lba + 2 * third) * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
	}
	return write_block(w->job == WRITE_NEW_1 ? lba : lba + third, 1);
}

static void note_time(struct worker *w, double took, double took_wall, double no_processor, uint64_t overtaken)
{
	w->longest = took - no_processor > w->longest ? took - no_processor : w->longest;
	if (overtaken > OVERTAKEN_MAX && no_processor < took_wall / 2)
		fail(job_names[w->job], "waited while others went on");
	if (took_wall <= w->longest_wall)
		return;
	w->longest_wall = took_wall;
	w->no_processor = no_processor;
	w->overtaken = overtaken;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	bool writes = w->job <= OVERWRITE;
	int schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);

	while (!atomic_load(&stop)) {
		double began = now(), began_wall = test_wall_seconds(), began_waited = waited(schedstat);
		uint64_t calls = atomic_load(&nr_calls);
		int err = try_once(w);

		calls = atomic_fetch_add(&nr_calls, 1) - calls;
		note_time(w, now() - began, test_wall_seconds() - began_wall, waited(schedstat) - began_waited, calls);
		w->nr++;
		w->nr_no_space += err == MLS_ENOSPC;
		if (err && !(writes && err == MLS_ENOSPC))
			fail(job_names[w->job], mls_strerror(err));
		if (w->longest > LATENCY_MAX_S)
			fail(job_names[w->job], "took too long");
	}
	if (schedstat >= 0)
		close(schedstat);
	return NULL;
}

struct growth {
	uint64_t rss_kib, dev_written;
};

static struct growth growth_now(void)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	return (struct growth){ test_resident_kib(), stat.dev_written_blocks };
}

static void hammer(double seconds)
{
	static struct worker workers[NR_JOBS];
	struct growth quarter, end;
	double began = test_wall_seconds();
	uint64_t nr_taken = 0;
	pthread_t clock;

	if (pthread_create(&clock, NULL, tick, NULL))
		fail("threads", "can't be made");
	for (unsigned i = 0; i < NR_JOBS; i++) {
		workers[i].job = (enum job)i;
		test_rand_seed(&workers[i].r, i + 1);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			fail("threads", "can't be made");
	}
	while (now() < seconds / 4)
		usleep(50000);
	quarter = growth_now();
	while (now() < seconds)
		usleep(50000);
	end = growth_now();
	atomic_store(&stop, true);
	pthread_join(clock, NULL);
	for (unsigned i = 0; i < NR_JOBS; i++) {
		pthread_join(workers[i].thread, NULL);
		printf("full: %-9s %9" PRIu64 " times, %9" PRIu64 " no space, longest %4.0f ms (wall %6.1f, of it ready to run "
		       "%6.1f; overtaken by %" PRIu64 ")\n", job_names[i], workers[i].nr, workers[i].nr_no_space,
		       workers[i].longest * 1e3, workers[i].longest_wall * 1e3, workers[i].no_processor * 1e3,
		       workers[i].overtaken);
		nr_taken += i < OVERWRITE ? workers[i].nr - workers[i].nr_no_space : 0;
	}
	printf("full: %.0f s (%.0f on the wall); %" PRIu64 " new blocks found a place; %" PRIu64
	       " KiB resident after a quarter, %" PRIu64 " in the end\n", seconds, test_wall_seconds() - began, nr_taken, quarter.rss_kib, end.rss_kib);
	if (workers[WRITE_NEW_1].nr_no_space == 0 || workers[WRITE_NEW_2].nr_no_space == 0)
		fail("writes", "the disk isn't full");
	if (nr_taken > nr_filled / SCRAPS_PART)
		fail("writes", "a full disk takes more and more");
	if (!TEST_SANITIZER && end.rss_kib > quarter.rss_kib + RSS_GROWTH_MAX_KIB)
		fail("resident memory", "grows");
	printf("full: %.2f blocks written to BACKING per try of a write\n",
	       (double)(end.dev_written - quarter.dev_written) /
	       (0.75 * (double)(workers[0].nr + workers[1].nr + workers[2].nr)));
}

/* ---- Before and after ---- */

static void open_disk(struct mls_block_dev *dev)
{
	struct mls_secret secret = { key, sizeof key, false };
	struct mls_open_opts opts = { 0 };

	must(mls_disk_open(&disk, dev, NULL, &secret, &opts), "open");
}

static void make_disk(struct mls_block_dev **dev, const char *path)
{
	struct mls_format_opts opts = { .disk_bytes = (uint64_t)DISK_BLOCKS * MLS_BLOCK_BYTES };
	struct mls_secret secret = { key, sizeof key, false };
	uint8_t uuid[MLS_UUID_BYTES];

	unlink(path);
	must(mls_uuid_new(uuid), "uuid");
	must(mls_block_dev_open(dev, path, MLS_DEV_CREATE, mls_backing_bytes(HOLDS_BYTES)), "create");
	must(mls_disk_format(*dev, NULL, &secret, uuid, &opts), "format");
	open_disk(*dev);
}

static void fill(void)
{
	int err = 0;

	while (nr_filled < DISK_BLOCKS && !err) {
		err = write_block(nr_filled, 1);
		nr_filled += !err;
	}
	if (err != MLS_ENOSPC)
		fail("fill", err ? mls_strerror(err) : "it never was full");
	must(mls_disk_sync(disk), "sync");
}

/* Half of what is there, and then as much again, less a tenth. */
static void free_and_go_on(void)
{
	uint64_t half = nr_filled / 2;

	must(mls_disk_discard(disk, 0, half * MLS_BLOCK_BYTES), "discard");
	memset(version, 0, half * sizeof *version);
	for (uint64_t lba = 0; lba < half - half / 10; lba++)
		must(write_block(lba, 7), "a write after the discard");
	must(mls_disk_sync(disk), "sync");
}

int main(int argc, char **argv)
{
	double seconds = argc > 2 ? atof(argv[2]) : 10;
	struct mls_block_dev *dev;
	char path[4096];

	if (argc < 2)
		fail("usage", "full DIRECTORY [SECONDS]");
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(path, sizeof path, "%s/full.img", argv[1]);
	make_disk(&dev, path);
	fill();
	hammer(seconds);
	check_all();
	free_and_go_on();
	check_all();
	must(mls_disk_close(disk), "close");
	open_disk(dev);
	check_all();
	must(mls_disk_close(disk), "close");
	mls_block_dev_destroy(dev);
	unlink(path);
	return 0;
}
