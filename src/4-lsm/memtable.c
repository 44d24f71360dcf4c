/* SPDX-License-Identifier: MPL-2.0 */
/*
 * memtable.c - why it exists: take records at the speed of memory, and know when an old one dies.
 *
 * A version's life:
 *
 *   free --insert--> newest, dirty --cut--> newest --insert of a later epoch--> shadowed --commit--> free
 *                       |  ^
 *                       +--+ insert of the same epoch: replaced in place, the old HBA dies at once
 *
 * Why a shadowed version stays: until its shadower's epoch is committed, a crash takes the disk back
 * to a state that needs it. The shadowed list is in the order of the shadowers' epochs, as inserts
 * come in ascending epochs, so a commit looks only at what it kills.
 *
 * Invariants: the versions of an LBA stand in strictly descending epochs; all but the first are
 * shadowed; a version is in at most one of the three lists; the oldest version of an LBA dies first.
 */
#include "4-lsm/memtable.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/err.h"

#define NONE UINT32_MAX
#define CLUSTER_BITS 4		/* neighbours share a cache line of buckets */

_Static_assert(sizeof(struct mls_mem_version) == 64, "a version is a cache line");

struct list {
	uint32_t head, tail;
};

struct order {
	uint64_t lba;
	uint32_t version;
};

#define DIGIT_BITS 11		/* of an LBA: the sort takes so many at once */

struct mls_memtable {
	const struct mls_lsm_listener *listener;
	struct mls_mem_version *versions;
	uint32_t cap_versions, nr_versions;
	uint32_t nr_touched;		/* versions [0, nr_touched) have been used */
	uint32_t free;			/* list of those that were given back */
	uint32_t *buckets;		/* newest version of the first LBA */
	uint32_t bucket_mask;
	struct list dirty, shadowed;
	uint32_t nr_dirty;
	uint64_t first_epoch, last_epoch;
	struct order *order;		/* room for twice all versions: the sort goes to and fro */
	const struct order *sorted;	/* its half that has the result */
};

static uint32_t bucket_of(const struct mls_memtable *mt, uint64_t lba)
{
	uint64_t cluster = (lba >> CLUSTER_BITS) * 0x9e3779b97f4a7c15u;

	return (uint32_t)((cluster >> 32 << CLUSTER_BITS) | (lba & ((1u << CLUSTER_BITS) - 1))) &
	       mt->bucket_mask;
}

int mls_memtable_new(struct mls_memtable **out, uint32_t max_versions, const struct mls_lsm_listener *listener)
{
	struct mls_memtable *mt = calloc(1, sizeof *mt);
	uint32_t nr_buckets = 64;
	int err;

	if (!mt)
		return MLS_ENOMEM;
	while (nr_buckets < max_versions && nr_buckets < 1u << 30)
		nr_buckets *= 2;
	mt->listener = listener;
	mt->bucket_mask = nr_buckets - 1;
	mt->buckets = malloc(nr_buckets * sizeof *mt->buckets);
	err = mt->buckets ? mls_memtable_reserve(mt, max_versions) : MLS_ENOMEM;
	if (err) {
		mls_memtable_free(mt);
		return err;
	}
	mls_memtable_clear(mt);
	*out = mt;
	return 0;
}

void mls_memtable_free(struct mls_memtable *mt)
{
	if (!mt)
		return;
	free(mt->order);
	free(mt->buckets);
	free(mt->versions);
	free(mt);
}

void mls_memtable_clear(struct mls_memtable *mt)
{
	memset(mt->buckets, 0xff, ((size_t)mt->bucket_mask + 1) * sizeof *mt->buckets);
	mt->nr_versions = mt->nr_touched = mt->nr_dirty = 0;
	mt->free = NONE;
	mt->dirty = mt->shadowed = (struct list){ NONE, NONE };
	mt->first_epoch = mt->last_epoch = 0;
}

uint32_t mls_memtable_nr_versions(const struct mls_memtable *mt)
{
	return mt->nr_versions;
}

uint32_t mls_memtable_room(const struct mls_memtable *mt)
{
	return mt->cap_versions - mt->nr_versions;
}

uint64_t mls_memtable_first_epoch(const struct mls_memtable *mt)
{
	return mt->first_epoch;
}

int mls_memtable_reserve(struct mls_memtable *mt, uint32_t nr_versions)
{
	struct mls_mem_version *versions;
	uint64_t cap = (uint64_t)mt->nr_versions + nr_versions;
	struct order *order;

	if (cap <= mt->cap_versions)
		return 0;
	if (mt->cap_versions)	/* it wasn't enough: grow in steps that count */
		cap = mls_max_u64(cap, mt->cap_versions + (uint64_t)mt->cap_versions / 2);
	if (cap >= NONE)
		return MLS_ENOMEM;
	order = realloc(mt->order, 2 * cap * sizeof *order);
	if (!order)
		return MLS_ENOMEM;
	mt->order = order;
	versions = realloc(mt->versions, cap * sizeof *versions);
	if (!versions)
		return MLS_ENOMEM;
	mt->versions = versions;
	mt->cap_versions = (uint32_t)cap;
	return 0;
}

/* ---- Lists ---- */

static void list_append(struct mls_memtable *mt, struct list *list, uint32_t v)
{
	mt->versions[v].link = NONE;
	if (list->tail == NONE)
		list->head = v;
	else
		mt->versions[list->tail].link = v;
	list->tail = v;
}

static uint32_t version_take(struct mls_memtable *mt)
{
	uint32_t v = mt->free;

	MLS_INVARIANT(mt->nr_versions < mt->cap_versions);
	if (v != NONE)
		mt->free = mt->versions[v].link;
	else
		v = mt->nr_touched++;
	mt->nr_versions++;
	return v;
}

static void version_give(struct mls_memtable *mt, uint32_t v)
{
	mt->versions[v].rec.lba = MLS_LBA_NONE;
	mt->versions[v].link = mt->free;
	mt->free = v;
	mt->nr_versions--;
}

static void tell_died(const struct mls_memtable *mt, uint64_t hba)
{
	if (hba != MLS_HBA_NONE)
		mt->listener->died(mt->listener->arg, hba);
}

/* ---- The table ---- */

/* Where the number of lba's newest version stands, or would stand. */
static uint32_t *find(const struct mls_memtable *mt, uint64_t lba)
{
	uint32_t *at = &mt->buckets[bucket_of(mt, lba)];

	while (*at != NONE && mt->versions[*at].rec.lba != lba)
		at = &mt->versions[*at].next;
	return at;
}

static void insert_newest(struct mls_memtable *mt, uint32_t *at, const struct mls_index_rec *rec, uint64_t epoch)
{
	uint32_t older = *at, v = version_take(mt);
	struct mls_mem_version *version = &mt->versions[v];

	version->rec = *rec;
	version->epoch = epoch;
	version->shadow_epoch = 0;
	version->older = older;
	version->next = NONE;
	if (older != NONE) {
		MLS_INVARIANT(mt->versions[older].epoch < epoch);
		version->next = mt->versions[older].next;
		mt->versions[older].shadow_epoch = epoch;
		list_append(mt, &mt->shadowed, older);
	}
	*at = v;
	list_append(mt, &mt->dirty, v);
	mt->nr_dirty++;
}

static void insert_one(struct mls_memtable *mt, const struct mls_index_rec *rec, uint64_t epoch)
{
	uint32_t *at = find(mt, rec->lba);

	if (*at != NONE && mt->versions[*at].epoch == epoch) {
		tell_died(mt, mt->versions[*at].rec.hba);
		mt->versions[*at].rec = *rec;
	} else {
		insert_newest(mt, at, rec, epoch);
	}
}

void mls_memtable_insert(struct mls_memtable *mt, const struct mls_index_rec *recs, size_t nr, uint64_t epoch)
{
	/* A dirty version is never shadowed: whoever closes an epoch takes its dirty ones. */
	MLS_INVARIANT(epoch == mt->last_epoch || (epoch > mt->last_epoch && mt->nr_dirty == 0));
	if (mt->first_epoch == 0)
		mt->first_epoch = epoch;
	mt->last_epoch = epoch;

	mt->listener->born(mt->listener->arg, recs, nr);	/* all before any of them dies */
	for (size_t i = 0; i < nr; i++)
		insert_one(mt, &recs[i], epoch);
}

void mls_memtable_prefetch(const struct mls_memtable *mt, const struct mls_index_rec *recs, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		__builtin_prefetch(&mt->buckets[bucket_of(mt, recs[i].lba)]);
	for (size_t i = 0; i < nr; i++) {
		uint32_t v = mt->buckets[bucket_of(mt, recs[i].lba)];

		if (v != NONE)
			__builtin_prefetch(&mt->versions[v]);
	}
}

const struct mls_index_rec *mls_memtable_get(const struct mls_memtable *mt, uint64_t lba)
{
	uint32_t v = *find(mt, lba);

	return v == NONE ? NULL : &mt->versions[v].rec;
}

/* Take shadowed version v, the oldest of its LBA, out of the chain. */
static void unchain(struct mls_memtable *mt, uint32_t v)
{
	uint32_t newer = *find(mt, mt->versions[v].rec.lba);

	while (mt->versions[newer].older != v) {
		newer = mt->versions[newer].older;
		MLS_INVARIANT(newer != NONE);
	}
	MLS_INVARIANT(mt->versions[v].older == NONE);
	mt->versions[newer].older = NONE;
}

void mls_memtable_commit(struct mls_memtable *mt, uint64_t epoch)
{
	while (mt->shadowed.head != NONE && mt->versions[mt->shadowed.head].shadow_epoch <= epoch) {
		uint32_t v = mt->shadowed.head;

		mt->shadowed.head = mt->versions[v].link;
		if (mt->shadowed.head == NONE)
			mt->shadowed.tail = NONE;
		unchain(mt, v);
		tell_died(mt, mt->versions[v].rec.hba);
		version_give(mt, v);
	}
}

/* ---- Dirty ---- */

static const struct mls_mem_version *version_at(const struct mls_memtable *mt, uint32_t v)
{
	return v == NONE ? NULL : &mt->versions[v];
}

uint32_t mls_memtable_nr_dirty(const struct mls_memtable *mt)
{
	return mt->nr_dirty;
}

const struct mls_mem_version *mls_memtable_first_dirty(const struct mls_memtable *mt)
{
	return version_at(mt, mt->dirty.head);
}

const struct mls_mem_version *mls_memtable_next_dirty(const struct mls_memtable *mt,
						      const struct mls_mem_version *version)
{
	return version_at(mt, version->link);
}

void mls_memtable_forget_dirty(struct mls_memtable *mt)
{
	mt->dirty = (struct list){ NONE, NONE };
	mt->nr_dirty = 0;
}

/* ---- In order of LBA ---- */

bool mls_memtable_next_lba(const struct mls_memtable *mt, uint64_t lba, uint64_t *found)
{
	uint64_t best = MLS_LBA_NONE;

	for (uint32_t v = 0; v < mt->nr_touched; v++) {
		uint64_t at = mt->versions[v].rec.lba;	/* of a free one: MLS_LBA_NONE */

		if (at >= lba && at < best)
			best = at;
	}
	*found = best;
	return best != MLS_LBA_NONE;
}

/* By one digit of the LBA; those with the same one keep their order. */
static void sort_by_digit(const struct order *from, struct order *to, uint32_t nr, unsigned shift)
{
	const uint64_t mask = (1u << DIGIT_BITS) - 1;
	uint32_t start[1u << DIGIT_BITS] = { 0 }, sum = 0;

	for (uint32_t i = 0; i < nr; i++)
		start[from[i].lba >> shift & mask]++;
	for (uint32_t d = 0; d <= mask; d++) {
		uint32_t count = start[d];

		start[d] = sum;
		sum += count;
	}
	for (uint32_t i = 0; i < nr; i++)
		to[start[from[i].lba >> shift & mask]++] = from[i];
}

/* Digit by digit, from the last: a quarter of the time of qsort, which also asks for memory. */
uint32_t mls_memtable_sort(struct mls_memtable *mt)
{
	struct order *from = mt->order, *to = mt->order + mt->cap_versions;
	uint64_t all = 0;
	uint32_t nr = 0;

	for (uint32_t b = 0; b <= mt->bucket_mask; b++)
		for (uint32_t v = mt->buckets[b]; v != NONE; v = mt->versions[v].next) {
			from[nr++] = (struct order){ mt->versions[v].rec.lba, v };
			all |= mt->versions[v].rec.lba;
		}
	for (unsigned shift = 0; shift < 64 && all >> shift; shift += DIGIT_BITS) {
		struct order *sorted = to;

		sort_by_digit(from, sorted, nr, shift);
		to = from;
		from = sorted;
	}
	mt->sorted = from;
	return nr;
}

const struct mls_mem_version *mls_memtable_sorted(const struct mls_memtable *mt, uint32_t i)
{
	return &mt->versions[mt->sorted[i].version];
}

const struct mls_mem_version *mls_memtable_older(const struct mls_memtable *mt,
						 const struct mls_mem_version *version)
{
	return version_at(mt, version->older);
}
