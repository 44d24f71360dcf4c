/* SPDX-License-Identifier: MPL-2.0 */
/*
 * disk_stats.c - the disk's statistics as a JSON document, for people and their scripts.
 *
 * The names are described in mlsdisk-fuse(1) and stay; new ones may come. Everything is a number, but
 * uuid and state; counts are since the open, sizes as of now. Numbers of one document are read one
 * after the other while the disk works, so they needn't add up to the last block.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "5-disk/disk.h"
#include "base/checked.h"
#include "base/err.h"

#define STATS_VERSION 1

struct stats {
	struct mls_disk *disk;
	struct mls_disk_stat disk_stat;
	struct mls_segment_stat segments;
	struct mls_lsm_stat lsm;
};

static uint64_t count_of(atomic_uint_fast64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void mls_disk_session_totals(void *arg, struct mls_totals *totals)
{
	struct mls_disk *disk = arg;

	totals->at[MLS_TOTAL_SESSIONS] = disk->session;
	totals->at[MLS_TOTAL_READ_BYTES] = count_of(&disk->count.read_bytes);
	totals->at[MLS_TOTAL_WRITTEN_BYTES] = count_of(&disk->count.written_bytes);
	totals->at[MLS_TOTAL_DISCARDED_BLOCKS] = count_of(&disk->count.buried_blocks);
	totals->at[MLS_TOTAL_DEV_READ_BLOCKS] = count_of(&disk->meter.read_blocks);
	totals->at[MLS_TOTAL_DEV_WRITTEN_BLOCKS] = count_of(&disk->meter.written_blocks);
	totals->at[MLS_TOTAL_DEV_DISCARDED_BLOCKS] = count_of(&disk->meter.discarded_blocks);
	totals->at[MLS_TOTAL_DEV_FLUSHES] = count_of(&disk->meter.flushes);
	totals->at[MLS_TOTAL_SYNC_ROUNDS] = count_of(&disk->count.sync_rounds);
	totals->at[MLS_TOTAL_EARLY_SYNCS] = count_of(&disk->count.early_syncs);
	totals->at[MLS_TOTAL_CLEANED_SEGMENTS] = count_of(&disk->count.cleaned_segments);
	totals->at[MLS_TOTAL_MOVED_BLOCKS] = count_of(&disk->count.moved_blocks);
}

struct field {
	const char *name;
	uint64_t value;
};

static void print_object(FILE *out, const char *name, const struct field *fields, size_t nr)
{
	fprintf(out, ",\n \"%s\": {", name);
	for (size_t i = 0; i < nr; i++)
		fprintf(out, "%s\"%s\": %" PRIu64, i ? ", " : "", fields[i].name, fields[i].value);
	fprintf(out, "}");
}

#define PRINT(out, name, fields) print_object(out, name, fields, sizeof(fields) / sizeof *(fields))

static void print_space(FILE *out, const struct stats *s)
{
	struct mls_disk *disk = s->disk;
	uint64_t slots = s->segments.nr_segments * mls_segment_slots(disk->sb.geo.run_blocks);
	const struct field fields[] = {
		{ "block_bytes", MLS_BLOCK_BYTES },
		{ "run_blocks", disk->sb.geo.run_blocks },
		{ "runs", s->disk_stat.nr_runs },
		{ "free_runs", s->disk_stat.nr_free_runs },
		{ "room_runs", s->disk_stat.nr_room_runs },
		{ "stale_runs", mls_chunk_alloc_nr_stale(disk->alloc) },
		{ "backed_runs", mls_chunk_alloc_nr_backed(disk->alloc) },
		{ "segment_runs", s->segments.nr_segments },
		{ "index_runs", s->disk_stat.nr_chunks },
		{ "cleaned_waiting_runs", s->segments.nr_cleaned_waiting },
		{ "journal_blocks", disk->sb.geo.journal_area_blocks * MLS_NR_JOURNAL_AREAS },
		{ "wal_blocks", disk->sb.geo.wal_blocks },
		{ "wal_used_blocks", s->lsm.wal_blocks_used },
		{ "discarded_waiting_blocks", mls_bury_pending(disk->burier) },
		{ "live_blocks", s->segments.live_blocks },
		{ "dead_blocks", slots > s->segments.live_blocks ? slots - s->segments.live_blocks : 0 },
	};

	PRINT(out, "space", fields);
}

static void print_work(FILE *out, const struct stats *s)
{
	const struct mls_disk_stat *d = &s->disk_stat;
	struct mls_disk *disk = s->disk;
	const struct field calls[] = {
		{ "reads", d->reads }, { "read_bytes", d->read_bytes }, { "writes", d->writes },
		{ "written_bytes", d->written_bytes }, { "discards", d->discards },
		{ "discarded_blocks", count_of(&disk->count.buried_blocks) }, { "syncs", d->syncs },
	};
	const struct field device[] = {
		{ "read_blocks", d->dev_read_blocks }, { "written_blocks", d->dev_written_blocks },
		{ "discarded_blocks", count_of(&disk->meter.discarded_blocks) }, { "flushes", d->dev_flushes },
	};
	const struct field ahead[] = {
		{ "blocks", count_of(&disk->count.ahead_blocks) }, { "used_blocks", count_of(&disk->count.ahead_used_blocks) },
	};
	const struct field cache[] = { { "hits", s->lsm.cache_hits }, { "misses", s->lsm.cache_misses } };

	PRINT(out, "calls", calls);
	PRINT(out, "device", device);
	fprintf(out, ",\n \"write_amplification\": %.3f",
		d->written_bytes ? (double)d->dev_written_blocks * MLS_BLOCK_BYTES / (double)d->written_bytes : 0.0);
	PRINT(out, "index_cache", cache);
	PRINT(out, "read_ahead", ahead);
}

static void print_since_format(FILE *out, const struct stats *s)
{
	struct field fields[MLS_NR_TOTALS_KNOWN];
	struct mls_totals totals;

	mls_segment_table_totals(s->disk->table, &totals);
	for (unsigned i = 0; i < MLS_NR_TOTALS_KNOWN; i++)
		fields[i] = (struct field){ mls_total_name((enum mls_total)i), totals.at[i] };
	PRINT(out, "since_format", fields);
	fprintf(out, ",\n \"write_amplification_since_format\": %.3f",
		mls_totals_write_amplification(&totals));
	fprintf(out, ",\n \"read_amplification_since_format\": %.3f", mls_totals_read_amplification(&totals));
}

static void print_latency(FILE *out, const char *name, struct mls_latency *latency)
{
	const struct field fields[] = {
		{ "p50", mls_latency_percentile(latency, 500) / 1000 },
		{ "p99", mls_latency_percentile(latency, 990) / 1000 },
		{ "p999", mls_latency_percentile(latency, 999) / 1000 },
		{ "max", count_of(&latency->max_ns) / 1000 },
		{ "total", count_of(&latency->total_ns) / 1000 },
	};

	PRINT(out, name, fields);
}

static void print_background(FILE *out, const struct stats *s)
{
	const struct mls_disk_stat *d = &s->disk_stat;
	struct mls_disk *disk = s->disk;
	const struct field sync[] = {
		{ "rounds", count_of(&disk->count.sync_rounds) }, { "early", d->early_syncs },
	};
	const struct field cleaner[] = {
		{ "rounds", count_of(&disk->count.cleaner_rounds) },
		{ "segments", d->cleaned_segments },
		{ "moved_blocks", d->moved_blocks },
		{ "defragmented_blocks", count_of(&disk->count.defragmented_blocks) },
		{ "compactions", count_of(&disk->count.cleaner_compactions) },
		{ "paused_us", count_of(&disk->count.paused_ns) / 1000 },
		{ "punched_blocks", count_of(&disk->count.punched_blocks) },
	};
	const struct field index[] = {
		{ "memtable_records", s->lsm.memtable_records + s->lsm.frozen_records },
		{ "tables", s->lsm.nr_tables }, { "table_records", s->lsm.nr_table_records },
		{ "flushes", d->memtable_flushes }, { "compactions", d->compactions },
	};
	const struct field errors[] = {
		{ "integrity", d->integrity_errors },
		{ "io", count_of(&disk->count.io_errors) },
		{ "no_space", count_of(&disk->count.no_space) },
		{ "punch", count_of(&disk->count.punch_errors) },
		{ "host_full", count_of(&disk->backing.nr_refused) },
	};

	PRINT(out, "sync", sync);
	PRINT(out, "cleaner", cleaner);
	PRINT(out, "index", index);
	PRINT(out, "errors", errors);
	print_latency(out, "sync_us", &disk->sync_latency);
	print_latency(out, "write_us", &disk->write_latency);
}

int mls_disk_stats_json(struct mls_disk *disk, char **json, size_t *bytes)
{
	struct stats s = { .disk = disk };
	char uuid[MLS_UUID_TEXT_BYTES], *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return MLS_ENOMEM;
	mls_disk_stat(disk, &s.disk_stat);
	mls_segment_table_stat(disk->table, &s.segments);
	mls_lsm_stat(disk->lsm, &s.lsm);
	mls_uuid_format(uuid, s.disk_stat.uuid);
	fprintf(out, "{\"version\": %d, \"uuid\": \"%s\", \"state\": \"%s\",\n", STATS_VERSION, uuid,
		s.disk_stat.poisoned ? "poisoned" : disk->opts.read_only ? "read-only" : "ok");
	fprintf(out, " \"disk_bytes\": %" PRIu64 ", \"sync_id\": %" PRIu64, s.disk_stat.disk_bytes,
		s.disk_stat.sync_id);
	print_space(out, &s);
	print_work(out, &s);
	print_since_format(out, &s);
	print_background(out, &s);
	fprintf(out, "}\n");
	if (fclose(out)) {
		free(text);
		return MLS_ENOMEM;
	}
	*json = text;
	*bytes = size;
	return 0;
}
