/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_memtable.c - the newest version is found; each version dies once, and exactly when no state
 * that can be recovered needs it: against a model that keeps every version.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/memtable.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"

#define NR_LBAS 64u
#define NR_HBAS 20000u

static int live[NR_HBAS];
static unsigned nr_events;

static void on_born(void *arg, const struct mls_index_rec *recs, size_t nr)
{
	(void)arg;
	for (size_t i = 0; i < nr; i++) {
		if (recs[i].hba == MLS_HBA_NONE)
			continue;
		live[recs[i].hba]++;
		nr_events++;
	}
}

static void on_died(void *arg, uint64_t hba)
{
	(void)arg;
	live[hba]--;
	nr_events++;
}

static const struct mls_lsm_listener listener = { .born = on_born, .died = on_died };

static struct mls_memtable *new_table(uint32_t max_versions)
{
	struct mls_memtable *mt;

	memset(live, 0, sizeof live);
	nr_events = 0;
	ck_assert_int_eq(mls_memtable_new(&mt, max_versions, &listener), 0);
	return mt;
}

static void insert(struct mls_memtable *mt, uint64_t lba, uint64_t hba, uint64_t epoch)
{
	struct mls_index_rec rec = { .lba = lba, .hba = hba, .tag = { (uint8_t)hba } };

	mls_memtable_insert(mt, &rec, 1, epoch);
}

static uint64_t hba_of(const struct mls_memtable *mt, uint64_t lba)
{
	const struct mls_index_rec *rec = mls_memtable_get(mt, lba);

	return rec ? rec->hba : UINT64_MAX;
}

START_TEST(same_epoch_replaces_at_once)
{
	struct mls_memtable *mt = new_table(10);

	insert(mt, 5, 100, 1);
	insert(mt, 5, 101, 1);
	ck_assert_uint_eq(hba_of(mt, 5), 101);
	ck_assert_uint_eq(hba_of(mt, 6), UINT64_MAX);
	ck_assert_int_eq(live[100], 0);
	ck_assert_int_eq(live[101], 1);
	ck_assert_uint_eq(mls_memtable_nr_versions(mt), 1);
	ck_assert_uint_eq(mls_memtable_nr_dirty(mt), 1);
	mls_memtable_free(mt);
}
END_TEST

START_TEST(later_epoch_shadows_until_commit)
{
	struct mls_memtable *mt = new_table(10);

	insert(mt, 5, 100, 1);
	mls_memtable_forget_dirty(mt);
	insert(mt, 5, 101, 2);
	mls_memtable_forget_dirty(mt);
	insert(mt, 5, 102, 3);
	ck_assert_uint_eq(hba_of(mt, 5), 102);
	mls_memtable_commit(mt, 1);
	ck_assert(live[100] == 1 && live[101] == 1 && live[102] == 1);
	mls_memtable_commit(mt, 2);
	ck_assert(live[100] == 0 && live[101] == 1 && live[102] == 1);
	mls_memtable_commit(mt, 3);
	ck_assert(live[100] == 0 && live[101] == 0 && live[102] == 1);
	ck_assert_uint_eq(mls_memtable_nr_versions(mt), 1);
	ck_assert_ptr_null(mls_memtable_older(mt, mls_memtable_sorted(mt, 0 * mls_memtable_sort(mt))));
	mls_memtable_free(mt);
}
END_TEST

START_TEST(nobody_hears_of_tombstones)
{
	struct mls_memtable *mt = new_table(10);

	insert(mt, 1, MLS_HBA_NONE, 1);
	insert(mt, 1, MLS_HBA_NONE, 1);
	ck_assert_uint_eq(nr_events, 0);
	ck_assert_uint_eq(hba_of(mt, 1), MLS_HBA_NONE);
	insert(mt, 1, 7, 1);
	insert(mt, 1, MLS_HBA_NONE, 1);
	ck_assert_uint_eq(nr_events, 2);
	ck_assert_int_eq(live[7], 0);
	mls_memtable_free(mt);
}
END_TEST

START_TEST(clear_and_free_tell_nobody)
{
	struct mls_memtable *mt = new_table(10);
	uint64_t found;

	insert(mt, 1, 7, 1);
	mls_memtable_clear(mt);
	ck_assert_int_eq(live[7], 1);
	ck_assert_uint_eq(hba_of(mt, 1), UINT64_MAX);
	ck_assert_uint_eq(mls_memtable_nr_versions(mt), 0);
	ck_assert_uint_eq(mls_memtable_room(mt), 10);
	ck_assert_ptr_null(mls_memtable_first_dirty(mt));
	ck_assert(!mls_memtable_next_lba(mt, 0, &found));
	mls_memtable_free(mt);
	mls_memtable_free(NULL);
	ck_assert_int_eq(live[7], 1);
}
END_TEST

START_TEST(grows_when_asked)
{
	struct mls_memtable *mt = new_table(1);

	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_int_eq(mls_memtable_reserve(mt, 1), 0);
		insert(mt, i * 1000003u % 4096, i + 1, 1);
	}
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_uint_eq(hba_of(mt, i * 1000003u % 4096), i + 1);
	ck_assert_uint_eq(mls_memtable_sort(mt), 1000);
	mls_memtable_free(mt);
}
END_TEST

START_TEST(several_at_once_are_as_one_after_the_other)
{
	const struct mls_index_rec recs[] = {
		{ .lba = 5, .hba = 100 }, { .lba = 6, .hba = MLS_HBA_NONE }, { .lba = 5, .hba = 101 },
		{ .lba = 7, .hba = 102 }, { .lba = 7, .hba = MLS_HBA_NONE },
	};
	struct mls_memtable *mt = new_table(10);

	mls_memtable_insert(mt, recs, 5, 1);
	ck_assert_uint_eq(hba_of(mt, 5), 101);
	ck_assert_uint_eq(hba_of(mt, 6), MLS_HBA_NONE);
	ck_assert_uint_eq(hba_of(mt, 7), MLS_HBA_NONE);
	ck_assert(live[100] == 0 && live[101] == 1 && live[102] == 0);
	ck_assert_uint_eq(mls_memtable_nr_versions(mt), 3);
	mls_memtable_free(mt);
}
END_TEST

/* Of every length, so that each number of the sort's rounds is among them. */
START_TEST(lbas_of_any_length_are_sorted)
{
	for (unsigned bits = 1; bits < 64; bits += 3) {
		struct mls_memtable *mt = new_table(2000);
		struct test_rand r;
		uint32_t nr;

		test_rand_seed(&r, bits);
		for (unsigned i = 0; i < 2000; i++)
			insert(mt, test_rand_below(&r, UINT64_C(1) << bits), i + 1, 1);
		nr = mls_memtable_sort(mt);
		ck_assert_uint_eq(nr, mls_memtable_nr_versions(mt));
		for (uint32_t i = 0; i < nr; i++) {
			const struct mls_index_rec *rec = &mls_memtable_sorted(mt, i)->rec;

			ck_assert_uint_eq(hba_of(mt, rec->lba), rec->hba);
			if (i > 0)
				ck_assert_uint_lt(mls_memtable_sorted(mt, i - 1)->rec.lba, rec->lba);
		}
		mls_memtable_free(mt);
	}
}
END_TEST

/* ---- Against a model ---- */

struct model {
	struct {
		uint64_t hba, epoch;
	} versions[NR_LBAS][4];		/* newest first; hba UINT64_MAX: none */
	uint64_t epoch, committed;
};

static void model_insert(struct model *m, uint64_t lba, uint64_t hba)
{
	if (m->versions[lba][0].hba == UINT64_MAX || m->versions[lba][0].epoch != m->epoch)
		memmove(&m->versions[lba][1], &m->versions[lba][0], 3 * sizeof m->versions[lba][0]);
	m->versions[lba][0].hba = hba;
	m->versions[lba][0].epoch = m->epoch;
}

static void model_commit(struct model *m, uint64_t epoch)
{
	m->committed = epoch;
	for (unsigned lba = 0; lba < NR_LBAS; lba++)
		for (unsigned i = 0; i < 3; i++)
			if (m->versions[lba][i].hba != UINT64_MAX && m->versions[lba][i].epoch <= epoch)
				m->versions[lba][i + 1].hba = UINT64_MAX;
}

/* The table has the model's versions, in order; and the living are those. */
static void check_versions(struct mls_memtable *mt, const struct model *m)
{
	uint32_t nr = mls_memtable_sort(mt), k = 0, nr_versions = 0, nr_live = 0, nr_mapped = 0;
	bool same = true;

	for (unsigned lba = 0; lba < NR_LBAS; lba++) {
		const struct mls_mem_version *v;
		unsigned i = 0;

		if (m->versions[lba][0].hba == UINT64_MAX)
			continue;
		same &= k < nr;
		for (v = mls_memtable_sorted(mt, k++); v; v = mls_memtable_older(mt, v), i++) {
			same &= i < 4 && v->rec.lba == lba && v->rec.hba == m->versions[lba][i].hba &&
				v->epoch == m->versions[lba][i].epoch;
			nr_versions++;
			nr_mapped += v->rec.hba != MLS_HBA_NONE;
		}
		same &= i == 4 || m->versions[lba][i].hba == UINT64_MAX;
	}
	for (unsigned hba = 0; hba < NR_HBAS; hba++)
		nr_live += live[hba];
	ck_assert(same);
	ck_assert_uint_eq(k, nr);
	ck_assert_uint_eq(nr_versions, mls_memtable_nr_versions(mt));
	ck_assert_uint_eq(nr_live, nr_mapped);
}

static void check_next(const struct mls_memtable *mt, const struct model *m, uint64_t lba)
{
	uint64_t want = lba, found;
	bool has;

	while (want < NR_LBAS && m->versions[want][0].hba == UINT64_MAX)
		want++;
	has = mls_memtable_next_lba(mt, lba, &found);
	ck_assert(has == (want < NR_LBAS));
	if (has)
		ck_assert_uint_eq(found, want);
}

static void check_dirty(const struct mls_memtable *mt, uint64_t epoch)
{
	const struct mls_mem_version *v = mls_memtable_first_dirty(mt);
	uint32_t nr = 0;

	for (; v; v = mls_memtable_next_dirty(mt, v), nr++)
		ck_assert_uint_eq(v->epoch, epoch);
	ck_assert_uint_eq(nr, mls_memtable_nr_dirty(mt));
}

START_TEST(random_against_a_model)
{
	struct mls_memtable *mt = new_table(4 * NR_LBAS);
	struct model m = { .epoch = 1 };
	struct test_rand r;

	test_rand_seed(&r, 42);
	memset(m.versions, 0xff, sizeof m.versions);
	for (unsigned i = 1; i < 8000; i++) {
		uint64_t lba = test_rand_below(&r, NR_LBAS);
		uint64_t hba = test_rand_chance(&r, 1, 5) ? MLS_HBA_NONE : i;

		insert(mt, lba, hba, m.epoch);
		model_insert(&m, lba, hba);
		if (test_rand_chance(&r, 1, 40)) {	/* cut, unless a sync is running */
			if (m.epoch == m.committed + 1) {
				check_dirty(mt, m.epoch);
				mls_memtable_forget_dirty(mt);
				m.epoch++;
			} else {
				mls_memtable_commit(mt, m.committed + 1);
				model_commit(&m, m.committed + 1);
			}
		}
		if (i % 8 == 0) {
			check_versions(mt, &m);
			check_next(mt, &m, test_rand_below(&r, NR_LBAS + 1));
		}
	}
	mls_memtable_free(mt);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memtable");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, same_epoch_replaces_at_once);
	tcase_add_test(tc, later_epoch_shadows_until_commit);
	tcase_add_test(tc, nobody_hears_of_tombstones);
	tcase_add_test(tc, clear_and_free_tell_nobody);
	tcase_add_test(tc, grows_when_asked);
	tcase_add_test(tc, several_at_once_are_as_one_after_the_other);
	tcase_add_test(tc, lbas_of_any_length_are_sorted);
	tcase_add_test(tc, random_against_a_model);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
