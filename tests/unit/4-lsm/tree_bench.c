/* SPDX-License-Identifier: MPL-2.0 */
/* tree_bench.c - tests of the index; see tree_bench.h. */
#include "tests/unit/4-lsm/tree_bench.h"

#include <inttypes.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/rand.h"

#define EDIT_BYTES 12u

/* An assert that costs nothing when it holds: Check sends word of each of its own to the parent. */
#define MUST(expr, ...)                           \
	do {                                      \
		if (!(expr))                      \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

const struct mls_lsm_opts tree_inline_opts = {
	.memtable_records = 40, .table_records = 100, .cache_bytes = 1 << 20, .inline_work = true,
};
const struct mls_lsm_opts tree_thread_opts = {
	.memtable_records = 40, .table_records = 100, .cache_bytes = 1 << 20,
};

/* ---- The world ---- */

struct tree_world *tree_world_new(void)
{
	struct tree_world *world = calloc(1, sizeof *world);

	ck_assert_ptr_nonnull(world);
	world->next_hba = 1;
	return world;
}

void tree_world_copy(struct tree_world *to, const struct tree_world *from)
{
	memcpy(to, from, sizeof *to);
}

struct mls_index_rec tree_rec(uint64_t lba, uint64_t hba)
{
	struct mls_index_rec rec = { .lba = lba, .hba = hba };

	if (hba != MLS_HBA_NONE) {
		mls_put_le64(rec.tag, lba);
		mls_put_le64(rec.tag + 8, hba);
	}
	return rec;
}

/* ---- The listener ---- */

/* Its last record is gone: no state that can still be accepted may need it. */
static void check_death(struct tree_bench *bench, uint64_t hba)
{
	const struct tree_world *w = bench->world;

	MUST(bench->live[hba] >= 0, "HBA %llu died too often", (unsigned long long)hba);
	if (!bench->check_deaths || bench->live[hba] > 0)
		return;
	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba++)
		MUST(w->now[lba] != hba && w->closing[lba] != hba && w->synced[lba] != hba,
		     "HBA %llu of LBA %u died too early", (unsigned long long)hba, lba);
}

static void on_born(void *arg, const struct mls_index_rec *recs, size_t nr)
{
	struct tree_bench *bench = arg;

	pthread_mutex_lock(&bench->lock);
	for (size_t i = 0; i < nr; i++) {
		MUST(recs[i].hba < TREE_NR_HBAS, "HBA out of range");
		if (recs[i].hba != MLS_HBA_NONE)
			bench->live[recs[i].hba]++;
	}
	pthread_mutex_unlock(&bench->lock);
}

static void on_died(void *arg, uint64_t hba)
{
	struct tree_bench *bench = arg;

	pthread_mutex_lock(&bench->lock);
	bench->live[hba]--;
	check_death(bench, hba);
	pthread_mutex_unlock(&bench->lock);
}

struct changes {
	struct tree_bench *bench;
	struct change {
		uint64_t hba;
		int32_t delta;
	} *list;
	size_t nr, cap;
};

static void call_once(struct tree_bench *bench, void (**hook)(struct tree_bench *))
{
	void (*fn)(struct tree_bench *) = *hook;

	if (!fn)
		return;		/* with workers: nobody sets hooks, nobody writes them */
	*hook = NULL;
	fn(bench);
}

/* Each record of a table once at most, and none that is the newest of its LBA. */
static void on_shadowed(void *arg, uint64_t hba)
{
	struct tree_bench *b = arg;

	MUST(hba > 0 && hba < TREE_NR_HBAS, "HBA out of range");
	pthread_mutex_lock(&b->lock);
	MUST(b->in_tables[hba] > 0, "HBA %" PRIu64 " is told to be hidden and isn't in a table", hba);
	MUST(!b->hidden[hba], "HBA %" PRIu64 " is told to be hidden twice", hba);
	for (unsigned lba = 0; b->check_deaths && lba < TREE_DISK_BLOCKS; lba++)
		MUST(b->world->now[lba] != hba, "HBA %" PRIu64 " of LBA %u isn't hidden", hba, lba);
	b->hidden[hba] = true;
	b->nr_hidden++;
	pthread_mutex_unlock(&b->lock);
}

static void *on_tx_begin(void *arg)
{
	struct changes *c = calloc(1, sizeof *c);

	MUST(c, "no memory");
	c->bench = arg;
	call_once(c->bench, &c->bench->in_tx);
	return c;
}

static int add_change(struct changes *c, uint64_t hba, int32_t delta)
{
	MUST(hba > 0 && hba < TREE_NR_HBAS, "HBA out of range");
	if (c->nr == c->cap) {
		c->cap = c->cap * 2 + 64;
		c->list = realloc(c->list, c->cap * sizeof *c->list);
		MUST(c->list, "no memory");
	}
	c->list[c->nr++] = (struct change){ hba, delta };
	return 0;
}

static int on_tx_added(void *ctx, uint64_t hba)
{
	return add_change(ctx, hba, 1);
}

static int on_tx_dropped(void *ctx, uint64_t hba)
{
	return add_change(ctx, hba, -1);
}

static int add_count_edit(struct mls_edit_group *group, uint64_t hba, int32_t delta)
{
	uint8_t edit[EDIT_BYTES];

	mls_put_le64(edit, hba);
	mls_put_le32(edit + 8, (uint32_t)delta);
	return mls_edit_add(group, MLS_OWNER_SEGMENTS, edit, sizeof edit);
}

static int on_tx_prepare(void *ctx, struct mls_edit_group *group)
{
	const struct changes *c = ctx;
	int err = 0;

	call_once(c->bench, &c->bench->in_prepare);
	for (size_t i = 0; !err && i < c->nr; i++)
		err = add_count_edit(group, c->list[i].hba, c->list[i].delta);
	return err;
}

static void on_tx_done(void *ctx, bool committed)
{
	struct changes *c = ctx;

	pthread_mutex_lock(&c->bench->lock);
	for (size_t i = 0; committed && i < c->nr; i++)
		if (c->list[i].delta < 0) {
			c->bench->live[c->list[i].hba]--;
			check_death(c->bench, c->list[i].hba);
		}
	pthread_mutex_unlock(&c->bench->lock);
	free(c->list);
	free(c);
}

static int on_announced(void *arg, const uint8_t *bytes, size_t nr_bytes)
{
	struct tree_bench *bench = arg;

	ck_assert_uint_eq(nr_bytes, 5);
	ck_assert_mem_eq(bytes, "hello", 5);
	bench->nr_announced++;
	return 0;
}

/* ---- The owner of the counts ---- */

static void counts_reset(void *arg)
{
	struct tree_bench *bench = arg;

	memset(bench->in_tables, 0, TREE_NR_HBAS * sizeof *bench->in_tables);
	memset(bench->live, 0, TREE_NR_HBAS * sizeof *bench->live);
}

static int counts_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct tree_bench *bench = arg;
	uint64_t hba = bytes == EDIT_BYTES ? mls_get_le64(edit) : 0;

	if (hba == 0 || hba >= TREE_NR_HBAS)
		return MLS_EFORMAT;
	pthread_mutex_lock(&bench->lock);
	bench->in_tables[hba] += (int32_t)mls_get_le32(edit + 8);
	MUST(bench->in_tables[hba] >= 0, "more records dropped than added");
	pthread_mutex_unlock(&bench->lock);
	return 0;
}

static int counts_snapshot(void *arg, struct mls_edit_group *group)
{
	struct tree_bench *bench = arg;
	int err = 0;

	pthread_mutex_lock(&bench->lock);
	for (uint64_t hba = 1; !err && hba < TREE_NR_HBAS; hba++)
		if (bench->in_tables[hba])
			err = add_count_edit(group, hba, bench->in_tables[hba]);
	pthread_mutex_unlock(&bench->lock);
	return err;
}

/* ---- Making and opening ---- */

static struct tree_bench *bench_new(struct tree_world *world, struct mls_block_dev *dev,
				    const struct mls_lsm_opts *opts)
{
	static const uint8_t master[MLS_KEY_BYTES] = "a master key for tests";
	static const uint8_t uuid[MLS_UUID_BYTES] = "disk";
	struct tree_bench *b = calloc(1, sizeof *b);
	struct mls_edit_owner owner = { counts_reset, counts_apply, counts_snapshot, b };
	struct mls_lsm_listener listener = {
		.born = on_born,
		.died = on_died,
		.tx_begin = on_tx_begin,
		.tx_added = on_tx_added,
		.tx_dropped = on_tx_dropped,
		.tx_prepare = on_tx_prepare,
		.tx_done = on_tx_done,
		.shadowed = on_shadowed,
		.announced = on_announced,
		.arg = b,
	};

	ck_assert_ptr_nonnull(b);
	b->world = world;
	b->dev = dev;
	b->live = calloc(TREE_NR_HBAS, sizeof *b->live);
	b->hidden = calloc(TREE_NR_HBAS, sizeof *b->hidden);
	ck_assert_ptr_nonnull(b->hidden);
	b->in_tables = calloc(TREE_NR_HBAS, sizeof *b->in_tables);
	pthread_mutex_init(&b->lock, NULL);
	ck_assert_int_eq(mls_keyring_new(&b->keys, master, uuid), 0);
	ck_assert_int_eq(mls_chunk_alloc_new(&b->alloc, TREE_RUN_HBA, TREE_RUN_BLOCKS, TREE_NR_RUNS), 0);
	ck_assert_int_eq(mls_journal_new(&b->journal, dev, b->keys, TREE_JOURNAL_HBA, TREE_AREA_BLOCKS), 0);
	ck_assert_int_eq(mls_tx_store_new(&b->store, dev, b->alloc, b->keys, b->journal), 0);
	mls_journal_set_owner(b->journal, MLS_OWNER_SEGMENTS, &owner);
	ck_assert_int_eq(mls_block_ring_init(&b->ring, dev, TREE_RING_HBA, TREE_RING_BLOCKS), 0);
	ck_assert_int_eq(mls_lsm_new(&b->lsm, b->store, b->journal, b->keys, &b->ring, &listener, opts), 0);
	return b;
}

void tree_close(struct tree_bench *b)
{
	b->check_deaths = false;
	mls_lsm_free(b->lsm);
	mls_tx_store_free(b->store);
	mls_journal_free(b->journal);
	mls_chunk_alloc_free(b->alloc);
	mls_keyring_free(b->keys);
	pthread_mutex_destroy(&b->lock);
	free(b->live);
	free(b->hidden);
	free(b->in_tables);
	free(b);
}

void tree_format(struct tree_world *world, struct mls_block_dev *dev)
{
	struct tree_bench *b = bench_new(world, dev, &tree_inline_opts);

	ck_assert_int_eq(mls_rand_bytes(world->digest, sizeof world->digest), 0);
	ck_assert_int_eq(mls_rand_bytes(b->session, sizeof b->session), 0);
	world->sync_id = 0;
	mls_lsm_format(b->lsm, world->digest, b->session);
	ck_assert_int_eq(mls_journal_start(b->journal, b->session), 0);
	tree_close(b);
}

static bool is_register(const struct tree_world *w, const struct mls_sync_head *head)
{
	return head->sync_id == w->sync_id && memcmp(head->tag, w->digest, sizeof w->digest) == 0;
}

/* May this area and this replay be gone on with? As mlsdisk does, without the data. */
static bool acceptable(struct tree_bench *b, const struct mls_journal_info *info, const struct mls_replay *replay,
		       bool *accept_last)
{
	const struct tree_world *w = b->world;
	const struct mls_sync_head *newest = replay->has_last ? &replay->last : &replay->before;
	bool known = is_register(w, newest);

	if (!known && !(replay->has_last && is_register(w, &replay->before) &&
			replay->last.sync_id == w->sync_id + 1))
		return false;
	*accept_last = replay->has_last && (known || !w->reject_last);
	MUST(!known || newest->commit >= w->commit, "the last sync names a journal commit before its tables");
	if (!*accept_last)
		newest = &replay->before;
	return memcmp(newest->session, info->session, MLS_SESSION_BYTES) == 0 && info->commit >= newest->commit;
}

static int try_area(struct tree_bench *b, unsigned area, struct mls_replay *replay, bool *accept_last)
{
	struct mls_journal_info info;
	int err;

	mls_chunk_alloc_reset(b->alloc);
	err = mls_journal_load(b->journal, area, &info);
	if (err)
		return err;
	memcpy(b->live, b->in_tables, TREE_NR_HBAS * sizeof *b->live);
	err = mls_lsm_replay_begin(b->lsm, replay);
	if (err)
		return err;
	return acceptable(b, &info, replay, accept_last) ? 0 : MLS_ESTALE;
}

static int recover(struct tree_bench *b)
{
	unsigned areas[MLS_NR_JOURNAL_AREAS], nr = 0;
	struct tree_world *w = b->world;
	struct mls_replay replay;
	bool accept_last = false;
	int err = mls_journal_candidates(b->journal, areas, &nr), found = MLS_ESTALE;

	if (err)
		return err;
	for (unsigned i = 0; i < nr && found; i++)
		found = try_area(b, areas[i], &replay, &accept_last);
	if (found)
		return found;
	w->took_last = accept_last && !is_register(w, &replay.last);
	if (w->took_last) {	/* bring the register to it first */
		w->sync_id = replay.last.sync_id;
		w->commit = replay.last.commit;
		memcpy(w->digest, replay.last.tag, sizeof w->digest);
		memcpy(w->synced, w->closing, sizeof w->synced);
	}
	return mls_lsm_replay_end(b->lsm, accept_last);
}

static int write_group(struct tree_bench *b, uint8_t flags)
{
	struct tree_world *w = b->world;
	struct mls_lsm_cut cut;
	uint64_t commit;
	int err;

	memcpy(w->closing, w->now, sizeof w->now);
	err = mls_lsm_cut(b->lsm, &cut);
	if (err)
		return err;
	commit = mls_journal_last_commit(b->journal);
	err = mls_lsm_wal_write(b->lsm, &cut, flags ? "hello" : NULL, flags ? 5 : 0, 1, flags);
	if (!err)
		err = mls_block_dev_flush(b->dev);
	if (err) {
		mls_lsm_abandon(b->lsm, &cut);
		return err;
	}
	w->commit = commit;
	w->sync_id = cut.sync_id;
	memcpy(w->digest, cut.digest, sizeof w->digest);
	memcpy(w->synced, w->closing, sizeof w->synced);
	mls_lsm_commit(b->lsm, &cut);
	return 0;
}

static int start(struct tree_bench *b)
{
	struct tree_world *w = b->world;
	struct mls_lsm_stat stat;
	int err;

	memcpy(w->now, w->synced, sizeof w->now);
	mls_lsm_stat(b->lsm, &stat);
	if (mls_rand_bytes(b->session, sizeof b->session))
		return MLS_EIO;
	err = mls_journal_start(b->journal, b->session);
	if (!err)
		err = mls_lsm_start(b->lsm, b->session, stat.committed_epoch + 1);
	if (!err)
		err = write_group(b, MLS_WAL_FLAG_OPEN);
	return err;
}

struct tree_bench *tree_open(struct tree_world *world, struct mls_block_dev *dev, const struct mls_lsm_opts *opts,
			     int *err)
{
	struct tree_bench *b = bench_new(world, dev, opts);

	*err = recover(b);
	if (!*err)
		*err = start(b);
	if (*err) {
		tree_close(b);
		return NULL;
	}
	b->check_deaths = opts->inline_work;
	return b;
}

struct tree_bench *tree_open_ok(struct tree_world *world, struct mls_block_dev *dev,
				const struct mls_lsm_opts *opts)
{
	int err;
	struct tree_bench *b = tree_open(world, dev, opts, &err);

	ck_assert_int_eq(err, 0);
	return b;
}

/* ---- Use ---- */

int tree_put(struct tree_bench *b, uint64_t lba, size_t nr, bool mapped)
{
	struct mls_index_rec recs[TREE_DISK_BLOCKS];
	struct tree_world *w = b->world;
	uint64_t old[TREE_DISK_BLOCKS];
	int err;

	memcpy(old, w->now, sizeof old);
	for (size_t i = 0; i < nr; i++) {
		MUST(w->next_hba < TREE_NR_HBAS, "out of HBAs");
		recs[i] = tree_rec(lba + i, mapped ? w->next_hba++ : MLS_HBA_NONE);
		w->now[lba + i] = recs[i].hba;
	}
	err = mls_lsm_put(b->lsm, recs, nr);
	if (err)
		memcpy(w->now, old, sizeof old);
	return err;
}

int tree_sync(struct tree_bench *b)
{
	return write_group(b, 0);
}

/* ---- Checks ---- */

static void check_next_mapped(struct tree_bench *b)
{
	uint64_t lba = 0, found = 0;

	while (lba < TREE_DISK_BLOCKS) {
		uint64_t want = lba;
		int err = mls_lsm_next_mapped(b->lsm, lba, TREE_DISK_BLOCKS, &found);

		while (want < TREE_DISK_BLOCKS && b->world->now[want] == MLS_HBA_NONE)
			want++;
		if (want == TREE_DISK_BLOCKS) {
			MUST(err == MLS_ENOENT, "found what isn't mapped");
			return;
		}
		MUST(err == 0 && found == want, "next mapped LBA after %llu: error %d, %llu, not %llu",
		     (unsigned long long)lba, err, (unsigned long long)found, (unsigned long long)want);
		lba = want + 1 + want % 7;
	}
}

/* The same by single LBAs, that don't descend. 0: now this one again, now the next. */
static void check_each(struct tree_bench *b, unsigned stride)
{
	struct mls_index_rec recs[50], want;
	unsigned lba = 0;

	while (lba < TREE_DISK_BLOCKS) {
		size_t nr = 0;

		while (nr < 50 && lba < TREE_DISK_BLOCKS) {
			recs[nr++].lba = lba;
			lba += stride ? stride : nr % 2;
		}
		ck_assert_int_eq(mls_lsm_get_each(b->lsm, recs, nr), 0);
		for (size_t i = 0; i < nr; i++) {
			want = tree_rec(recs[i].lba, b->world->now[recs[i].lba]);
			MUST(recs[i].hba == want.hba, "LBA %llu of many: HBA %llu, not %llu",
			     (unsigned long long)recs[i].lba, (unsigned long long)recs[i].hba,
			     (unsigned long long)want.hba);
			MUST(recs[i].hba == MLS_HBA_NONE || memcmp(recs[i].tag, want.tag, sizeof want.tag) == 0,
			     "LBA %llu of many: wrong record", (unsigned long long)recs[i].lba);
		}
	}
}

void tree_check(struct tree_bench *b)
{
	struct mls_index_rec recs[TREE_DISK_BLOCKS], want;

	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba += 37) {
		unsigned nr = lba + 37 <= TREE_DISK_BLOCKS ? 37 : TREE_DISK_BLOCKS - lba;

		ck_assert_int_eq(mls_lsm_get(b->lsm, lba, nr, recs + lba), 0);
	}
	for (unsigned lba = 0; lba < TREE_DISK_BLOCKS; lba++) {
		want = tree_rec(lba, b->world->now[lba]);
		MUST(recs[lba].hba == want.hba, "LBA %u: HBA %llu, not %llu", lba,
		     (unsigned long long)recs[lba].hba, (unsigned long long)want.hba);
		MUST(recs[lba].lba == lba && memcmp(recs[lba].tag, want.tag, sizeof want.tag) == 0,
		     "LBA %u: wrong record", lba);
	}
	for (unsigned stride = 0; stride < 7; stride += 2)
		check_each(b, stride);
	check_next_mapped(b);
}

struct recount {
	int32_t *live, *in_tables;
};

static int count_one(void *arg, const struct mls_lsm_scanned *s)
{
	struct recount *r = arg;

	if (s->rec.hba == MLS_HBA_NONE)
		return 0;
	r->live[s->rec.hba]++;
	if (s->level >= 0)
		r->in_tables[s->rec.hba]++;
	return 0;
}

void tree_check_counts(struct tree_bench *b)
{
	struct recount r = {
		.live = calloc(TREE_NR_HBAS, sizeof *r.live),
		.in_tables = calloc(TREE_NR_HBAS, sizeof *r.in_tables),
	};

	ck_assert_int_eq(mls_lsm_scan(b->lsm, count_one, &r), 0);
	pthread_mutex_lock(&b->lock);
	for (uint64_t hba = 1; hba < TREE_NR_HBAS; hba++) {
		MUST(r.live[hba] == b->live[hba], "HBA %llu: %d records, %d counted",
		     (unsigned long long)hba, r.live[hba], b->live[hba]);
		MUST(r.in_tables[hba] == b->in_tables[hba], "HBA %llu: %d records in tables, %d counted",
		     (unsigned long long)hba, r.in_tables[hba], b->in_tables[hba]);
	}
	pthread_mutex_unlock(&b->lock);
	free(r.live);
	free(r.in_tables);
}
