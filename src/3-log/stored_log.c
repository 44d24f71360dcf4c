/* SPDX-License-Identifier: MPL-2.0 */
/*
 * stored_log.c - layer 3: one log of the store, the table of them, and the edit that creates one.
 *
 * Invariants that fsck can check: a log has at least one data block; it has exactly as many chunks
 * as its data blocks and nodes take; no run is a chunk of two logs.
 */
#include <stdlib.h>
#include <string.h>

#include "3-log/stored_log.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"

/* ---- One log ---- */

static int grow_by_run(void *arg, uint64_t *hba)
{
	struct mls_stored_log *log = arg;
	uint64_t run;
	int err;

	if (log->raw.nr_chunks >= MLS_LOG_CHUNKS_MAX)
		return MLS_EINVAL;
	err = mls_chunk_alloc_take(log->alloc, MLS_RUN_INDEX, &run);
	if (!err)
		*hba = mls_chunk_alloc_hba(log->alloc, run);
	return err;
}

static uint64_t run_at(const struct mls_stored_log *log, uint32_t chunk)
{
	uint64_t run;
	uint32_t slot;
	bool known = mls_chunk_alloc_run_of(log->alloc, log->raw.chunk_hbas[chunk], &run, &slot);

	MLS_INVARIANT(known && slot == 0);	/* we made it from a run */
	return run;
}

int mls_stored_log_new(struct mls_stored_log **log, struct mls_block_dev *dev, struct mls_chunk_alloc *alloc,
		       uint64_t id, uint8_t bucket)
{
	struct mls_stored_log *new = calloc(1, sizeof *new);

	if (!new)
		return MLS_ENOMEM;
	new->id = id;
	new->bucket = bucket;
	new->alloc = alloc;
	new->nr_refs = 1;
	mls_block_log_init(&new->raw, dev, mls_chunk_alloc_run_blocks(alloc), grow_by_run, new);
	*log = new;
	return 0;
}

void mls_stored_log_free(struct mls_stored_log *log, bool give_runs)
{
	mls_crypto_log_close(log->crypto);
	for (uint32_t i = 0; give_runs && i < log->raw.nr_chunks; i++)
		mls_chunk_alloc_give(log->alloc, run_at(log, i));
	mls_block_log_release(&log->raw);
	free(log);
}

/* ---- Its edit: struct mls_log_create_disk and the runs ---- */

int mls_stored_log_encode(const struct mls_stored_log *log, struct mls_edit_group *group)
{
	size_t bytes = sizeof(struct mls_log_create_disk) + (size_t)log->raw.nr_chunks * 8;
	struct mls_log_create_disk head = { .type = MLS_LOG_EDIT_CREATE, .bucket = log->bucket };
	uint8_t *edit;
	int err;

	MLS_INVARIANT(log->raw.nr_chunks > 0 && log->raw.nr_chunks <= MLS_LOG_CHUNKS_MAX);
	edit = malloc(bytes);
	if (!edit)
		return MLS_ENOMEM;

	mls_put_le32(head.nr_chunks, log->raw.nr_chunks);
	mls_put_le64(head.id, log->id);
	mls_put_le64(head.nr_data_blocks, log->root.nr_data_blocks);
	memcpy(head.salt, log->root.salt, sizeof head.salt);
	memcpy(head.tag, log->root.tag, sizeof head.tag);
	memcpy(edit, &head, sizeof head);
	for (uint32_t i = 0; i < log->raw.nr_chunks; i++)
		mls_put_le64(edit + sizeof head + (size_t)i * 8, run_at(log, i));

	err = mls_edit_add(group, MLS_OWNER_LOGS, edit, bytes);
	free(edit);
	return err;
}

/* Do nr_data_blocks and their nodes take exactly nr_chunks chunks? */
static bool size_possible(uint64_t nr_data_blocks, uint32_t nr_chunks, uint32_t chunk_blocks)
{
	uint64_t room = (uint64_t)nr_chunks * chunk_blocks;

	return nr_data_blocks > 0 && nr_data_blocks <= room &&
	       mls_div_round_up(mls_crypto_log_total_blocks(nr_data_blocks), chunk_blocks) == nr_chunks;
}

/* Mark all runs of the edit and turn them into HBAs; on error none is marked. */
static int mark_runs(struct mls_chunk_alloc *alloc, const uint8_t *runs, uint32_t nr, uint64_t *hbas)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		uint64_t run = mls_get_le64(runs + (size_t)i * 8);
		int err = mls_chunk_alloc_mark(alloc, run);

		if (err) {
			while (i-- > 0)
				mls_chunk_alloc_give(alloc, mls_get_le64(runs + (size_t)i * 8));
			return err;
		}
		hbas[i] = mls_chunk_alloc_hba(alloc, run);
	}
	return 0;
}

int mls_log_create_decode(struct mls_log_create *create, uint32_t chunk_blocks, const uint8_t *edit, size_t bytes)
{
	struct mls_log_create_disk head;
	uint32_t nr_chunks;

	if (bytes < sizeof head)
		return MLS_EFORMAT;
	memcpy(&head, edit, sizeof head);
	nr_chunks = mls_get_le32(head.nr_chunks);
	if (head.type != MLS_LOG_EDIT_CREATE || head.reserved[0] || head.reserved[1] ||
	    nr_chunks == 0 || nr_chunks > MLS_LOG_CHUNKS_MAX ||
	    bytes != sizeof head + (size_t)nr_chunks * 8 ||
	    !size_possible(mls_get_le64(head.nr_data_blocks), nr_chunks, chunk_blocks))
		return MLS_EFORMAT;
	*create = (struct mls_log_create){ .id = mls_get_le64(head.id), .bucket = head.bucket,
					   .nr_chunks = nr_chunks, .runs = edit + sizeof head };
	create->root.nr_data_blocks = mls_get_le64(head.nr_data_blocks);
	memcpy(create->root.salt, head.salt, sizeof head.salt);
	memcpy(create->root.tag, head.tag, sizeof head.tag);
	return 0;
}

void mls_log_id_edit_encode(uint8_t edit[MLS_LOG_ID_EDIT_BYTES], uint8_t type, uint64_t id)
{
	memset(edit, 0, MLS_LOG_ID_EDIT_BYTES);
	edit[0] = type;
	mls_put_le64(edit + 8, id);
}

int mls_log_id_edit_decode(const uint8_t *edit, size_t bytes, uint64_t *id)
{
	static const uint8_t zeros[7];

	if (bytes != MLS_LOG_ID_EDIT_BYTES || memcmp(edit + 1, zeros, sizeof zeros) != 0)
		return MLS_EFORMAT;
	*id = mls_get_le64(edit + 8);
	return 0;
}

int mls_stored_log_decode(struct mls_stored_log **log, struct mls_block_dev *dev, struct mls_chunk_alloc *alloc,
			  const uint8_t *edit, size_t bytes)
{
	uint32_t chunk_blocks = mls_chunk_alloc_run_blocks(alloc);
	struct mls_log_create create;
	struct mls_stored_log *new = NULL;
	uint64_t *hbas = NULL;
	int err = mls_log_create_decode(&create, chunk_blocks, edit, bytes);

	if (!err)
		err = mls_stored_log_new(&new, dev, alloc, create.id, create.bucket);
	if (err)
		return err;
	new->root = create.root;

	err = MLS_ENOMEM;
	hbas = calloc(create.nr_chunks, sizeof *hbas);
	if (!hbas)
		goto out;
	err = mark_runs(alloc, create.runs, create.nr_chunks, hbas);
	if (err)
		goto out;
	mls_block_log_release(&new->raw);
	err = mls_block_log_init_existing(&new->raw, dev, chunk_blocks, hbas, create.nr_chunks,
					  mls_crypto_log_total_blocks(new->root.nr_data_blocks));
	if (err) {
		for (uint32_t i = 0; i < create.nr_chunks; i++)
			mls_chunk_alloc_give(alloc, mls_get_le64(create.runs + (size_t)i * 8));
		mls_block_log_init(&new->raw, dev, chunk_blocks, NULL, NULL);
		goto out;
	}
	*log = new;
	new = NULL;
out:
	if (new)
		mls_stored_log_free(new, false);
	free(hbas);
	return err;
}

/* ---- The table ---- */

void mls_log_table_release(struct mls_log_table *table)
{
	free(table->logs);
	*table = (struct mls_log_table){ 0 };
}

int mls_log_table_reserve(struct mls_log_table *table, size_t nr_more)
{
	size_t cap = mls_max_u64(table->cap_logs, 16);
	struct mls_stored_log **logs;

	while (cap < table->nr_logs + nr_more)
		cap *= 2;
	if (cap == table->cap_logs)
		return 0;
	logs = realloc(table->logs, cap * sizeof(struct mls_stored_log *));
	if (!logs)
		return MLS_ENOMEM;
	table->logs = logs;
	table->cap_logs = cap;
	return 0;
}

/* Index of the first log whose id is not less. */
static size_t lower_bound(const struct mls_log_table *table, uint64_t id)
{
	size_t low = 0, high = table->nr_logs;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (table->logs[mid]->id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void mls_log_table_insert(struct mls_log_table *table, struct mls_stored_log *log)
{
	size_t at = lower_bound(table, log->id);	/* nearly always the end: ids increase */

	MLS_INVARIANT(table->nr_logs < table->cap_logs);
	MLS_INVARIANT(at == table->nr_logs || table->logs[at]->id != log->id);
	memmove(table->logs + at + 1, table->logs + at, (table->nr_logs - at) * sizeof *table->logs);
	table->logs[at] = log;
	table->nr_logs++;
}

struct mls_stored_log *mls_log_table_find(const struct mls_log_table *table, uint64_t id)
{
	size_t at = lower_bound(table, id);

	return at < table->nr_logs && table->logs[at]->id == id ? table->logs[at] : NULL;
}

void mls_log_table_remove(struct mls_log_table *table, struct mls_stored_log *log)
{
	size_t at = lower_bound(table, log->id);

	MLS_INVARIANT(at < table->nr_logs && table->logs[at] == log);
	table->nr_logs--;
	memmove(table->logs + at, table->logs + at + 1, (table->nr_logs - at) * sizeof *table->logs);
}
