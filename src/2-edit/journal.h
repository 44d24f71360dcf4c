/* SPDX-License-Identifier: MPL-2.0 */
/*
 * journal.h - layer 2: a state that changes atomically by small edits.
 *
 * Role     Owners above (logs, lsm, segments) keep their state in memory; each change is an edit,
 *          a short byte string. A commit is a group of edits that is durable, and applied, as a
 *          whole. A snapshot is a group of edits, too: those that rebuild the state from nothing.
 * Places   Two areas; the active one is a chain: snapshot group, then commits. When an area is
 *          full, or the commits outweigh the snapshot, the next commit first writes a snapshot
 *          to the other area and flushes it. So the journal is bounded for ever.
 * Session  One open for writing; 16 random bytes. An area belongs to one session; commits are
 *          numbered in a session from 0 (its first snapshot); a snapshot has the number of the
 *          commit before it.
 * Trust    An area authenticates, but may be old. mls_journal_load gives its session and last
 *          commit; the caller compares them with what the WAL's last SYNC names.
 * Errors   A failed write or flush poisons: MLS_EPOISONED from then on, and nobody knows whether
 *          the group is durable. A failure before the first write (MLS_ENOSPC, MLS_ENOMEM) changes
 *          nothing.
 * Threads  load, start: one thread. commit: any; takes journal->lock over its I/O.
 * Source   doc/design.md 5; doc/format.md "Journal".
 */
#ifndef MLS_EDIT_JOURNAL_H
#define MLS_EDIT_JOURNAL_H

#include "0-bio/block_dev.h"
#include "1-crypto/kdf.h"

#define MLS_SESSION_BYTES 16u
#define MLS_NR_JOURNAL_AREAS 2u

enum mls_edit_owner_id { MLS_OWNER_LOGS = 1, MLS_OWNER_LSM = 2, MLS_OWNER_SEGMENTS = 3, MLS_NR_OWNERS = 4 };

struct mls_edit_group;	/* edits that go together */

/* Append one edit; copies it. bytes: 1 ... 65535. */
MLS_MUST_CHECK int mls_edit_add(struct mls_edit_group *group, enum mls_edit_owner_id owner, const void *edit,
				size_t bytes);
MLS_MUST_CHECK int mls_edit_group_new(struct mls_edit_group **group);
void mls_edit_group_free(struct mls_edit_group *group);
size_t mls_edit_group_bytes(const struct mls_edit_group *group);

struct mls_edit_owner {
	/* Forget everything: the state before the first edit. */
	void (*reset)(void *arg);
	/*
	 * Change the state by one edit. On load the bytes are authentic, but check them all the same:
	 * MLS_EFORMAT. After a commit this must not fail (the owner made the edit itself); the journal
	 * asserts it.
	 */
	int (*apply)(void *arg, const uint8_t *edit, size_t bytes);
	/* Add the edits that rebuild the state of now to group. */
	int (*snapshot)(void *arg, struct mls_edit_group *group);
	void *arg;
};

struct mls_journal_info {
	uint8_t session[MLS_SESSION_BYTES];
	uint64_t commit;	/* the last whole commit in the area */
	uint64_t ordinal;	/* of the area's snapshot: +1 with each; for "newest first" only */
};

struct mls_journal;

/* Areas lie at hba and hba + area_blocks. dev, keys borrowed. Reads nothing. */
MLS_MUST_CHECK int mls_journal_new(struct mls_journal **journal, struct mls_block_dev *dev,
				   const struct mls_keyring *keys, uint64_t hba, uint64_t area_blocks);
void mls_journal_free(struct mls_journal *journal);
void mls_journal_set_owner(struct mls_journal *journal, enum mls_edit_owner_id id,
			   const struct mls_edit_owner *owner);

/* The areas with a readable snapshot, newest first; nr 0 ... 2. Applies nothing. An area that the
 * device can't read comes last, so that its load says MLS_EIO if no other is accepted. */
MLS_MUST_CHECK int mls_journal_candidates(struct mls_journal *journal, unsigned areas[MLS_NR_JOURNAL_AREAS],
					  unsigned *nr);

/* Reset the owners and apply the area's snapshot and commits. MLS_ENOENT: no whole snapshot there;
 * MLS_EFORMAT: an authentic edit that can't be. On error the owners are reset. */
MLS_MUST_CHECK int mls_journal_load(struct mls_journal *journal, unsigned area, struct mls_journal_info *info);

/* Between load and start only: apply the group in memory, without a commit. It becomes durable with
 * the snapshot that start writes (recovery drops what wasn't accepted in this way). */
MLS_MUST_CHECK int mls_journal_apply_loaded(struct mls_journal *journal, const struct mls_edit_group *group);

/* Begin to write: snapshot of the owners' state, session and commit 0, in the area that wasn't
 * loaded last (area 0 if none was); flushed. */
MLS_MUST_CHECK int mls_journal_start(struct mls_journal *journal, const uint8_t session[MLS_SESSION_BYTES]);

/* Make the group durable (flush before, for what it refers to, and after) and apply it. Empties
 * nothing: the caller frees group. MLS_ENOSPC: group larger than an area can take; MLS_EROFS: before
 * start. Owners' apply and snapshot are called with journal->lock held. */
MLS_MUST_CHECK int mls_journal_commit(struct mls_journal *journal, const struct mls_edit_group *group);

/* Number of the last durable commit in this session: what a SYNC record names. Never waits for I/O. */
uint64_t mls_journal_last_commit(struct mls_journal *journal);

/* After a failed write or flush. Never waits for I/O. */
bool mls_journal_poisoned(struct mls_journal *journal);

/* Blocks per area for nr_runs runs, with room to grow. */
uint64_t mls_journal_area_blocks(uint64_t nr_runs);

#endif
