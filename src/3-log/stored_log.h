/* SPDX-License-Identifier: MPL-2.0 */
/*
 * stored_log.h - layer 3: one log of the store, the table of them, and the edit that creates one.
 *
 * Role     What a log is in memory: who it is, its root, its chunks. Private to tx_log.c, which has
 *          the locks and knows who owns which log.
 * Threads  None of its own.
 */
#ifndef MLS_LOG_STORED_LOG_H
#define MLS_LOG_STORED_LOG_H

#include "1-crypto/crypto_log.h"
#include "2-edit/edit_group.h"
#include "3-log/chunk_alloc.h"
#include "format/mlsdisk_format.h"

/* The edit that creates a log names all its chunks. */
#define MLS_LOG_CHUNKS_MAX ((MLS_EDIT_BYTES_MAX - sizeof(struct mls_log_create_disk)) / 8)

struct mls_stored_log {
	uint64_t id;
	uint8_t bucket;
	struct mls_log_root root;
	struct mls_block_log raw;		/* its chunks; their runs are this log's */
	struct mls_chunk_alloc *alloc;		/* borrowed */

	/* ---- tx_log.c's, under store->lock ---- */
	uint32_t nr_refs;			/* the owner (tx or table), and each reader */
	uint32_t nr_readers;
	struct mls_crypto_log *crypto;		/* shared by the readers; NULL while there is none */
	struct mls_tx *deleter;			/* the transaction that wants to delete it */
	struct mls_log_writer *writer;		/* while it is being written */
	struct mls_stored_log *next_in_tx;	/* of those a tx creates, or of those it deletes */
};

/* An empty one, to append to: raw takes its chunks from alloc. One reference. */
MLS_MUST_CHECK int mls_stored_log_new(struct mls_stored_log **log, struct mls_block_dev *dev,
				      struct mls_chunk_alloc *alloc, uint64_t id, uint8_t bucket);

/* Close it and forget it. give_runs: its runs become free, else they stay taken. */
void mls_stored_log_free(struct mls_stored_log *log, bool give_runs);

/* Add the edit that creates log. */
MLS_MUST_CHECK int mls_stored_log_encode(const struct mls_stored_log *log, struct mls_edit_group *group);

/* What the edit that creates a log says, bounds checked; runs points into the edit. */
struct mls_log_create {
	uint64_t id;
	uint8_t bucket;
	struct mls_log_root root;
	uint32_t nr_chunks;
	const uint8_t *runs;			/* nr_chunks x le64 */
};
/* MLS_EFORMAT: the edit can't be. Whether the runs exist, and are free, isn't looked at. */
MLS_MUST_CHECK int mls_log_create_decode(struct mls_log_create *create, uint32_t chunk_blocks, const uint8_t *edit,
					 size_t bytes);

/* The edits that hold an id and no more: MLS_LOG_EDIT_DELETE, MLS_LOG_EDIT_NEXT_ID. */
#define MLS_LOG_ID_EDIT_BYTES 16u		/* type, 7 reserved, le64 id */
void mls_log_id_edit_encode(uint8_t edit[MLS_LOG_ID_EDIT_BYTES], uint8_t type, uint64_t id);
MLS_MUST_CHECK int mls_log_id_edit_decode(const uint8_t *edit, size_t bytes, uint64_t *id);

/* A log from its edit; marks its runs. MLS_EFORMAT: the edit can't be, or a run has an owner. */
MLS_MUST_CHECK int mls_stored_log_decode(struct mls_stored_log **log, struct mls_block_dev *dev,
					 struct mls_chunk_alloc *alloc, const uint8_t *edit, size_t bytes);

/* Pointers to logs, ascending by id. */
struct mls_log_table {
	struct mls_stored_log **logs;
	size_t nr_logs, cap_logs;
};

void mls_log_table_release(struct mls_log_table *table);
/* Room for nr_more: inserting so many can't fail. */
MLS_MUST_CHECK int mls_log_table_reserve(struct mls_log_table *table, size_t nr_more);
void mls_log_table_insert(struct mls_log_table *table, struct mls_stored_log *log);
struct mls_stored_log *mls_log_table_find(const struct mls_log_table *table, uint64_t id);	/* NULL: none */
void mls_log_table_remove(struct mls_log_table *table, struct mls_stored_log *log);

#endif
