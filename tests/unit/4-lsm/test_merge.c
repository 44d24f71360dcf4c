/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_merge.c - of many sources, each LBA once, newest first; each other record dropped once.
 * Merges of real tables are in test_sstable.c.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "4-lsm/merge.h"
#include "tests/lib/check_must.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"

#define LBAS 300u
#define SOURCES_MAX 64u

/* hba says where the record came from, so that each is unlike all others. */
static struct mls_index_rec rec_of(unsigned source, uint64_t lba)
{
	struct mls_index_rec rec = { .lba = lba, .hba = 1000 * (uint64_t)source + lba };

	memset(rec.tag, (int)(source + lba), sizeof rec.tag);
	return rec;
}

static bool same(const struct mls_index_rec *a, const struct mls_index_rec *b)
{
	return a->lba == b->lba && a->hba == b->hba && memcmp(a->tag, b->tag, sizeof a->tag) == 0;
}

struct source {
	struct mls_index_rec recs[LBAS];
	size_t nr, at;
	size_t fail_at;		/* call, from 1; 0: never */
	size_t nr_calls;
};

struct world {
	struct source sources[SOURCES_MAX];
	unsigned nr_sources;
	unsigned nr_dropped;
	unsigned drop_fail_at;
	bool dropped[SOURCES_MAX][LBAS];
};

static int source_next(void *arg, struct mls_index_rec *rec)
{
	struct source *s = arg;

	if (++s->nr_calls == s->fail_at)
		return MLS_EIO;
	if (s->at == s->nr)
		return MLS_ENOENT;
	*rec = s->recs[s->at++];
	return 0;
}

static int note_dropped(void *arg, const struct mls_index_rec *rec)
{
	struct world *w = arg;
	unsigned source = (unsigned)((rec->hba - rec->lba) / 1000);
	struct mls_index_rec expected = rec_of(source, rec->lba);

	must(same(rec, &expected));
	must(!w->dropped[source][rec->lba]);
	w->dropped[source][rec->lba] = true;
	return ++w->nr_dropped == w->drop_fail_at ? MLS_ENOMEM : 0;
}

/* density: of 100 LBAs, how many a source has. */
static struct world *new_world(unsigned nr_sources, unsigned density, uint64_t seed)
{
	struct world *w = calloc(1, sizeof *w);
	struct test_rand rand;

	ck_assert_ptr_nonnull(w);
	test_rand_seed(&rand, seed);
	w->nr_sources = nr_sources;
	for (unsigned i = 0; i < nr_sources; i++)
		for (uint64_t lba = 0; lba < LBAS; lba++)
			if (test_rand_chance(&rand, density, 100))
				w->sources[i].recs[w->sources[i].nr++] = rec_of(i, lba);
	return w;
}

static struct mls_merge *merge_of(struct world *w)
{
	struct mls_merge *m;

	ck_assert_int_eq(mls_merge_new(&m, w->nr_sources, note_dropped, w), 0);
	for (unsigned i = 0; i < w->nr_sources; i++)
		if (i % 2 && !w->sources[i].fail_at)
			mls_merge_add_array(m, w->sources[i].recs, w->sources[i].nr);
		else
			mls_merge_add(m, source_next, &w->sources[i]);
	return m;
}

static bool source_has(const struct source *s, uint64_t lba)
{
	for (size_t i = 0; i < s->nr; i++)
		if (s->recs[i].lba == lba)
			return true;
	return false;
}

static void check_against_model(struct world *w, struct mls_merge *m)
{
	struct mls_index_rec rec;

	for (uint64_t lba = 0; lba < LBAS; lba++) {
		unsigned newest = 0;

		while (newest < w->nr_sources && !source_has(&w->sources[newest], lba))
			newest++;
		if (newest < w->nr_sources) {
			struct mls_index_rec expected = rec_of(newest, lba);

			must(mls_merge_next(m, &rec) == 0);
			must(same(&rec, &expected));
		}
	}
	ck_assert_int_eq(mls_merge_next(m, &rec), MLS_ENOENT);
	ck_assert_int_eq(mls_merge_next(m, &rec), MLS_ENOENT);

	for (uint64_t lba = 0; lba < LBAS; lba++) {
		bool newer = false;

		for (unsigned i = 0; i < w->nr_sources; i++) {
			bool has = source_has(&w->sources[i], lba);

			must(w->dropped[i][lba] == (has && newer));
			newer |= has;
		}
	}
}

START_TEST(equals_the_model)
{
	static const unsigned numbers[] = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 64 };
	static const unsigned densities[] = { 0, 1, 10, 50, 100 };
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		for (size_t k = 0; k < sizeof densities / sizeof *densities; k++) {
			struct world *w = new_world(numbers[i], densities[k], i * 10 + k);
			struct mls_merge *m = merge_of(w);

			check_against_model(w, m);
			mls_merge_free(m);
			free(w);
		}
	mls_merge_free(NULL);
}
END_TEST

START_TEST(nobody_need_listen)
{
	struct mls_index_rec newer = rec_of(0, 5), older = rec_of(1, 5), rec;
	struct mls_merge *m;

	ck_assert_int_eq(mls_merge_new(&m, 2, NULL, NULL), 0);
	mls_merge_add_array(m, &newer, 1);
	mls_merge_add_array(m, &older, 1);
	ck_assert_int_eq(mls_merge_next(m, &rec), 0);
	ck_assert(same(&rec, &newer));
	ck_assert_int_eq(mls_merge_next(m, &rec), MLS_ENOENT);
	mls_merge_free(m);
}
END_TEST

/* Run to the end or the first error; how many records came. */
static int run(struct world *w, unsigned *nr)
{
	struct mls_merge *m = merge_of(w);
	struct mls_index_rec rec;
	int err;

	*nr = 0;
	while (!(err = mls_merge_next(m, &rec)))
		++*nr;
	mls_merge_free(m);
	return err;
}

/* Goal: an error of a source comes out, be it its first call or the one that would tell its end. */
START_TEST(errors_of_sources_come_out)
{
	int err = MLS_EIO;

	for (size_t n = 1; err == MLS_EIO; n++) {
		struct world *w = new_world(5, 30, 42);
		size_t nr_calls = w->sources[3].nr + 1;
		unsigned nr;

		w->sources[3].fail_at = n;
		err = run(w, &nr);
		ck_assert_int_eq(err, n <= nr_calls ? MLS_EIO : MLS_ENOENT);
		free(w);
	}
}
END_TEST

START_TEST(errors_of_the_listener_come_out)
{
	int err = MLS_ENOMEM;

	for (unsigned n = 1; err == MLS_ENOMEM; n++) {
		struct world *w = new_world(4, 40, 43);
		unsigned nr;

		w->drop_fail_at = n;
		err = run(w, &nr);
		ck_assert_int_eq(err, w->nr_dropped == n ? MLS_ENOMEM : MLS_ENOENT);
		ck_assert_uint_le(w->nr_dropped, n);
		free(w);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("merge");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, equals_the_model);
	tcase_add_test(tc, nobody_need_listen);
	tcase_add_test(tc, errors_of_sources_come_out);
	tcase_add_test(tc, errors_of_the_listener_come_out);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
