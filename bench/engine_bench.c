/* SPDX-License-Identifier: MPL-2.0 */
/*
 * engine_bench.c - the engine in this process, without FUSE, by the bench's jobs: what the design can do when
 * nothing carries its requests. As many threads as requests should be in flight, each making one after the other.
 *
 *	engine_bench --key-file=F --store=URI --rw=write|randwrite|read|randread|randrw --bs=BYTES [--depth=N]
 *		[--writers=N] [--sync-every=N] --size=BYTES --ms=N [--io-bytes=N] BACKING
 *
 * Prints a JSON object: rates, and percentiles of the time a call took, in microseconds (reads if there are
 * more of them, else writes). Writers that don't sync by themselves sync once at the end, within the time.
 * --writers are as in fio: so many times the depth, each with its own count to the next sync.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"

#define NR_SUB 64u		/* parts of each power of two: latencies to 1.6 % */
#define NR_SLOTS (40u * NR_SUB)

struct job {
	const char *key_file, *store, *backing;
	bool sequential, reads, writes;
	uint64_t block_bytes, size_bytes, io_bytes;
	unsigned depth, writers, sync_every, ms;
};

struct run {
	const struct job *job;
	struct mls_disk *disk;
	uint64_t end_ns;
	_Atomic uint64_t next;		/* sequential: the next block; with io_bytes: how many were begun */
	_Atomic int err;
};

struct worker {
	struct run *run;
	pthread_t thread;
	uint64_t random, nr[2], slots[2][NR_SLOTS];	/* 0: reads, 1: writes */
	void *data;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t draw(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

/* ---- Latencies ---- */

static unsigned slot_of(uint64_t ns)
{
	unsigned power = ns < NR_SUB ? 0 : 63u - (unsigned)__builtin_clzll(ns) - 5;	/* ns >> power: 32 ... 63 */
	unsigned slot = power == 0 ? (unsigned)ns : power * (NR_SUB / 2) + (unsigned)(ns >> power);

	return slot < NR_SLOTS ? slot : NR_SLOTS - 1;
}

static double slot_us(unsigned slot)
{
	unsigned power = slot < NR_SUB ? 0 : slot / (NR_SUB / 2) - 1;
	uint64_t ns = power == 0 ? slot : (uint64_t)(slot - power * (NR_SUB / 2)) << power;

	return (double)ns / 1000;
}

static double percentile_us(const struct worker *workers, unsigned nr_workers, int side, double part)
{
	uint64_t all = 0, seen = 0;

	for (unsigned i = 0; i < nr_workers; i++)
		all += workers[i].nr[side];
	for (unsigned slot = 0; slot < NR_SLOTS; slot++) {
		for (unsigned i = 0; i < nr_workers; i++)
			seen += workers[i].slots[side][slot];
		if ((double)seen >= part * (double)all)
			return slot_us(slot);
	}
	return slot_us(NR_SLOTS - 1);
}

/* ---- The work ---- */

static bool next_offset(struct worker *w, uint64_t *offset)
{
	const struct job *job = w->run->job;
	uint64_t nr_blocks = job->size_bytes / job->block_bytes, at = 0;

	if (job->sequential || job->io_bytes)
		at = atomic_fetch_add(&w->run->next, 1);
	if (job->io_bytes && at >= job->io_bytes / job->block_bytes)
		return false;
	*offset = (job->sequential ? at : draw(w)) % nr_blocks * job->block_bytes;
	return true;
}

static int one_call(struct worker *w, uint64_t offset, int *side)
{
	const struct job *job = w->run->job;

	*side = job->writes && (!job->reads || draw(w) % 100 >= 70);
	return *side ? mls_disk_write(w->run->disk, offset, w->data, job->block_bytes)
		     : mls_disk_read(w->run->disk, offset, w->data, job->block_bytes);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	const struct job *job = w->run->job;
	uint64_t began = now_ns(), ended, offset;
	unsigned unsynced = 0;
	int side, err = 0;

	while (!err && began < w->run->end_ns && next_offset(w, &offset)) {
		err = one_call(w, offset, &side);
		ended = now_ns();
		w->slots[side][slot_of(ended - began)]++;
		w->nr[side]++;
		if (!err && side && job->sync_every && ++unsynced == job->sync_every) {
			err = mls_disk_sync(w->run->disk);
			unsynced = 0;
			ended = now_ns();
		}
		began = ended;
	}
	if (err)
		atomic_store(&w->run->err, err);
	return NULL;
}

static struct worker *workers_new(struct run *run, unsigned nr)
{
	struct worker *workers = calloc(nr, sizeof *workers);

	for (unsigned i = 0; workers && i < nr; i++) {
		struct worker *w = &workers[i];

		w->run = run;
		w->random = now_ns() * 2654435761u + i * UINT64_C(0x9e3779b97f4a7c15) + 1;
		if (posix_memalign(&w->data, MLS_BLOCK_BYTES, run->job->block_bytes))
			exit(1);
		for (uint64_t at = 0; at < run->job->block_bytes; at += 8)
			memcpy((char *)w->data + at, &(uint64_t){draw(w)}, 8);
	}
	return workers;
}

static void print_result(const struct job *job, const struct worker *workers, unsigned nr, double seconds)
{
	uint64_t nr_calls[2] = {0, 0};
	struct rusage usage;
	int side;

	for (unsigned i = 0; i < nr; i++) {
		nr_calls[0] += workers[i].nr[0];
		nr_calls[1] += workers[i].nr[1];
	}
	side = nr_calls[1] > nr_calls[0];
	getrusage(RUSAGE_SELF, &usage);
	printf("{\"mib_s\": %.2f, \"ops_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
	       "\"p9999_us\": %.1f, \"peak_rss_mib\": %.1f}\n",
	       (double)(nr_calls[0] + nr_calls[1]) * (double)job->block_bytes / seconds / 1048576,
	       (double)(nr_calls[0] + nr_calls[1]) / seconds, percentile_us(workers, nr, side, 0.5),
	       percentile_us(workers, nr, side, 0.99), percentile_us(workers, nr, side, 0.999),
	       percentile_us(workers, nr, side, 0.9999), (double)usage.ru_maxrss / 1024);
}

/* What the disk does after an open (giving space back, an old compaction) isn't ours to be measured beside. */
static void wait_idle(void)
{
	struct timespec pause = {.tv_nsec = 60000000}, used;
	int64_t before = -1, now;

	for (unsigned i = 0; i < 50; i++) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
		now = (int64_t)used.tv_sec * 1000 + used.tv_nsec / 1000000;
		if (now == before)
			return;
		before = now;
		nanosleep(&pause, NULL);
	}
}

static int measure(struct mls_disk *disk, const struct job *job)
{
	unsigned nr = job->depth * job->writers, nr_started = 0;
	struct run run = {.job = job, .disk = disk};
	struct worker *workers = workers_new(&run, nr);
	uint64_t began = now_ns();

	if (!workers)
		return MLS_ENOMEM;
	run.end_ns = began + (uint64_t)job->ms * 1000000;
	while (nr_started < nr && !pthread_create(&workers[nr_started].thread, NULL, work, &workers[nr_started]))
		nr_started++;
	for (unsigned i = 0; i < nr_started; i++)
		pthread_join(workers[i].thread, NULL);
	if (!run.err && job->writes && !job->sync_every)
		run.err = mls_disk_sync(disk);
	if (nr_started < nr)
		run.err = MLS_ENOMEM;
	if (!run.err)
		print_result(job, workers, nr, (double)(now_ns() - began) / 1e9);
	for (unsigned i = 0; i < nr; i++)
		free(workers[i].data);
	free(workers);
	return run.err;
}

/* ---- Up and down ---- */

static int with_disk(const struct job *job)
{
	uint8_t key[64];
	struct mls_secret secret = {.data = key};
	struct mls_open_opts opts = {.read_only = false};
	struct mls_block_dev *dev = NULL;
	struct mls_trusted_store *store = NULL;
	struct mls_disk *disk = NULL;
	struct mls_probe probe;
	int fd = open(job->key_file, O_RDONLY | O_CLOEXEC), err, close_err;
	ssize_t bytes = fd < 0 ? -1 : read(fd, key, sizeof key);

	if (fd >= 0)
		close(fd);
	if (bytes <= 0) {
		fprintf(stderr, "engine_bench: %s: %s\n", job->key_file, strerror(errno));
		return MLS_EIO;
	}
	secret.bytes = (size_t)bytes;
	err = mls_block_dev_open(&dev, job->backing, 0, 0);
	if (!err)
		err = mls_probe(dev, &probe);
	if (!err)
		err = mls_trusted_store_open(&store, job->store, probe.uuid);
	if (!err)
		err = mls_disk_open(&disk, dev, store, &secret, &opts);
	if (!err) {
		wait_idle();
		err = measure(disk, job);
		close_err = mls_disk_close(disk);
		err = err ? err : close_err;
	}
	mls_trusted_store_destroy(store);
	mls_block_dev_destroy(dev);
	if (err)
		fprintf(stderr, "engine_bench: %s: %s\n", job->backing, mls_strerror(err));
	return err;
}

static bool set_pattern(struct job *job, const char *rw)
{
	job->sequential = strncmp(rw, "rand", 4) != 0;
	rw += job->sequential ? 0 : 4;
	job->reads = strcmp(rw, "read") == 0 || strcmp(rw, "rw") == 0;
	job->writes = strcmp(rw, "write") == 0 || strcmp(rw, "rw") == 0;
	return job->reads || job->writes;
}

static bool set_option(struct job *job, int option, const char *value)
{
	uint64_t number = strtoull(value, NULL, 10);

	switch (option) {
	case 'k': job->key_file = value; return true;
	case 't': job->store = value; return true;
	case 'r': return set_pattern(job, value);
	case 'b': job->block_bytes = number; return number > 0 && number % 8 == 0;
	case 'd': job->depth = (unsigned)number; return number > 0 && number <= 1024;
	case 'w': job->writers = (unsigned)number; return number > 0 && number <= 64;
	case 'y': job->sync_every = (unsigned)number; return true;
	case 's': job->size_bytes = number; return true;
	case 'm': job->ms = (unsigned)number; return number > 0;
	case 'i': job->io_bytes = number; return true;
	default: return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"key-file", required_argument, NULL, 'k'}, {"store", required_argument, NULL, 't'},
		{"rw", required_argument, NULL, 'r'}, {"bs", required_argument, NULL, 'b'},
		{"depth", required_argument, NULL, 'd'}, {"writers", required_argument, NULL, 'w'},
		{"sync-every", required_argument, NULL, 'y'}, {"size", required_argument, NULL, 's'},
		{"ms", required_argument, NULL, 'm'}, {"io-bytes", required_argument, NULL, 'i'}, {NULL, 0, NULL, 0}};
	struct job job = {.depth = 1, .writers = 1, .store = "none"};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!set_option(&job, option, optarg ? optarg : ""))
			goto usage;
	job.backing = argv[optind];
	if (!job.backing || !job.key_file || !(job.reads || job.writes) || !job.block_bytes || !job.ms ||
	    job.size_bytes < job.block_bytes)
		goto usage;
	return with_disk(&job) ? 1 : 0;
usage:
	fprintf(stderr, "usage: engine_bench --key-file=F --store=URI --rw=write|randwrite|read|randread|randrw --bs=BYTES\n"
			"\t[--depth=N] [--writers=N] [--sync-every=N] --size=BYTES --ms=N [--io-bytes=N] BACKING\n");
	return 2;
}
