/* SPDX-License-Identifier: MPL-2.0 */
/*
 * verdict.h - layer 5: is the newest sync on BACKING the one that the trusted store tells of?
 *
 * Role     The rule of doc/design.md 8, in one place, for recovery and for those who only look.
 * Threads  Any.
 */
#ifndef MLS_DISK_VERDICT_H
#define MLS_DISK_VERDICT_H

#include "4-lsm/lsm_tree.h"

enum mls_verdict {
	MLS_VERDICT_NEWEST,	/* take the newest: last, or before if there is no last */
	MLS_VERDICT_IF_WHOLE,	/* take last if its data is there, else before */
	MLS_VERDICT_OLD_SUPERBLOCK,
	MLS_VERDICT_BROKEN,	/* older than the store, since the WAL breaks off and goes on later */
	MLS_VERDICT_ROLLBACK,	/* older than the store */
	MLS_VERDICT_MISMATCH,	/* not of the history that the store tells of */
};

/*
 * trust       NULL: there is no trusted store, or it may be empty.
 * generation  of the superblock.
 * anything    the user takes what is there (--accept-rollback).
 */
enum mls_verdict mls_verdict_of(const struct mls_trust *trust, uint64_t generation, const struct mls_replay *replay,
				bool anything);

static inline const struct mls_sync_head *mls_replay_newest(const struct mls_replay *replay)
{
	return replay->has_last ? &replay->last : &replay->before;
}

/* Does a journal area that ends with info reach the journal commit that the sync names? */
bool mls_verdict_area_is_of(const struct mls_journal_info *info, const struct mls_sync_head *head);

#endif
