/* SPDX-License-Identifier: MPL-2.0 */
/*
 * journal_reader.h - layer 2: one journal area from its snapshot to its last whole commit.
 *
 * Role     Reads groups and checks that each may follow the one before. Applies nothing.
 * Threads  One at a time.
 */
#ifndef MLS_EDIT_JOURNAL_READER_H
#define MLS_EDIT_JOURNAL_READER_H

#include "0-bio/block_ring.h"
#include "1-crypto/crypto_chain.h"
#include "2-edit/journal.h"

#define MLS_JOURNAL_LABEL "journal"

struct mls_journal_group {
	struct mls_journal_info info;	/* the group's session, commit and ordinal */
	bool snapshot;
	const uint8_t *edits;		/* valid until the next call */
	size_t edit_bytes;
};

struct mls_journal_reader;

/* ring is the area; ring and keys are borrowed. */
MLS_MUST_CHECK int mls_journal_reader_new(struct mls_journal_reader **reader, const struct mls_block_ring *ring,
					  const struct mls_keyring *keys);
void mls_journal_reader_free(struct mls_journal_reader *reader);

/*
 * The next whole group; the first one is the snapshot.
 * Returns 0; MLS_ENOENT: no further one; MLS_EFORMAT: authentic, but not what may follow here;
 * MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_journal_reader_next(struct mls_journal_reader *reader, struct mls_journal_group *group);

#endif
