/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tx_log.c - layer 3: many secure logs, changed all or nothing.
 *
 *   log      who holds it                     becomes
 *   NEW      tx->created: being written, or   LIVE by the commit's apply; gone by abort
 *            finished
 *   LIVE     the table, and its readers       DELETED by the commit's apply
 *   DELETED  tx->deleted until on_commit has  gone with the last reference: its runs are free
 *            run; its readers
 *
 * The table changes in apply only, at run time as on load. At run time store->committing says in
 * which transaction to find the logs that the edits name: their runs are taken already and their
 * objects made, so that apply can't fail. On load it is NULL, and apply makes them from the edits.
 *
 * Order of the edits of a commit: logs created, the upper layers' edits, logs deleted. An owner
 * above can so open a log in the apply that first names it.
 *
 * Invariants: a run that the table or a tx names is taken in the allocator, once; ids are never
 * used twice, as next_id is part of the snapshot; runs of a log are given back only after the
 * commit that deletes it is durable and nobody reads it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "2-edit/edit_group.h"
#include "3-log/stored_log.h"
#include "3-log/tx_log.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"

#define FIRST_ID UINT64_C(1)
#define LAST_ID (UINT64_MAX / 2)	/* never reached; keeps next_id from wrapping */

struct mls_tx_store {
	struct mls_block_dev *dev;
	struct mls_chunk_alloc *alloc;
	const struct mls_keyring *keys;
	struct mls_journal *journal;

	pthread_mutex_t commit_lock;	/* one commit at a time, over its I/O; before journal->lock */
	pthread_mutex_t lock;		/* of what follows; after journal->lock; no I/O */
	struct mls_log_table table;	/* the LIVE logs */
	uint64_t next_id;
	uint64_t nr_chunks;		/* of LIVE and DELETED logs */
	struct mls_tx *committing;
};

struct mls_tx {
	struct mls_tx_store *store;
	struct mls_edit_group *group;		/* the upper layers' edits */
	struct mls_stored_log *created, *deleted;	/* lists, through next_in_tx */
	size_t nr_created, nr_writers;
	bool failed;				/* only abort is left */
	void (*on_commit)(void *arg);
	void *on_commit_arg;
};

struct mls_log_writer {
	struct mls_tx *tx;
	struct mls_stored_log *log;
	struct mls_crypto_log_builder *builder;
};

struct mls_log_reader {
	struct mls_tx_store *store;
	struct mls_stored_log *log;
	struct mls_crypto_log *crypto;		/* the log's, as long as it has a reader */
};

/* ---- References ---- */

/* Drop one reference, of a reader or of the owner. With the last the runs become free. */
static void log_put(struct mls_tx_store *store, struct mls_stored_log *log, bool reader)
{
	struct mls_crypto_log *idle = NULL;
	bool last;

	pthread_mutex_lock(&store->lock);
	MLS_INVARIANT(log->nr_refs > 0 && log->nr_readers >= (reader ? 1 : 0));
	if (reader && --log->nr_readers == 0) {
		idle = log->crypto;
		log->crypto = NULL;
	}
	last = --log->nr_refs == 0;
	if (last)
		store->nr_chunks -= log->raw.nr_chunks;
	pthread_mutex_unlock(&store->lock);

	mls_crypto_log_close(idle);
	if (last)
		mls_stored_log_free(log, true);
}

/* ---- The owner MLS_OWNER_LOGS: edits into the table ---- */

/* The layer above resets the allocator: what a load marked there is forgotten with the logs. */
static void logs_reset(void *arg)
{
	struct mls_tx_store *store = arg;

	pthread_mutex_lock(&store->lock);
	MLS_INVARIANT(!store->committing);
	for (size_t i = 0; i < store->table.nr_logs; i++) {
		MLS_INVARIANT(store->table.logs[i]->nr_refs == 1);	/* no reader */
		mls_stored_log_free(store->table.logs[i], false);
	}
	store->table.nr_logs = 0;
	store->nr_chunks = 0;
	store->next_id = FIRST_ID;
	pthread_mutex_unlock(&store->lock);
}

static void table_add_locked(struct mls_tx_store *store, struct mls_stored_log *log)
{
	mls_log_table_insert(&store->table, log);
	store->nr_chunks += log->raw.nr_chunks;
}

static int apply_create_loaded(struct mls_tx_store *store, const uint8_t *edit, size_t bytes)
{
	struct mls_stored_log *log;
	int err;

	err = mls_log_table_reserve(&store->table, 1);
	if (!err)
		err = mls_stored_log_decode(&log, store->dev, store->alloc, edit, bytes);
	if (err)
		return err;
	if (log->id < FIRST_ID || log->id > LAST_ID || mls_log_table_find(&store->table, log->id)) {
		mls_stored_log_free(log, true);
		return MLS_EFORMAT;
	}
	table_add_locked(store, log);
	if (store->next_id <= log->id)
		store->next_id = log->id + 1;
	return 0;
}

static int apply_create(struct mls_tx_store *store, const uint8_t *edit, size_t bytes)
{
	struct mls_stored_log **link, *log;
	uint64_t id;

	if (!store->committing)
		return apply_create_loaded(store, edit, bytes);

	/* Out of the list: from here on another transaction may delete it. */
	id = mls_get_le64(((const struct mls_log_create_disk *)edit)->id);
	for (link = &store->committing->created; *link && (*link)->id != id;)
		link = &(*link)->next_in_tx;
	log = *link;
	MLS_INVARIANT(log);
	*link = log->next_in_tx;
	log->next_in_tx = NULL;
	table_add_locked(store, log);
	return 0;
}

/* *dead: the log whose owner's reference is to be dropped once the lock is. */
static int apply_delete(struct mls_tx_store *store, uint64_t id, struct mls_stored_log **dead)
{
	struct mls_stored_log *log = mls_log_table_find(&store->table, id);

	if (!log)
		return MLS_EFORMAT;
	MLS_INVARIANT(log->deleter == store->committing);
	mls_log_table_remove(&store->table, log);
	if (!store->committing)
		*dead = log;		/* on load nobody else holds it */
	return 0;
}

static int logs_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct mls_tx_store *store = arg;
	struct mls_stored_log *dead = NULL;
	uint64_t id;
	int err;

	pthread_mutex_lock(&store->lock);
	switch (edit[0]) {
	case MLS_LOG_EDIT_CREATE:
		err = apply_create(store, edit, bytes);
		break;
	case MLS_LOG_EDIT_DELETE:
		err = mls_log_id_edit_decode(edit, bytes, &id);
		if (!err)
			err = apply_delete(store, id, &dead);
		break;
	case MLS_LOG_EDIT_NEXT_ID:
		err = mls_log_id_edit_decode(edit, bytes, &id);
		if (!err && (id < store->next_id || id > LAST_ID))
			err = MLS_EFORMAT;
		if (!err)
			store->next_id = id;
		break;
	default:
		err = MLS_EFORMAT;
	}
	pthread_mutex_unlock(&store->lock);
	if (dead)
		log_put(store, dead, false);
	return err;
}

static int logs_snapshot(void *arg, struct mls_edit_group *group)
{
	struct mls_tx_store *store = arg;
	uint8_t edit[MLS_LOG_ID_EDIT_BYTES];
	int err = 0;

	pthread_mutex_lock(&store->lock);
	for (size_t i = 0; i < store->table.nr_logs && !err; i++)
		err = mls_stored_log_encode(store->table.logs[i], group);
	mls_log_id_edit_encode(edit, MLS_LOG_EDIT_NEXT_ID, store->next_id);
	if (!err)
		err = mls_edit_add(group, MLS_OWNER_LOGS, edit, sizeof edit);
	pthread_mutex_unlock(&store->lock);
	return err;
}

/* ---- The store ---- */

int mls_tx_store_new(struct mls_tx_store **store, struct mls_block_dev *dev, struct mls_chunk_alloc *alloc,
		     const struct mls_keyring *keys, struct mls_journal *journal)
{
	struct mls_tx_store *new = calloc(1, sizeof *new);
	struct mls_edit_owner owner = {
		.reset = logs_reset, .apply = logs_apply, .snapshot = logs_snapshot, .arg = new,
	};

	if (!new)
		return MLS_ENOMEM;
	new->dev = dev;
	new->alloc = alloc;
	new->keys = keys;
	new->journal = journal;
	new->next_id = FIRST_ID;
	pthread_mutex_init(&new->commit_lock, NULL);
	pthread_mutex_init(&new->lock, NULL);
	mls_journal_set_owner(journal, MLS_OWNER_LOGS, &owner);
	*store = new;
	return 0;
}

void mls_tx_store_free(struct mls_tx_store *store)
{
	if (!store)
		return;
	logs_reset(store);
	mls_log_table_release(&store->table);
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->commit_lock);
	free(store);
}

int mls_tx_store_list(struct mls_tx_store *store, int bucket,
		      int (*fn)(void *arg, const struct mls_log_info *info), void *arg)
{
	int stop = 0;

	pthread_mutex_lock(&store->lock);
	for (size_t i = 0; i < store->table.nr_logs && !stop; i++) {
		const struct mls_stored_log *log = store->table.logs[i];
		struct mls_log_info info = {
			.id = log->id, .nr_data_blocks = log->root.nr_data_blocks, .bucket = log->bucket,
			.chunk_hbas = log->raw.chunk_hbas, .nr_chunks = log->raw.nr_chunks,
		};

		if (bucket < 0 || bucket == log->bucket)
			stop = fn(arg, &info);
	}
	pthread_mutex_unlock(&store->lock);
	return stop;
}

uint64_t mls_tx_store_nr_chunks(struct mls_tx_store *store)
{
	uint64_t nr_chunks;

	pthread_mutex_lock(&store->lock);
	nr_chunks = store->nr_chunks;
	pthread_mutex_unlock(&store->lock);
	return nr_chunks;
}

uint64_t mls_tx_store_nr_free(struct mls_tx_store *store)
{
	return mls_chunk_alloc_nr_free(store->alloc);
}

int mls_tx_store_drop_edit(struct mls_tx_store *store, uint64_t id, struct mls_edit_group *group)
{
	uint8_t edit[MLS_LOG_ID_EDIT_BYTES];
	bool known;

	pthread_mutex_lock(&store->lock);
	known = mls_log_table_find(&store->table, id);
	pthread_mutex_unlock(&store->lock);
	if (!known)
		return MLS_ENOENT;
	mls_log_id_edit_encode(edit, MLS_LOG_EDIT_DELETE, id);
	return mls_edit_add(group, MLS_OWNER_LOGS, edit, sizeof edit);
}

/* ---- Transactions ---- */

int mls_tx_begin(struct mls_tx_store *store, struct mls_tx **tx)
{
	struct mls_tx *new = calloc(1, sizeof *new);
	int err;

	if (!new)
		return MLS_ENOMEM;
	new->store = store;
	err = mls_edit_group_new(&new->group);
	if (err) {
		free(new);
		return err;
	}
	*tx = new;
	return 0;
}

static void tx_free(struct mls_tx *tx)
{
	mls_edit_group_free(tx->group);
	free(tx);
}

static int tx_fail(struct mls_tx *tx, int err)
{
	if (err)
		tx->failed = true;
	return err;
}

static void writer_free(struct mls_log_writer *writer)
{
	writer->log->writer = NULL;
	writer->tx->nr_writers--;
	mls_crypto_log_builder_free(writer->builder);
	free(writer);
}

/* give_runs false: nobody knows whether a durable group names the new logs. */
static void tx_undo(struct mls_tx *tx, bool give_runs)
{
	struct mls_stored_log *log, *next;

	for (log = tx->created; log; log = next) {
		next = log->next_in_tx;
		if (log->writer)
			writer_free(log->writer);
		mls_stored_log_free(log, give_runs);
	}
	pthread_mutex_lock(&tx->store->lock);
	for (log = tx->deleted; log; log = next) {
		next = log->next_in_tx;
		log->next_in_tx = NULL;
		log->deleter = NULL;
	}
	pthread_mutex_unlock(&tx->store->lock);
	tx_free(tx);
}

void mls_tx_abort(struct mls_tx *tx)
{
	tx_undo(tx, true);
}

int mls_tx_edit(struct mls_tx *tx, enum mls_edit_owner_id owner, const void *edit, size_t bytes)
{
	MLS_INVARIANT(owner != MLS_OWNER_LOGS);
	if (tx->failed)
		return MLS_EABORTED;
	return tx_fail(tx, mls_edit_add(tx->group, owner, edit, bytes));
}

struct mls_edit_group *mls_tx_group(struct mls_tx *tx)
{
	return tx->group;
}

void mls_tx_on_commit(struct mls_tx *tx, void (*fn)(void *arg), void *arg)
{
	MLS_INVARIANT(!tx->on_commit);
	tx->on_commit = fn;
	tx->on_commit_arg = arg;
}

int mls_tx_log_delete(struct mls_tx *tx, uint64_t id)
{
	struct mls_stored_log *log;
	int err = 0;

	if (tx->failed)
		return MLS_EABORTED;
	pthread_mutex_lock(&tx->store->lock);
	log = mls_log_table_find(&tx->store->table, id);
	if (!log || log->deleter) {
		err = MLS_ENOENT;
	} else {
		log->deleter = tx;
		log->next_in_tx = tx->deleted;
		tx->deleted = log;
	}
	pthread_mutex_unlock(&tx->store->lock);
	return err;
}

/* All edits of the transaction, in their order. */
static int tx_build_group(struct mls_tx *tx, struct mls_edit_group *group)
{
	const struct mls_stored_log *log;
	int err = 0;

	for (log = tx->created; log && !err; log = log->next_in_tx)
		err = mls_stored_log_encode(log, group);
	if (!err)
		err = mls_edit_group_append(group, tx->group);
	for (log = tx->deleted; log && !err; log = log->next_in_tx) {
		uint8_t edit[MLS_LOG_ID_EDIT_BYTES];

		mls_log_id_edit_encode(edit, MLS_LOG_EDIT_DELETE, log->id);
		err = mls_edit_add(group, MLS_OWNER_LOGS, edit, sizeof edit);
	}
	return err;
}

/* Under commit_lock, so that nobody else takes the room in the table. */
static int tx_commit_group(struct mls_tx *tx, const struct mls_edit_group *group)
{
	struct mls_tx_store *store = tx->store;
	int err;

	pthread_mutex_lock(&store->lock);
	err = mls_log_table_reserve(&store->table, tx->nr_created);
	if (!err)
		store->committing = tx;
	pthread_mutex_unlock(&store->lock);
	if (err)
		return err;

	if (mls_edit_group_bytes(group) > 0)
		err = mls_journal_commit(store->journal, group);

	pthread_mutex_lock(&store->lock);
	store->committing = NULL;
	pthread_mutex_unlock(&store->lock);
	return err;
}

/* The table has the created logs now; the deleted ones are the transaction's, to let go of. */
static void tx_done(struct mls_tx *tx)
{
	struct mls_stored_log *log, *next;

	for (log = tx->deleted; log; log = next) {
		next = log->next_in_tx;
		log_put(tx->store, log, false);
	}
	tx_free(tx);
}

int mls_tx_commit(struct mls_tx *tx)
{
	struct mls_tx_store *store = tx->store;
	struct mls_edit_group *group = NULL;
	int err = 0;

	if (tx->failed)
		err = MLS_EABORTED;
	else if (tx->nr_writers > 0)
		err = MLS_EINVAL;
	if (!err)
		err = mls_edit_group_new(&group);
	if (!err)
		err = tx_build_group(tx, group);
	if (err) {
		mls_edit_group_free(group);
		mls_tx_abort(tx);
		return err;
	}

	pthread_mutex_lock(&store->commit_lock);
	err = tx_commit_group(tx, group);
	if (!err && tx->on_commit)
		tx->on_commit(tx->on_commit_arg);
	pthread_mutex_unlock(&store->commit_lock);

	mls_edit_group_free(group);
	if (err)
		tx_undo(tx, !mls_journal_poisoned(store->journal));
	else
		tx_done(tx);
	return err;
}

/* ---- Writing a log ---- */

static uint64_t take_id(struct mls_tx_store *store)
{
	uint64_t id;

	pthread_mutex_lock(&store->lock);
	id = store->next_id++;
	pthread_mutex_unlock(&store->lock);
	MLS_INVARIANT(id < LAST_ID);
	return id;
}

int mls_tx_log_create(struct mls_tx *tx, uint8_t bucket, struct mls_log_writer **writer, uint64_t *id)
{
	struct mls_tx_store *store = tx->store;
	struct mls_stored_log *log = NULL;
	struct mls_log_writer *new;
	int err;

	if (tx->failed)
		return MLS_EABORTED;
	new = calloc(1, sizeof *new);
	if (!new)
		return tx_fail(tx, MLS_ENOMEM);
	err = mls_stored_log_new(&log, store->dev, store->alloc, take_id(store), bucket);
	if (!err)
		err = mls_crypto_log_builder_new(&new->builder, &log->raw, store->keys);
	if (err) {
		if (log)
			mls_stored_log_free(log, true);
		free(new);
		return tx_fail(tx, err);
	}

	new->tx = tx;
	new->log = log;
	log->writer = new;
	log->next_in_tx = tx->created;
	tx->created = log;
	tx->nr_created++;
	tx->nr_writers++;
	*writer = new;
	*id = log->id;
	return 0;
}

int mls_log_append(struct mls_log_writer *writer, const void *blocks, uint32_t nr_blocks)
{
	if (writer->tx->failed)
		return MLS_EABORTED;
	return tx_fail(writer->tx, mls_crypto_log_append(writer->builder, blocks, nr_blocks));
}

int mls_log_finish(struct mls_log_writer *writer)
{
	struct mls_tx *tx = writer->tx;
	int err = tx->failed ? MLS_EABORTED : 0;

	if (!err)
		err = tx_fail(tx, mls_crypto_log_finish(writer->builder, &writer->log->root));
	writer_free(writer);
	return err;
}

/* ---- Reading a log ---- */

int mls_log_open(struct mls_tx_store *store, uint64_t id, struct mls_log_reader **reader)
{
	struct mls_log_reader *new = calloc(1, sizeof *new);
	struct mls_stored_log *log;
	int err = 0;

	if (!new)
		return MLS_ENOMEM;
	pthread_mutex_lock(&store->lock);
	log = mls_log_table_find(&store->table, id);
	if (!log)
		err = MLS_ENOENT;
	else if (!log->crypto)
		err = mls_crypto_log_open(&log->crypto, &log->raw, store->keys, &log->root);
	if (!err) {
		log->nr_refs++;
		log->nr_readers++;
		*new = (struct mls_log_reader){ .store = store, .log = log, .crypto = log->crypto };
	}
	pthread_mutex_unlock(&store->lock);
	if (err) {
		free(new);
		return err;
	}
	*reader = new;
	return 0;
}

int mls_log_read(struct mls_log_reader *reader, uint64_t pos, uint32_t nr_blocks, void *blocks)
{
	return mls_crypto_log_read(reader->crypto, pos, nr_blocks, blocks);
}

void mls_log_read_each(struct mls_log_want *wants, unsigned nr)
{
	struct mls_log_fetch fetches[MLS_LOG_WANTS_MAX];
	struct mls_io ios[MLS_LOG_WANTS_MAX];
	unsigned whose[MLS_LOG_WANTS_MAX], nr_ios = 0;

	MLS_INVARIANT(nr <= MLS_LOG_WANTS_MAX);
	for (unsigned i = 0; i < nr; i++) {
		struct mls_log_want *want = &wants[i];

		MLS_INVARIANT(want->reader->store == wants[0].reader->store);
		want->err = mls_crypto_log_fetch_begin(want->reader->crypto, want->pos, want->block, &fetches[nr_ios],
						       &ios[nr_ios]);
		if (!want->err)
			whose[nr_ios++] = i;
	}
	if (nr_ios == 0)
		return;
	if (mls_block_dev_readv(wants[0].reader->store->dev, ios, nr_ios))
		mls_debug("log: not all of %u blocks could be read together", nr_ios);	/* each io tells */
	for (unsigned k = 0; k < nr_ios; k++)
		wants[whose[k]].err = mls_crypto_log_fetch_end(&fetches[k], &ios[k]);
}

uint64_t mls_log_nr_blocks(const struct mls_log_reader *reader)
{
	return reader->log->root.nr_data_blocks;
}

void mls_log_close(struct mls_log_reader *reader)
{
	if (!reader)
		return;
	log_put(reader->store, reader->log, true);
	free(reader);
}
