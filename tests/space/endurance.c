/* SPDX-License-Identifier: MPL-2.0 */
/*
 * endurance.c - random overwrites of a disk that is nearly full, many times its capacity.
 *
 *	endurance DIRECTORY [NAME=VALUE...]
 *
 *   mib=256         size of the disk; BACKING is backing=110 percent of it
 *   live=90         percent of the disk that hold data, all the time
 *   factor=3        the run ends after so many times the disk's size, or
 *   seconds=60      after so long
 *   pattern=uniform or zipf (theta 0.99)
 *   discards=0      of 1000 steps, so many discard 64 blocks and write them anew
 *   sync_ms=0       0: never
 *   p999_ms=100     the 99.9th percentile of a write's latency must be less; 0: don't look
 *   policy=early    or strict
 *   json=FILE       samples of the amplification over time, for plot.py
 *
 * It fails on any error (ENOSPC above all), on a block that isn't what was written last (every block is read
 * in the end, and once more after the next open), on memory that grows and on the latency. Then as many
 * random writes go to a plain file, for half the time: the ratio is printed, and is for people to judge.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_sanitizer.h"
#include "tests/lib/test_usage.h"

#define NR_SAMPLES 100u
#define NR_BUCKETS 512u		/* 8 to each power of two, in ns */
#define RSS_GROWTH_MAX_KIB (16u << 10)	/* from a quarter of the run on: by then cache and buffers have what they need */
#define DISCARD_BLOCKS 64u

struct opts {
	uint64_t mib, backing, live, factor, seconds, discards, sync_ms, p999_ms;
	bool zipf, strict;
	const char *json, *dir;
};

struct sample {
	double seconds, amplification;
	uint64_t written_blocks, free_runs, rss_kib;
};

struct run {
	struct opts o;
	struct mls_block_dev *dev;
	struct mls_disk *disk;
	struct test_rand r;
	uint64_t nr_live, nr_written, *version;
	double zeta, theta, alpha, eta;
	uint64_t latency[NR_BUCKETS], max_ns, nr_timed;
	struct sample samples[NR_SAMPLES + 1];
	unsigned nr_samples;
	double seconds;
	uint8_t *block;
};

static const char key[32] = "endurance: a key for tests only";

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "endurance: FAILED: %s: %s\n", what, why);
	exit(1);
}

static void must(int err, const char *what)
{
	if (err)
		fail(what, mls_strerror(err));
}

/* ---- Which block ---- */

static void zipf_init(struct run *run)
{
	run->theta = 0.99;
	for (uint64_t i = 1; i <= run->nr_live; i++)
		run->zeta += 1 / pow((double)i, run->theta);
	run->alpha = 1 / (1 - run->theta);
	run->eta = (1 - pow(2.0 / (double)run->nr_live, 1 - run->theta)) /
		   (1 - (1 + pow(0.5, run->theta)) / run->zeta);
}

/* Gray et al., "Quickly generating billion-record synthetic databases"; ranks are spread over the disk. */
static uint64_t pick(struct run *run)
{
	double u = (double)test_rand_below(&run->r, UINT64_C(1) << 40) / (double)(UINT64_C(1) << 40);
	uint64_t rank;

	if (!run->o.zipf)
		return test_rand_below(&run->r, run->nr_live);
	if (u * run->zeta < 1)
		rank = 0;
	else if (u * run->zeta < 1 + pow(0.5, run->theta))
		rank = 1;
	else
		rank = (uint64_t)((double)run->nr_live * pow(run->eta * u - run->eta + 1, run->alpha));
	return rank % run->nr_live * 7919 % run->nr_live;
}

/* ---- Writing and checking ---- */

static void content(uint8_t *block, uint64_t lba, uint64_t version)
{
	uint64_t words[2] = { lba * 0x9e3779b97f4a7c15 + version, version };

	for (size_t at = 0; at < MLS_BLOCK_BYTES; at += sizeof words)
		memcpy(block + at, words, sizeof words);
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned power = 63 - (unsigned)__builtin_clzll(ns | 16);

	return power * 8 + (unsigned)(ns >> (power - 3) & 7);
}

static void note_latency(struct run *run, double began)
{
	uint64_t ns = (uint64_t)((test_wall_seconds() - began) * 1e9);

	run->latency[bucket_of(ns)]++;
	run->nr_timed++;
	if (ns > run->max_ns)
		run->max_ns = ns;
}

static double percentile_ms(const struct run *run, double part)
{
	uint64_t left = (uint64_t)((double)run->nr_timed * part);
	unsigned b = 0;

	while (b + 1 < NR_BUCKETS && left >= run->latency[b])
		left -= run->latency[b++];
	return ldexp(1 + (b % 8 + 1) / 8.0, (int)(b / 8)) / 1e6;
}

static void write_block(struct run *run, uint64_t lba)
{
	double began;

	content(run->block, lba, ++run->nr_written);
	began = test_wall_seconds();
	must(mls_disk_write(run->disk, lba * MLS_BLOCK_BYTES, run->block, MLS_BLOCK_BYTES), "write");
	note_latency(run, began);
	run->version[lba] = run->nr_written;
}

static void check_all(struct run *run, const char *when)
{
	uint8_t expected[MLS_BLOCK_BYTES];

	for (uint64_t lba = 0; lba < run->nr_live; lba++) {
		content(expected, lba, run->version[lba]);
		must(mls_disk_read(run->disk, lba * MLS_BLOCK_BYTES, run->block, MLS_BLOCK_BYTES), "read");
		if (memcmp(expected, run->block, MLS_BLOCK_BYTES) != 0)
			fail(when, "a block isn't what was written last");
	}
}

static void discard_and_rewrite(struct run *run)
{
	uint64_t lba = test_rand_below(&run->r, run->nr_live - DISCARD_BLOCKS);

	must(mls_disk_discard(run->disk, lba * MLS_BLOCK_BYTES, DISCARD_BLOCKS * MLS_BLOCK_BYTES), "discard");
	for (uint64_t i = 0; i < DISCARD_BLOCKS; i++)
		write_block(run, lba + i);
}

static void take_sample(struct run *run, double seconds)
{
	static uint64_t last_dev, last_user;
	struct mls_disk_stat stat;
	uint64_t user;

	mls_disk_stat(run->disk, &stat);
	user = stat.written_bytes / MLS_BLOCK_BYTES;
	run->samples[run->nr_samples++] = (struct sample){
		.seconds = seconds,
		.amplification = user > last_user ? (double)(stat.dev_written_blocks - last_dev) / (double)(user - last_user) : 0,
		.written_blocks = user, .free_runs = stat.nr_free_runs, .rss_kib = test_resident_kib(),
	};
	last_dev = stat.dev_written_blocks;
	last_user = user;
}

static void overwrite(struct run *run)
{
	uint64_t target = run->o.mib * 256 * run->o.factor, first = run->nr_written, next_sample = 0;
	double began = test_wall_seconds(), synced = began, at = began;

	while (run->nr_written - first < target && at - began < (double)run->o.seconds) {
		if (run->nr_written - first >= next_sample && run->nr_samples < NR_SAMPLES) {
			take_sample(run, at - began);
			next_sample += target / NR_SAMPLES;
		}
		if (run->o.discards && test_rand_below(&run->r, 1000) < run->o.discards)
			discard_and_rewrite(run);
		else
			write_block(run, pick(run));
		at = test_wall_seconds();
		if (run->o.sync_ms && at - synced > (double)run->o.sync_ms / 1000) {
			must(mls_disk_sync(run->disk), "sync");
			synced = at;
		}
	}
	run->seconds = test_wall_seconds() - began;
	take_sample(run, run->seconds);
	run->nr_written -= first;
}

/* ---- The plain file ---- */

static double plain_rate(struct run *run, const char *path)
{
	uint64_t bytes = run->o.mib << 20, nr = 0;
	int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	double began, synced, at;

	if (fd < 0)
		fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		fail(path, "can't be made");
	for (uint64_t done = 0; done < bytes; done += MLS_BLOCK_BYTES)
		if (pwrite(fd, run->block, MLS_BLOCK_BYTES, (off_t)done) != MLS_BLOCK_BYTES)
			fail(path, "write");
	if (fsync(fd))
		fail(path, "fsync");
	for (at = synced = began = test_wall_seconds(); at - began < run->seconds / 2; nr++) {
		if (pwrite(fd, run->block, MLS_BLOCK_BYTES, (off_t)(pick(run) * MLS_BLOCK_BYTES)) != MLS_BLOCK_BYTES)
			fail(path, "write");
		at = test_wall_seconds();
		if (run->o.sync_ms && at - synced > (double)run->o.sync_ms / 1000) {
			if (fdatasync(fd))
				fail(path, "fdatasync");
			synced = at;
		}
	}
	close(fd);
	unlink(path);
	return (double)nr / (at - began);
}

/* ---- Telling ---- */

/* Live blocks at cleaning, for uniform overwrites and the oldest segment first: u = (x - 1) / ln x. */
static double theory(const struct run *run, double u)
{
	double low = 0, high = 1;

	for (int i = 0; i < 60; i++) {
		double x = (low + high) / 2;

		*((x - 1) / log(x) < u ? &low : &high) = x;
	}
	return run->o.zipf ? 0 : 1 / (1 - low);
}

static void write_json(const struct run *run, const struct mls_disk_stat *stat, double plain)
{
	FILE *out = run->o.json ? fopen(run->o.json, "w") : NULL;
	double u = (double)run->nr_live / ((double)(stat->nr_segments + stat->nr_free_runs) * stat->run_blocks);

	if (!out)
		return;
	fprintf(out, "{\"mib\": %" PRIu64 ", \"live_percent\": %" PRIu64 ", \"backing_percent\": %" PRIu64
		", \"pattern\": \"%s\",\n", run->o.mib, run->o.live, run->o.backing, run->o.zipf ? "zipf" : "uniform");
	fprintf(out, " \"utilization\": %.3f, \"theory_fifo\": %.3f, \"ratio_to_plain\": %.3f,\n", u, theory(run, u),
		(double)run->nr_written / run->seconds / plain);
	fprintf(out, " \"p50_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f, \"samples\": [\n", percentile_ms(run, 0.5),
		percentile_ms(run, 0.999), (double)run->max_ns / 1e6);
	for (unsigned i = 0; i < run->nr_samples; i++)
		fprintf(out, "  {\"seconds\": %.2f, \"written_blocks\": %" PRIu64 ", \"amplification\": %.3f, "
			"\"free_runs\": %" PRIu64 ", \"rss_kib\": %" PRIu64 "}%s\n", run->samples[i].seconds,
			run->samples[i].written_blocks, run->samples[i].amplification, run->samples[i].free_runs,
			run->samples[i].rss_kib, i + 1 < run->nr_samples ? "," : "");
	fprintf(out, "]}\n");
	fclose(out);
}

static void parse(struct opts *o, int argc, char **argv)
{
	struct {
		const char *name;
		uint64_t *value;
	} numbers[] = {
		{ "mib", &o->mib }, { "backing", &o->backing }, { "live", &o->live }, { "factor", &o->factor },
		{ "seconds", &o->seconds }, { "discards", &o->discards }, { "sync_ms", &o->sync_ms },
		{ "p999_ms", &o->p999_ms },
	};

	*o = (struct opts){ .mib = 256, .backing = 110, .live = 90, .factor = 3, .seconds = 60, .p999_ms = 100 };
	if (argc < 2)
		fail("usage", "endurance DIRECTORY [NAME=VALUE...]");
	o->dir = argv[1];
	for (int i = 2; i < argc; i++) {
		char *value = strchr(argv[i], '=');
		bool known = false;

		if (!value)
			fail(argv[i], "isn't NAME=VALUE");
		*value++ = 0;
		for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
			if (strcmp(argv[i], numbers[n].name) == 0) {
				*numbers[n].value = strtoull(value, NULL, 10);
				known = true;
			}
		if (strcmp(argv[i], "pattern") == 0)
			known = (o->zipf = strcmp(value, "zipf") == 0) || strcmp(value, "uniform") == 0;
		else if (strcmp(argv[i], "policy") == 0)
			known = (o->strict = strcmp(value, "strict") == 0) || strcmp(value, "early") == 0;
		else if (strcmp(argv[i], "json") == 0)
			known = (o->json = value) != NULL;
		if (!known)
			fail(argv[i], "isn't known, or its value isn't");
	}
}

static void open_disk(struct run *run)
{
	struct mls_open_opts opts = { .strict_sync = run->o.strict };
	struct mls_secret secret = { key, sizeof key, false };

	must(mls_disk_open(&run->disk, run->dev, NULL, &secret, &opts), "open");
}

static void make_disk(struct run *run, const char *path)
{
	struct mls_format_opts opts = { .disk_bytes = run->o.mib << 20 };
	struct mls_secret secret = { key, sizeof key, false };
	uint8_t uuid[MLS_UUID_BYTES];

	unlink(path);
	must(mls_uuid_new(uuid), "uuid");
	must(mls_block_dev_open(&run->dev, path, MLS_DEV_CREATE, (run->o.mib << 20) * run->o.backing / 100), "create");
	must(mls_disk_format(run->dev, NULL, &secret, uuid, &opts), "format");
	open_disk(run);
}

int main(int argc, char **argv)
{
	static struct run run;
	struct mls_disk_stat stat;
	char path[4096], plain[4096];
	uint64_t rss;
	double rate;

	parse(&run.o, argc, argv);
	snprintf(path, sizeof path, "%s/endurance.img", run.o.dir);
	snprintf(plain, sizeof plain, "%s/endurance.plain", run.o.dir);
	test_rand_seed(&run.r, 1);
	run.nr_live = run.o.mib * 256 * run.o.live / 100;
	run.version = calloc(run.nr_live, sizeof *run.version);
	run.block = aligned_alloc(MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
	if (!run.version || !run.block)
		fail("memory", "there is none");
	zipf_init(&run);
	make_disk(&run, path);
	for (uint64_t lba = 0; lba < run.nr_live; lba++)
		write_block(&run, lba);
	memset(run.latency, 0, sizeof run.latency);
	run.max_ns = run.nr_timed = 0;
	overwrite(&run);
	mls_disk_stat(run.disk, &stat);
	check_all(&run, "after the run");
	rss = run.samples[run.nr_samples / 4].rss_kib;
	if (!TEST_SANITIZER && test_resident_kib() > rss + RSS_GROWTH_MAX_KIB)
		fail("resident memory", "grows");
	must(mls_disk_close(run.disk), "close");
	open_disk(&run);
	check_all(&run, "after the next open");
	must(mls_disk_close(run.disk), "close");
	mls_block_dev_destroy(run.dev);
	unlink(path);
	rate = plain_rate(&run, plain);
	printf("endurance: %s, %.1f times the disk in %.1f s: %.0f writes/s, %.2f of the plain file; amplification %.2f; "
	       "ms: p50 %.3f, p99.9 %.2f, max %.1f; %" PRIu64 " early syncs; %" PRIu64 " MiB resident\n",
	       run.o.zipf ? "zipf" : "uniform", (double)run.nr_written / (double)(run.o.mib * 256), run.seconds,
	       (double)run.nr_written / run.seconds, (double)run.nr_written / run.seconds / rate,
	       (double)stat.dev_written_blocks * MLS_BLOCK_BYTES / (double)stat.written_bytes,
	       percentile_ms(&run, 0.5), percentile_ms(&run, 0.999), (double)run.max_ns / 1e6, stat.early_syncs,
	       run.samples[run.nr_samples - 1].rss_kib >> 10);
	write_json(&run, &stat, rate);
	if (run.o.p999_ms && percentile_ms(&run, 0.999) >= (double)run.o.p999_ms)
		fail("latency", "p99.9 is too long");
	return 0;
}
