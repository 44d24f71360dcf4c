/* SPDX-License-Identifier: MPL-2.0 */
/*
 * journal_reader.c - layer 2: one journal area from its snapshot to its last whole commit.
 *
 * An area is one chain from block 0, whose first block has no predecessor. What an earlier life of
 * the area left behind the chain's end can't continue it: it carries another salt, and as its
 * predecessor's tag that of a block that isn't there any more.
 *
 * Invariants of an area: the first group is a snapshot and no other is; all groups have its
 * session and ordinal; commits count up by one from the snapshot's number.
 */
#include <stdlib.h>
#include <string.h>

#include "2-edit/journal_reader.h"
#include "base/endian.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

struct mls_journal_reader {
	struct mls_chain_reader *chain;
	uint64_t hba;				/* of the area, for messages */
	bool first_read;
	struct mls_journal_info last;		/* of the group read last */
};

int mls_journal_reader_new(struct mls_journal_reader **reader, const struct mls_block_ring *ring,
			   const struct mls_keyring *keys)
{
	const struct mls_chain_pos birth = { 0 };
	struct mls_journal_reader *new = calloc(1, sizeof *new);
	int err;

	if (!new)
		return MLS_ENOMEM;
	new->hba = ring->hba;
	err = mls_chain_reader_new(&new->chain, ring, keys, MLS_JOURNAL_LABEL, &birth);
	if (err) {
		free(new);
		return err;
	}
	*reader = new;
	return 0;
}

void mls_journal_reader_free(struct mls_journal_reader *reader)
{
	if (!reader)
		return;
	mls_chain_reader_free(reader->chain);
	free(reader);
}

static int hdr_decode(struct mls_journal_group *group, const uint8_t *bytes, size_t nr_bytes)
{
	static const uint8_t zeros[sizeof ((struct mls_journal_hdr_disk *)0)->reserved];
	struct mls_journal_hdr_disk hdr;

	if (nr_bytes < sizeof hdr)
		return MLS_EFORMAT;
	memcpy(&hdr, bytes, sizeof hdr);
	if (hdr.kind > MLS_JOURNAL_SNAPSHOT || memcmp(hdr.reserved, zeros, sizeof zeros) != 0)
		return MLS_EFORMAT;

	memcpy(group->info.session, hdr.session, MLS_SESSION_BYTES);
	group->info.commit = mls_get_le64(hdr.commit);
	group->info.ordinal = mls_get_le64(hdr.ordinal);
	group->snapshot = hdr.kind == MLS_JOURNAL_SNAPSHOT;
	group->edits = bytes + sizeof hdr;
	group->edit_bytes = nr_bytes - sizeof hdr;
	return 0;
}

static bool may_follow(const struct mls_journal_info *last, const struct mls_journal_group *group)
{
	return !group->snapshot && memcmp(group->info.session, last->session, MLS_SESSION_BYTES) == 0 &&
	       group->info.ordinal == last->ordinal && group->info.commit == last->commit + 1;
}

int mls_journal_reader_next(struct mls_journal_reader *reader, struct mls_journal_group *group)
{
	const uint8_t *bytes;
	size_t nr_bytes;
	int err;

	err = mls_chain_reader_next(reader->chain, &bytes, &nr_bytes);
	if (err)
		return err;
	err = hdr_decode(group, bytes, nr_bytes);
	if (!err && !(reader->first_read ? may_follow(&reader->last, group) : group->snapshot))
		err = MLS_EFORMAT;
	if (err) {
		mls_error("journal: area at HBA %llu: authentic group that can't be, before block %llu of it",
			  (unsigned long long)reader->hba,
			  (unsigned long long)mls_chain_reader_pos(reader->chain)->seq);
		return err;
	}
	reader->first_read = true;
	reader->last = group->info;
	return 0;
}
