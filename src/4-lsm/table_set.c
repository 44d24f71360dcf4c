/* SPDX-License-Identifier: MPL-2.0 */
/*
 * table_set.c - why it exists: readers see all of a flush or compaction, or nothing of it.
 *
 * Invariants: the order that table_set.h tells; tables of a level >= 1 don't overlap; each table is
 * there once, with one reference of the set.
 */
#include "4-lsm/table_set.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"

static int compare_tables(const void *a, const void *b)
{
	const struct mls_table_meta *x = &((const struct mls_table *)a)->meta;
	const struct mls_table_meta *y = &((const struct mls_table *)b)->meta;

	if (x->level != y->level)
		return x->level < y->level ? -1 : 1;
	if (x->level == 0)
		return (x->age < y->age) - (x->age > y->age);
	return (x->info.min_lba > y->info.min_lba) - (x->info.min_lba < y->info.min_lba);
}

static bool is_removed(uint64_t log_id, const uint64_t *remove, unsigned nr_remove)
{
	for (unsigned i = 0; i < nr_remove; i++)
		if (remove[i] == log_id)
			return true;
	return false;
}

/* With the tables sorted: where the levels begin, and whether they may be what they are. */
static int index_levels(struct mls_table_set *set)
{
	unsigned level = 0;

	for (unsigned i = 0; i < set->nr; i++) {
		const struct mls_table_meta *meta = &set->tables[i].meta;

		while (level < meta->level)
			set->first[++level] = i;
		set->level_records[level] += meta->info.nr_records;
		if (level > 0 && i > set->first[level] &&
		    set->tables[i - 1].meta.info.max_lba >= meta->info.min_lba) {
			mls_error("index: tables of level %u in logs %" PRIu64 " and %" PRIu64 " overlap",
				  level, set->tables[i - 1].meta.info.log_id, meta->info.log_id);
			return MLS_EFORMAT;
		}
	}
	while (level < MLS_NR_LEVELS)
		set->first[++level] = set->nr;
	return 0;
}

int mls_table_set_new(struct mls_table_set **out, const struct mls_table_set *old, const uint64_t *remove,
		      unsigned nr_remove, const struct mls_table *add, unsigned nr_add)
{
	unsigned nr_old = old ? old->nr : 0;
	struct mls_table_set *set = calloc(1, sizeof *set + (nr_old + nr_add) * sizeof set->tables[0]);
	int err;

	if (!set)
		return MLS_ENOMEM;
	set->refs = 1;
	for (unsigned i = 0; i < nr_old; i++)
		if (!is_removed(old->tables[i].meta.info.log_id, remove, nr_remove))
			set->tables[set->nr++] = old->tables[i];
	MLS_INVARIANT(set->nr + nr_remove == nr_old);
	for (unsigned i = 0; i < nr_add; i++)
		set->tables[set->nr++] = add[i];
	qsort(set->tables, set->nr, sizeof set->tables[0], compare_tables);
	err = index_levels(set);
	if (err) {
		free(set);
		return err;
	}
	for (unsigned i = 0; i < set->nr; i++)
		mls_sst_get(set->tables[i].sst);
	*out = set;
	return 0;
}

struct mls_table_set *mls_table_set_get(struct mls_table_set *set)
{
	__atomic_add_fetch(&set->refs, 1, __ATOMIC_RELAXED);
	return set;
}

void mls_table_set_put(struct mls_table_set *set)
{
	if (!set || __atomic_sub_fetch(&set->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	for (unsigned i = 0; i < set->nr; i++)
		mls_sst_put(set->tables[i].sst);
	free(set);
}

/* ---- Lookups ---- */

/* The first table of [from, to), disjoint and ascending, that ends at lba or behind it. */
static unsigned first_ending_at(const struct mls_table_set *set, unsigned from, unsigned to, uint64_t lba)
{
	while (from < to) {
		unsigned mid = from + (to - from) / 2;

		if (set->tables[mid].meta.info.max_lba < lba)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

void mls_table_set_overlap(const struct mls_table_set *set, unsigned level, uint64_t min_lba, uint64_t max_lba,
			   unsigned *from, unsigned *to)
{
	unsigned end = set->first[level + 1], i = first_ending_at(set, set->first[level], end, min_lba);

	MLS_INVARIANT(level >= 1);
	*from = i;
	while (i < end && set->tables[i].meta.info.min_lba <= max_lba)
		i++;
	*to = i;
}

static bool overlaps(const struct mls_table *table, uint64_t min_lba, uint64_t max_lba)
{
	return table->meta.info.min_lba <= max_lba && table->meta.info.max_lba >= min_lba;
}

int mls_table_set_get_range(const struct mls_table_set *set, uint64_t lba, size_t nr, struct mls_index_rec *recs,
			    size_t *nr_missing)
{
	uint64_t last = lba + (nr - 1);
	int err = 0;

	for (unsigned i = 0; !err && *nr_missing && i < set->first[1]; i++)
		if (overlaps(&set->tables[i], lba, last))
			err = mls_sst_get_range(set->tables[i].sst, lba, nr, recs, nr_missing);
	for (unsigned level = 1; !err && *nr_missing && level < MLS_NR_LEVELS; level++) {
		unsigned from, to;

		mls_table_set_overlap(set, level, lba, last, &from, &to);
		for (unsigned i = from; !err && *nr_missing && i < to; i++)
			err = mls_sst_get_range(set->tables[i].sst, lba, nr, recs, nr_missing);
	}
	return err;
}

/* Tables [t, end), disjoint and ascending, and the part [from, to) of recs that the first of them gets. */
struct part {
	unsigned t, end;
	size_t from, to;
};

/* The next table's part, which begins with a missing one. false: there is none. */
static bool next_part(const struct mls_table_set *set, const struct mls_index_rec *recs, size_t nr, struct part *part)
{
	part->from = part->to;
	while (part->from < nr && recs[part->from].hba != MLS_HBA_MISSING)
		part->from++;
	if (part->from == nr)
		return false;
	part->t = first_ending_at(set, part->t, part->end, recs[part->from].lba);
	if (part->t == part->end)
		return false;
	part->to = part->from;
	while (part->to < nr && recs[part->to].lba <= set->tables[part->t].meta.info.max_lba)
		part->to++;
	return true;
}

/* Blocks that are read together. */
struct fetches {
	struct mls_sst_fetch fetch[MLS_LOG_WANTS_MAX];
	struct mls_log_want want[MLS_LOG_WANTS_MAX];
	unsigned nr;
};

/* recs end with the table. */
static void add_fetches(struct fetches *fetches, const struct mls_table *table, const struct mls_index_rec *recs, size_t nr)
{
	uint64_t next = 0;

	for (size_t i = 0; i < nr && fetches->nr < MLS_LOG_WANTS_MAX; i++) {
		unsigned k = fetches->nr;

		if (recs[i].hba != MLS_HBA_MISSING || recs[i].lba < table->meta.info.min_lba)
			continue;
		if (mls_sst_fetch_begin(table->sst, recs[i].lba, &next, &fetches->fetch[k], &fetches->want[k]))
			fetches->nr++;
	}
}

/* What the lookups in tables [t, end) will look at into the cache. */
static void fetch_for(const struct mls_table_set *set, unsigned t, unsigned end, const struct mls_index_rec *recs, size_t nr)
{
	struct part part = { .t = t, .end = end };
	struct fetches fetches = { .nr = 0 };

	while (fetches.nr < MLS_LOG_WANTS_MAX && next_part(set, recs, nr, &part))
		add_fetches(&fetches, &set->tables[part.t], recs + part.from, part.to - part.from);
	mls_log_read_each(fetches.want, fetches.nr);
	for (unsigned k = 0; k < fetches.nr; k++)
		mls_sst_fetch_end(&fetches.fetch[k], &fetches.want[k]);
}

static int get_each_of(const struct mls_table_set *set, unsigned t, unsigned end, struct mls_index_rec *recs, size_t nr,
		       bool fetch, size_t *nr_missing)
{
	struct part part = { .t = t, .end = end };
	int err = 0;

	if (fetch)
		fetch_for(set, t, end, recs, nr);
	while (!err && *nr_missing && next_part(set, recs, nr, &part))
		err = mls_sst_get_each(set->tables[part.t].sst, recs + part.from, part.to - part.from, nr_missing);
	return err;
}

int mls_table_set_get_each(const struct mls_table_set *set, struct mls_index_rec *recs, size_t nr, bool fetch,
			   size_t *nr_missing)
{
	int err = 0;

	for (unsigned i = 0; !err && *nr_missing && i < set->first[1]; i++)
		err = get_each_of(set, i, i + 1, recs, nr, fetch, nr_missing);
	for (unsigned level = 1; !err && *nr_missing && level < MLS_NR_LEVELS; level++)
		err = get_each_of(set, set->first[level], set->first[level + 1], recs, nr, fetch, nr_missing);
	return err;
}

/* If the table has a record in [lba, *best), that is the new *best. */
static int next_of_table(const struct mls_table *table, uint64_t lba, uint64_t *best)
{
	struct mls_index_rec rec;
	int err;

	if (table->meta.info.max_lba < lba || table->meta.info.min_lba >= *best)
		return 0;
	err = mls_sst_next(table->sst, lba, &rec);
	if (!err && rec.lba < *best)
		*best = rec.lba;
	return err == MLS_ENOENT ? 0 : err;
}

int mls_table_set_next(const struct mls_table_set *set, uint64_t lba, uint64_t end, uint64_t *found)
{
	uint64_t best = end;
	int err = 0;

	for (unsigned i = 0; !err && i < set->first[1]; i++)
		err = next_of_table(&set->tables[i], lba, &best);
	for (unsigned level = 1; !err && level < MLS_NR_LEVELS; level++) {
		unsigned i = first_ending_at(set, set->first[level], set->first[level + 1], lba);

		/* It ends at lba or behind it, so its next record is the level's. */
		if (i < set->first[level + 1])
			err = next_of_table(&set->tables[i], lba, &best);
	}
	if (err)
		return err;
	if (best >= end)
		return MLS_ENOENT;
	*found = best;
	return 0;
}
