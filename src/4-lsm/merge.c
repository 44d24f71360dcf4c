/* SPDX-License-Identifier: MPL-2.0 */
/*
 * merge.c - why it exists: flush, compaction and scans all see several sorted sources as one.
 *
 * A binary heap of the sources that have a record left, ordered by (LBA, age): at the top is the
 * newest record of the smallest LBA, and its older versions come up right after it. Sources are few
 * (64 at most in practice), so the heap holds their numbers and stays in two cache lines.
 *
 * A source advances when its record has been given or dropped, that is at the beginning of the next
 * call: a record is given even if the source fails behind it.
 */
#include "4-lsm/merge.h"

#include <stdlib.h>

#include "base/err.h"

struct source {
	mls_merge_next_fn *next;
	void *arg;
	struct mls_index_rec rec;	/* the one in the heap */
	const struct mls_index_rec *left;	/* array sources: what is to come */
	size_t nr_left;
};

struct mls_merge {
	struct source *sources;		/* newest first */
	unsigned *heap;			/* numbers of sources */
	unsigned nr_sources, max_sources, nr_heap;
	mls_merge_dropped_fn *dropped;
	void *dropped_arg;
	uint64_t last_lba;		/* given last, by the top, which hasn't advanced yet */
	bool started;
};

int mls_merge_new(struct mls_merge **out, unsigned max_sources, mls_merge_dropped_fn *dropped, void *arg)
{
	struct mls_merge *m = calloc(1, sizeof *m);

	if (!m)
		return MLS_ENOMEM;
	m->sources = calloc(max_sources ? max_sources : 1, sizeof *m->sources);
	m->heap = calloc(max_sources ? max_sources : 1, sizeof *m->heap);
	if (!m->sources || !m->heap) {
		mls_merge_free(m);
		return MLS_ENOMEM;
	}
	m->max_sources = max_sources;
	m->dropped = dropped;
	m->dropped_arg = arg;
	*out = m;
	return 0;
}

void mls_merge_free(struct mls_merge *m)
{
	if (!m)
		return;
	free(m->heap);
	free(m->sources);
	free(m);
}

static struct source *source_add(struct mls_merge *m)
{
	MLS_INVARIANT(!m->started && m->nr_sources < m->max_sources);
	return &m->sources[m->nr_sources++];
}

void mls_merge_add(struct mls_merge *m, mls_merge_next_fn *next, void *arg)
{
	struct source *s = source_add(m);

	s->next = next;
	s->arg = arg;
}

static int next_of_iter(void *arg, struct mls_index_rec *rec)
{
	return mls_sst_iter_next(arg, rec);
}

void mls_merge_add_iter(struct mls_merge *m, struct mls_sst_iter *iter)
{
	mls_merge_add(m, next_of_iter, iter);
}

static int next_of_array(void *arg, struct mls_index_rec *rec)
{
	struct source *s = arg;

	if (s->nr_left == 0)
		return MLS_ENOENT;
	*rec = *s->left++;
	s->nr_left--;
	return 0;
}

void mls_merge_add_array(struct mls_merge *m, const struct mls_index_rec *recs, size_t nr)
{
	struct source *s = source_add(m);

	s->next = next_of_array;
	s->arg = s;
	s->left = recs;
	s->nr_left = nr;
}

/* ---- The heap ---- */

/* Is source a's record to come before source b's? */
static bool before(const struct mls_merge *m, unsigned a, unsigned b)
{
	uint64_t lba_a = m->sources[a].rec.lba, lba_b = m->sources[b].rec.lba;

	return lba_a < lba_b || (lba_a == lba_b && a < b);
}

static void sift_down(struct mls_merge *m, unsigned i)
{
	unsigned moved = m->heap[i];

	for (;;) {
		unsigned child = 2 * i + 1;

		if (child >= m->nr_heap)
			break;
		if (child + 1 < m->nr_heap && before(m, m->heap[child + 1], m->heap[child]))
			child++;
		if (!before(m, m->heap[child], moved))
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = moved;
}

static int start(struct mls_merge *m)
{
	m->started = true;
	for (unsigned i = 0; i < m->nr_sources; i++) {
		int err = m->sources[i].next(m->sources[i].arg, &m->sources[i].rec);

		if (err == 0)
			m->heap[m->nr_heap++] = i;
		else if (err != MLS_ENOENT)
			return err;
	}
	for (unsigned i = m->nr_heap / 2; i-- > 0;)
		sift_down(m, i);
	return 0;
}

/* The top's record is done with: its next one, or one source less. */
static int advance_top(struct mls_merge *m)
{
	struct source *s = &m->sources[m->heap[0]];
	uint64_t lba = s->rec.lba;
	int err = s->next(s->arg, &s->rec);

	if (err && err != MLS_ENOENT)
		return err;
	if (err)
		m->heap[0] = m->heap[--m->nr_heap];
	else
		MLS_INVARIANT(s->rec.lba > lba);
	if (m->nr_heap)
		sift_down(m, 0);
	return 0;
}

/* Past the record given last and its older versions. */
static int advance(struct mls_merge *m)
{
	int err = advance_top(m);

	while (!err && m->nr_heap && m->sources[m->heap[0]].rec.lba == m->last_lba) {
		if (m->dropped)
			err = m->dropped(m->dropped_arg, &m->sources[m->heap[0]].rec);
		if (!err)
			err = advance_top(m);
	}
	return err;
}

int mls_merge_next(struct mls_merge *m, struct mls_index_rec *rec)
{
	int err = 0;

	if (!m->started)
		err = start(m);
	else if (m->nr_heap)
		err = advance(m);
	if (err)
		return err;
	if (m->nr_heap == 0)
		return MLS_ENOENT;
	*rec = m->sources[m->heap[0]].rec;
	m->last_lba = rec->lba;
	return 0;
}
