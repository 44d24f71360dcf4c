/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tx_log.h - layer 3: many secure logs, changed all or nothing.
 *
 * Role     Logs are created, written and deleted inside transactions; upper layers attach their
 *          own edits, so that their state and the logs change together. A log is written once, in
 *          the transaction that creates it (doc/design.md 4), by one writer; read by any number.
 * Commit   The journal flushes the blocks of new logs, makes one group durable (logs created and
 *          deleted, attached edits) and applies it; then chunks of deleted logs are given back,
 *          each when its last reader has closed.
 *          Edits are applied in this order: logs created, attached edits, logs deleted.
 * Abort    Chunks of logs created are given back; nothing else has changed. Only if the journal's
 *          write or flush failed they stay taken for this session: nobody knows whether a durable
 *          group names them.
 * Errors   As the layers below; MLS_EABORTED for any call on a tx that has failed before.
 * Threads  Store: any. One tx, one log writer: one thread at a time. Commits exclude each other
 *          (store->commit_lock, held over I/O).
 */
#ifndef MLS_LOG_TX_LOG_H
#define MLS_LOG_TX_LOG_H

#include "1-crypto/crypto_log.h"
#include "2-edit/journal.h"
#include "3-log/chunk_alloc.h"

struct mls_tx_store;
struct mls_tx;
struct mls_log_writer;
struct mls_log_reader;

/*
 * Registers itself with the journal as MLS_OWNER_LOGS. All borrowed. A load marks the runs of the
 * logs in alloc, and its reset only forgets logs: reset alloc before each mls_journal_load. Readers
 * and transactions must be closed before a load and before free.
 */
MLS_MUST_CHECK int mls_tx_store_new(struct mls_tx_store **store, struct mls_block_dev *dev,
				    struct mls_chunk_alloc *alloc, const struct mls_keyring *keys,
				    struct mls_journal *journal);
void mls_tx_store_free(struct mls_tx_store *store);

MLS_MUST_CHECK int mls_tx_begin(struct mls_tx_store *store, struct mls_tx **tx);
MLS_MUST_CHECK int mls_tx_commit(struct mls_tx *tx);	/* frees tx in any case; on error: aborted */
void mls_tx_abort(struct mls_tx *tx);

/* id is known at once; the log exists for others from the commit on. bucket: caller's number. */
MLS_MUST_CHECK int mls_tx_log_create(struct mls_tx *tx, uint8_t bucket, struct mls_log_writer **writer,
				     uint64_t *id);
/* MLS_ENOSPC: no run; MLS_EINVAL: longer than 8182 runs, which is as many as its edit can name. */
MLS_MUST_CHECK int mls_log_append(struct mls_log_writer *writer, const void *blocks, uint32_t nr_blocks);
/* No more appends; must be called before the commit (MLS_EINVAL there). Frees the writer in any case.
 * MLS_EINVAL: nothing was appended. An abort frees the writers that weren't finished. */
MLS_MUST_CHECK int mls_log_finish(struct mls_log_writer *writer);

/* MLS_ENOENT: no such log, or another transaction is deleting it. */
MLS_MUST_CHECK int mls_tx_log_delete(struct mls_tx *tx, uint64_t id);
MLS_MUST_CHECK int mls_tx_edit(struct mls_tx *tx, enum mls_edit_owner_id owner, const void *edit, size_t bytes);

struct mls_edit_group *mls_tx_group(struct mls_tx *tx);	/* the edits so far, to add to */

/* The edit that deletes log id, without a transaction: for mls_journal_apply_loaded. */
MLS_MUST_CHECK int mls_tx_store_drop_edit(struct mls_tx_store *store, uint64_t id,
					  struct mls_edit_group *group);

/* Runs once the group is durable and applied, before the chunks of deleted logs are given back. In the
 * order of the commits: it is called with store->commit_lock held, so must not commit. One a tx. */
void mls_tx_on_commit(struct mls_tx *tx, void (*fn)(void *arg), void *arg);

/* Readers. A log deleted meanwhile stays readable until closed. */
MLS_MUST_CHECK int mls_log_open(struct mls_tx_store *store, uint64_t id, struct mls_log_reader **reader);
MLS_MUST_CHECK int mls_log_read(struct mls_log_reader *reader, uint64_t pos, uint32_t nr_blocks, void *blocks);
/* Single blocks, of any logs of one store, in one go. Each has an error of its own, as of read. */
struct mls_log_want {
	struct mls_log_reader *reader;
	uint64_t pos;
	void *block;		/* aligned as for struct mls_io */
	int err;		/* out */
};
#define MLS_LOG_WANTS_MAX 64u
void mls_log_read_each(struct mls_log_want *wants, unsigned nr);

uint64_t mls_log_nr_blocks(const struct mls_log_reader *reader);	/* of data */
void mls_log_close(struct mls_log_reader *reader);

struct mls_log_info {
	uint64_t id, nr_data_blocks;
	const uint64_t *chunk_hbas;
	uint32_t nr_chunks;
	uint8_t bucket;
};
/* Every committed log (of one bucket; bucket < 0: all), in order of id. fn != 0 stops and is returned.
 * fn must not call the store. */
int mls_tx_store_list(struct mls_tx_store *store, int bucket,
		      int (*fn)(void *arg, const struct mls_log_info *info), void *arg);

/* Runs of committed logs, and of deleted ones that are still read. */
uint64_t mls_tx_store_nr_chunks(struct mls_tx_store *store);
/* Runs that nobody has: a log may take them all. */
uint64_t mls_tx_store_nr_free(struct mls_tx_store *store);

#endif
