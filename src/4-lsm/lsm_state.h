/* SPDX-License-Identifier: MPL-2.0 */
/*
 * lsm_state.h - layer 4: what the journal keeps of the index.
 *
 * Role     The list of SSTables and the WAL's start; edits of them, in bytes and in memory; the
 *          journal's owner MLS_OWNER_LSM. Knows no files: which table is open is table_set's.
 * Memory   Applying a committed edit must not fail, so whoever commits table-add edits reserves
 *          room for them first.
 * Errors   MLS_EFORMAT: authentic edits that can't be; MLS_ENOMEM.
 * Threads  Any; takes state->lock, no I/O under it. The last of layer 4's locks.
 * Source   doc/design.md 7; struct mls_table_add_disk, struct mls_wal_start_disk.
 */
#ifndef MLS_LSM_LSM_STATE_H
#define MLS_LSM_LSM_STATE_H

#include <pthread.h>
#include <string.h>

#include "1-crypto/crypto_chain.h"
#include "4-lsm/lsm_tree.h"
#include "4-lsm/sstable.h"

#define MLS_NR_LEVELS 8u

struct mls_table_meta {
	struct mls_sst_info info;
	uint64_t age;		/* of level 0: larger is newer, each only once */
	uint64_t epoch;		/* newest in it: recovery drops the table if it wasn't accepted */
	uint8_t level;
};

/* The sync whose group ends at pos. Its tag is pos.tag. */
struct mls_wal_start {
	struct mls_chain_pos pos;
	uint64_t sync_id;
	uint8_t session[MLS_SESSION_BYTES];
	uint64_t commit;
	uint64_t generation;
};

static inline struct mls_sync_head mls_wal_start_head(const struct mls_wal_start *start)
{
	struct mls_sync_head head = { .sync_id = start->sync_id,
				      .commit = start->commit,
				      .generation = start->generation };

	memcpy(head.tag, start->pos.tag, sizeof head.tag);
	memcpy(head.session, start->session, sizeof head.session);
	return head;
}

struct mls_lsm_state {
	pthread_mutex_t lock;
	struct mls_table_meta *tables;	/* in no order */
	size_t nr_tables, cap_tables, nr_reserved;
	struct mls_wal_start wal_start;
	bool has_wal_start;
};

void mls_lsm_state_init(struct mls_lsm_state *state);
void mls_lsm_state_release(struct mls_lsm_state *state);

/* The callbacks of struct mls_edit_owner; arg is the state. */
void mls_lsm_state_reset(void *arg);
int mls_lsm_state_apply(void *arg, const uint8_t *edit, size_t bytes);
int mls_lsm_state_snapshot(void *arg, struct mls_edit_group *group);

/* nr more table-add edits can be applied without memory, until unreserve(nr). */
MLS_MUST_CHECK int mls_lsm_state_reserve(struct mls_lsm_state *state, size_t nr);
void mls_lsm_state_unreserve(struct mls_lsm_state *state, size_t nr);

/* The edits, in bytes. */
void mls_table_add_encode(struct mls_table_add_disk *edit, const struct mls_table_meta *meta);
void mls_wal_start_encode(struct mls_wal_start_disk *edit, const struct mls_wal_start *start);
#define MLS_TABLE_REMOVE_BYTES 16u
void mls_table_remove_encode(uint8_t edit[MLS_TABLE_REMOVE_BYTES], uint64_t log_id);

#endif
