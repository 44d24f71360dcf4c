/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_disks.c - the disks that are attacked: how each comes into its state, and a map of it.
 *
 *   fresh       formatted, opened once
 *   wal         all records are in the WAL
 *   tables      SSTables in level 0
 *   levels      SSTables in several levels
 *   cleaned     little space: segments were cleaned and used again
 *   discarded   half of it was discarded
 *   grown       larger than at format, key slots changed
 *   crashed     the last sync is on BACKING, but its caller never learned: the register is one behind
 *
 * Each life checks that it did come into its state. Memtables of 64 records and runs of 16 blocks make
 * all of it happen with some hundred writes. Content is told apart everywhere: no block is written twice
 * with the same bytes.
 */
#include "tests/crash/adversary_lib.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"
#include "check/inspect.h"

#define RUN_BLOCKS 16u
#define WAL_BLOCKS 64u
#define MEMTABLE_RECORDS 64u
#define TABLE_RUNS 48u /* tiny memtables make many small tables, each of which takes a run at least */

static const uint8_t key_file[32] = "the adversary hasn't got this...",
		     second_key[32] = "nor that one, which comes later.";
static const struct mls_secret secret = {key_file, sizeof key_file, false};

/* ---- Living ---- */

/* A disk while it is made. */
struct life {
	struct adv *a;
	struct adv_disk *d;
	struct mls_disk *disk;
	struct test_rand rand;
	uint8_t *now, *synced;
};

int adv_open(struct adv_disk *d, struct test_store *store, bool read_only, uint64_t cache_bytes,
	     struct mls_disk **disk)
{
	struct mls_open_opts opts = {.inline_work = true,
				     .strict_sync = !d->early_syncs,
				     .no_discard = true,
				     .memtable_records = MEMTABLE_RECORDS,
				     .read_only = read_only,
				     .cache_bytes = cache_bytes};

	return mls_disk_open(disk, &d->dev->base, &store->base, &secret, &opts);
}

/* After a failed call: does the disk have the block's old or new bytes? MLS_EABORTED: it can't tell. */
static int ask(struct mls_disk *disk, uint64_t lba, uint64_t nr, uint8_t *now)
{
	for (uint64_t i = lba; i < lba + nr; i++)
		if (mls_disk_read(disk, i * MLS_BLOCK_BYTES, mls_block_at(now, i), MLS_BLOCK_BYTES))
			return MLS_EABORTED;
	return 0;
}

static int churn_write(struct test_rand *rand, struct mls_disk *disk, uint64_t lba, uint8_t *now)
{
	uint8_t *block = mls_block_at(now, lba);
	int err, asked;

	test_rand_fill(rand, block, MLS_BLOCK_BYTES);
	err = mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, MLS_BLOCK_BYTES);
	asked = err ? ask(disk, lba, 1, now) : 0;
	return asked ? asked : err;
}

static int churn_discard(struct mls_disk *disk, uint64_t lba, uint64_t nr, uint8_t *now)
{
	int err = mls_disk_discard(disk, lba * MLS_BLOCK_BYTES, nr * MLS_BLOCK_BYTES), asked = 0;

	if (err)
		asked = ask(disk, lba, nr, now);
	else
		memset(mls_block_at(now, lba), 0, (size_t)nr * MLS_BLOCK_BYTES);
	return asked ? asked : err;
}

static uint64_t sync_id_of(struct mls_disk *disk)
{
	struct mls_disk_stat stat;

	mls_disk_stat(disk, &stat);
	return stat.sync_id;
}

/* An early sync fell into the last call: another one says for certain what it has. */
static int settle(struct mls_disk *disk, uint64_t nr_lbas, const uint8_t *now, uint8_t *synced)
{
	if (mls_disk_sync(disk))
		return MLS_EABORTED;
	if (synced)
		memcpy(synced, now, (size_t)nr_lbas * MLS_BLOCK_BYTES);
	return 0;
}

int adv_churn(struct test_rand *rand, struct mls_disk *disk, uint64_t nr_lbas, unsigned nr_calls, uint8_t *now,
	      uint8_t *synced)
{
	int err = 0;

	for (unsigned call = 0; call < nr_calls && !err; call++) {
		uint64_t sync_id = sync_id_of(disk);
		uint64_t lba = test_rand_below(rand, nr_lbas);
		uint64_t nr = mls_min_u64(test_rand_between(rand, 1, 12), nr_lbas - lba);

		if (synced && test_rand_chance(rand, 1, 8)) {
			err = mls_disk_sync(disk);
			if (!err)
				memcpy(synced, now, (size_t)nr_lbas * MLS_BLOCK_BYTES);
			continue;
		}
		if (test_rand_chance(rand, 1, 12)) {
			err = churn_discard(disk, lba, nr, now);
		} else {
			for (uint64_t i = 0; i < nr && !err; i++)
				err = churn_write(rand, disk, lba + i, now);
		}
		if (sync_id_of(disk) != sync_id && err != MLS_EABORTED)
			err = settle(disk, nr_lbas, now, synced);
	}
	return err;
}

void adv_keep_moment(struct adv_disk *d, const struct test_store *store, const uint8_t *content, bool synced)
{
	struct adv_moment *moment = &d->moments[d->nr_moments++];

	MLS_INVARIANT(d->nr_moments <= ADV_MOMENTS_MAX);
	tamper_image_take(&moment->image, &d->dev->base);
	moment->store = *store;
	moment->nr_lbas = d->nr_lbas;
	moment->synced = synced;
	moment->content = mls_blocks_alloc(d->nr_lbas);
	MLS_INVARIANT(moment->content != NULL);
	memcpy(moment->content, content, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
}

static void format_disk(struct life *l, uint64_t nr_lbas, uint64_t spare_runs)
{
	struct mls_format_opts format = {
		.disk_bytes = nr_lbas * MLS_BLOCK_BYTES, .run_blocks = RUN_BLOCKS, .wal_blocks = WAL_BLOCKS};
	uint64_t nr_blocks =
		mls_backing_bytes(format.disk_bytes) / MLS_BLOCK_BYTES + WAL_BLOCKS + spare_runs * RUN_BLOCKS;
	uint8_t uuid[MLS_UUID_BYTES];

	l->d->nr_lbas = nr_lbas;
	l->d->dev = tamper_dev_new(nr_blocks, nr_blocks + 1024);
	test_store_init(&l->d->store, NULL);
	adv_must(l->a, mls_uuid_new(uuid), "uuid");
	adv_must(l->a, mls_disk_format(&l->d->dev->base, &l->d->store.base, &secret, uuid, &format), "format");
}

static void live_open(struct life *l)
{
	adv_must(l->a, adv_open(l->d, &l->d->store, false, 0, &l->disk), "open");
}

static void keep(struct life *l, bool synced)
{
	adv_keep_moment(l->d, &l->d->store, l->synced, synced);
}

static void live_sync(struct life *l)
{
	adv_must(l->a, mls_disk_sync(l->disk), "sync");
	memcpy(l->synced, l->now, (size_t)l->d->nr_lbas * MLS_BLOCK_BYTES);
	keep(l, true);
}

static void live_close(struct life *l)
{
	adv_must(l->a, mls_disk_close(l->disk), "close");
	memcpy(l->synced, l->now, (size_t)l->d->nr_lbas * MLS_BLOCK_BYTES);
	keep(l, true);
}

static void live_write(struct life *l, uint64_t lba, uint64_t nr)
{
	for (uint64_t i = lba; i < lba + nr; i++)
		adv_must(l->a, churn_write(&l->rand, l->disk, i, l->now), "write");
}

/* Some calls, and a sync; between two syncs a copy is taken, too. */
static void live_some(struct life *l, unsigned nr_rounds, unsigned nr_calls)
{
	for (unsigned i = 0; i < nr_rounds; i++) {
		adv_must(l->a, adv_churn(&l->rand, l->disk, l->d->nr_lbas, nr_calls, l->now, NULL), "write");
		if (i % 2 && !l->d->early_syncs) /* else a sync may have come in between */
			keep(l, false);
		live_sync(l);
	}
}

static void begin(struct life *l, struct adv *a, struct adv_disk *d)
{
	*l = (struct life){.a = a, .d = d};
	test_rand_seed(&l->rand, d->seed);
	l->now = mls_blocks_zalloc(ADV_LBAS_MAX);
	l->synced = mls_blocks_zalloc(ADV_LBAS_MAX);
	MLS_INVARIANT(l->now && l->synced);
}

static void end(struct life *l)
{
	l->d->truth = l->synced;
	mls_blocks_free(l->now);
}

static void require(const struct life *l, bool condition, const char *what)
{
	if (!condition)
		adv_fail(l->a, "the disk didn't come into its state: %s", what);
}

static struct mls_disk_stat stat_of(const struct life *l)
{
	struct mls_disk_stat stat;

	mls_disk_stat(l->disk, &stat);
	return stat;
}

static void live_fresh(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 256, 8);
	keep(&l, true);
	live_open(&l);
	keep(&l, true);
	live_close(&l);
	end(&l);
}

static void live_wal(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 256, TABLE_RUNS);
	keep(&l, true);
	live_open(&l);
	for (unsigned i = 0; i < 5; i++) {
		live_write(&l, 11 * i, 6);
		keep(&l, false);
		live_sync(&l);
	}
	require(&l, stat_of(&l).memtable_flushes == 0, "no SSTable yet");
	live_close(&l);
	live_open(&l);
	live_write(&l, 3, 9);
	live_close(&l);
	end(&l);
}

static void live_tables(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 512, TABLE_RUNS);
	live_open(&l);
	for (unsigned i = 0; i < 4; i++) {
		live_write(&l, 20 * i, 24);
		live_sync(&l);
	}
	require(&l, stat_of(&l).memtable_flushes >= 1 && stat_of(&l).compactions == 0, "level 0 only");
	live_close(&l);
	live_open(&l);
	live_some(&l, 1, 2);
	live_close(&l);
	end(&l);
}

static void live_levels(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 1024, 2 * TABLE_RUNS);
	live_open(&l);
	for (unsigned i = 0; i < 4; i++) {
		live_write(&l, 256 * i, 256);
		live_sync(&l);
	}
	live_some(&l, 8, 12);
	require(&l, stat_of(&l).compactions > 1, "compactions");
	live_close(&l);
	live_open(&l);
	live_some(&l, 4, 4);
	live_close(&l);
	end(&l);
}

static void live_cleaned(struct adv *a, struct adv_disk *d)
{
	struct mls_disk_stat stat = {0};
	struct life l;

	begin(&l, a, d);
	d->early_syncs = true;
	format_disk(&l, 512, TABLE_RUNS / 2);
	live_open(&l);
	for (unsigned i = 0; i < 16; i++) {
		live_write(&l, 32 * i, 32);
		adv_must(a, mls_disk_sync(l.disk), "sync");
	}
	for (unsigned i = 0; i < 600 && stat.cleaned_segments < 40; i++) {
		adv_must(a, adv_churn(&l.rand, l.disk, d->nr_lbas, 2, l.now, NULL), "write");
		if (i % 20 == 0)
			live_sync(&l);
		else
			adv_must(a, mls_disk_sync(l.disk), "sync");
		stat = stat_of(&l);
	}
	require(&l, stat.cleaned_segments >= 40, "segments were cleaned");
	live_close(&l);
	live_open(&l);
	live_some(&l, 4, 6);
	live_close(&l);
	end(&l);
}

static void live_discarded(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 512, TABLE_RUNS);
	live_open(&l);
	for (unsigned i = 0; i < 8; i++) {
		live_write(&l, 64 * i, 64);
		live_sync(&l);
	}
	for (unsigned i = 0; i < 4; i++) {
		adv_must(a, churn_discard(l.disk, 128 * i + i, 64, l.now), "discard");
		keep(&l, false);
		live_sync(&l);
	}
	live_close(&l);
	live_open(&l);
	live_some(&l, 2, 4);
	live_close(&l);
	end(&l);
}

static void live_grown(struct adv *a, struct adv_disk *d)
{
	struct mls_secret other = {second_key, sizeof second_key, false};
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 256, TABLE_RUNS);
	live_open(&l);
	live_some(&l, 3, 10);
	d->dev->base.nr_blocks += 30 * RUN_BLOCKS;
	adv_must(a, mls_disk_resize(l.disk, 384 * MLS_BLOCK_BYTES), "resize");
	d->nr_lbas = 384;
	live_some(&l, 3, 10);
	live_close(&l);
	adv_must(a, mls_key_add(&d->dev->base, &secret, &other, MLS_KEY_SLOT_ANY, "second", NULL), "add a key");
	live_open(&l);
	live_some(&l, 1, 4);
	live_close(&l);
	adv_must(a, mls_key_remove(&d->dev->base, &other, MLS_KEY_SLOT_ANY, NULL), "remove a key");
	live_open(&l);
	live_some(&l, 1, 4);
	live_close(&l);
	end(&l);
}

static void live_crashed(struct adv *a, struct adv_disk *d)
{
	struct life l;

	begin(&l, a, d);
	format_disk(&l, 512, TABLE_RUNS);
	live_open(&l);
	live_some(&l, 5, 12);
	live_write(&l, 100, 20);
	d->store.fail_at = d->store.nr_advances + 1;
	require(&l, mls_disk_sync(l.disk) == MLS_EIO, "the register failed");
	require(&l, mls_disk_close(l.disk) == MLS_EPOISONED, "poisoned");
	d->store.fail_at = 0;
	keep(&l, false);
	d->given_up = mls_blocks_alloc(ADV_LBAS_MAX);
	MLS_INVARIANT(d->given_up != NULL);
	memcpy(d->given_up, l.synced, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
	memcpy(l.synced, l.now, (size_t)d->nr_lbas * MLS_BLOCK_BYTES);
	end(&l);
}

const struct adv_life adv_lives[] = {
	{"fresh", live_fresh},	 {"wal", live_wal},	    {"tables", live_tables},
	{"levels", live_levels}, {"cleaned", live_cleaned}, {"discarded", live_discarded},
	{"grown", live_grown},	 {"crashed", live_crashed},
};
const unsigned adv_nr_lives = sizeof adv_lives / sizeof adv_lives[0];

/* ---- The map ---- */

static void map_parts(struct adv_disk *d, const struct mls_inspect *x)
{
	d->parts[ADV_PART_SUPERBLOCKS] = (struct adv_range){0, MLS_JOURNAL_HBA};
	for (unsigned i = 0; i < MLS_NR_JOURNAL_AREAS; i++)
		d->parts[ADV_PART_AREA_0 + i] = (struct adv_range){x->areas[i].hba, x->areas[i].nr_blocks};
	d->parts[ADV_PART_WAL] = (struct adv_range){x->wal_hba, x->wal_blocks};
	d->parts[ADV_PART_RUNS] = (struct adv_range){x->runs_hba, d->dev->base.nr_blocks - x->runs_hba};
	d->nr_runs = x->nr_runs;
	d->run_blocks = x->run_blocks;
}

static void map_kinds(struct adv_disk *d, struct mls_inspect *x)
{
	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++) {
		struct mls_place place = mls_inspect_place(x, hba);
		const struct mls_inspect_run *run = place.kind == MLS_PLACE_RUN ? &x->runs[place.index] : NULL;

		d->kind[hba] = ADV_FREE;
		if (place.kind == MLS_PLACE_SUPERBLOCK)
			d->kind[hba] = ADV_SUPERBLOCK;
		else if (place.kind == MLS_PLACE_JOURNAL)
			d->kind[hba] = ADV_JOURNAL;
		else if (place.kind == MLS_PLACE_WAL)
			d->kind[hba] = ADV_WAL;
		else if (run && run->kind == MLS_RUN_CHUNK)
			d->kind[hba] = ADV_TABLE;
		else if (run && run->kind == MLS_RUN_SEGMENT)
			d->kind[hba] = place.pos < x->nr_slots ? ADV_DATA : ADV_SUMMARY;
		if (run && run->kind == MLS_RUN_CHUNK)
			d->log_of_run[place.index] = run->log_id;
	}
}

/* Who reads what, the disk tells itself: opened without a cache, and asked for one LBA after the other. */
static void map_readers(struct adv *a, struct adv_disk *d)
{
	uint8_t *block = mls_blocks_alloc(1);
	uint64_t nr_blocks = d->dev->base.nr_blocks;
	struct test_store store = d->store;
	struct mls_disk *disk;

	MLS_INVARIANT(block != NULL);
	memset(d->dev->seen, 0, nr_blocks * sizeof *d->dev->seen);
	adv_must(a, adv_open(d, &store, true, 1, &disk), "open for the map");
	memcpy(d->at_open, d->dev->seen, nr_blocks * sizeof *d->dev->seen);
	for (uint64_t lba = 0; lba < d->nr_lbas; lba++) {
		memset(d->dev->seen, 0, nr_blocks * sizeof *d->dev->seen);
		adv_must(a, mls_disk_read(disk, lba * MLS_BLOCK_BYTES, block, MLS_BLOCK_BYTES),
			 "read for the map");
		if (memcmp(block, mls_block_at(d->truth, lba), MLS_BLOCK_BYTES) != 0)
			adv_fail(a, "LBA %" PRIu64 " isn't what was written, before any attack", lba);
		for (uint64_t hba = 0; hba < nr_blocks; hba++)
			if (d->dev->seen[hba])
				d->reader[hba] = (uint32_t)lba;
	}
	mls_blocks_free(block);
	adv_must(a, mls_disk_close(disk), "close");
}

static void map(struct adv *a, struct adv_disk *d)
{
	struct mls_inspect *x;

	d->kind = calloc(d->dev->capacity, sizeof *d->kind);
	d->reader = malloc(d->dev->capacity * sizeof *d->reader);
	d->at_open = calloc(d->dev->capacity, sizeof *d->at_open);
	MLS_INVARIANT(d->kind && d->reader && d->at_open);
	memset(d->reader, 0xff, d->dev->capacity * sizeof *d->reader);
	adv_must(a, mls_inspect_open(&x, &d->dev->base, &d->store.base, &secret, NULL, NULL), "inspect");
	d->log_of_run = calloc(x->nr_runs, sizeof *d->log_of_run);
	MLS_INVARIANT(d->log_of_run != NULL);
	map_parts(d, x);
	map_kinds(d, x);
	if (strcmp(d->name, "levels") == 0 &&
	    (x->lsm.nr_tables < 2 || x->lsm.tables[x->lsm.nr_tables - 1].level < 2))
		adv_fail(a, "the disk didn't come into its state: level 2");
	mls_inspect_close(x);
	map_readers(a, d);
}

/* ---- Disks ---- */

static struct adv_disk *disk_alloc(const char *name, uint64_t seed)
{
	struct adv_disk *d = calloc(1, sizeof *d);

	MLS_INVARIANT(d != NULL);
	d->name = name;
	d->seed = seed;
	return d;
}

static uint64_t seed_of(const struct adv *a, const char *name)
{
	uint64_t seed = a->seed;

	for (; *name; name++)
		seed = test_rand_mix(seed, (uint8_t)*name);
	return seed;
}

struct adv_disk *adv_disk_new(struct adv *a, const struct adv_life *life)
{
	struct adv_disk *d = disk_alloc(life->name, seed_of(a, life->name));

	a->d = d;
	life->live(a, d);
	map(a, d);
	return d;
}

void adv_disk_free(struct adv_disk *d)
{
	for (unsigned i = 0; i < d->nr_moments; i++) {
		tamper_image_release(&d->moments[i].image);
		mls_blocks_free(d->moments[i].content);
	}
	mls_block_dev_destroy(&d->dev->base);
	mls_blocks_free(d->truth);
	mls_blocks_free(d->given_up);
	free(d->kind);
	free(d->reader);
	free(d->at_open);
	free(d->log_of_run);
	free(d);
}

struct adv_disk *adv_clone(struct adv *a, const struct adv_disk *d, const struct adv_moment *moment)
{
	struct adv_disk *clone = disk_alloc("clone", test_rand_mix(d->seed, 1));
	struct life l;

	a->what = "making a clone";
	begin(&l, a, clone);
	clone->early_syncs = d->early_syncs;
	clone->nr_lbas = moment->nr_lbas;
	clone->store = moment->store;
	clone->dev = tamper_dev_new(d->dev->base.nr_blocks, d->dev->capacity);
	for (uint64_t hba = 0; hba < d->dev->base.nr_blocks; hba++)
		tamper_dev_put(clone->dev, hba, adv_old_block(moment, hba));
	memcpy(l.now, moment->content, (size_t)clone->nr_lbas * MLS_BLOCK_BYTES);
	live_open(&l);
	live_some(&l, 6, 6);
	live_close(&l);
	end(&l);
	return clone;
}

struct adv_disk *adv_twin(struct adv *a, const struct adv_disk *d)
{
	struct adv_disk *twin = disk_alloc("twin", test_rand_mix(d->seed, 2));
	struct life l;

	a->what = "making another disk";
	begin(&l, a, twin);
	twin->early_syncs = d->early_syncs;
	format_disk(&l, d->moments[0].nr_lbas,
		    (d->moments[0].image.nr_blocks -
		     mls_backing_bytes(d->moments[0].nr_lbas * MLS_BLOCK_BYTES) / MLS_BLOCK_BYTES -
		     WAL_BLOCKS) /
			    RUN_BLOCKS);
	live_open(&l);
	for (uint64_t lba = 0; lba < twin->nr_lbas; lba += 64) {
		live_write(&l, lba, 64);
		adv_must(a, mls_disk_sync(l.disk), "sync");
	}
	live_some(&l, 4, 8);
	live_close(&l);
	end(&l);
	return twin;
}
