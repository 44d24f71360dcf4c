/* SPDX-License-Identifier: MPL-2.0 */
/*
 * journal.c - layer 2: a state that changes atomically by small edits.
 *
 *   state      owners' state is       allowed                 becomes
 *   EMPTY      nothing                load, start             LOADED; WRITING
 *   LOADED     that of one area       load, apply_loaded,     LOADED (EMPTY if it fails); WRITING
 *                                     start
 *   WRITING    durable                commit                  POISONED once a write or flush failed
 *   POISONED   that of last_commit    nothing                 -
 *
 * Order of a commit: (snapshot to the other area, if due) - flush - group - flush - apply. The first
 * flush makes durable what the group refers to, and the snapshot that it will follow. Until then
 * the area that is left behind holds the same state, whole, so a crash at any write leaves one
 * area whose last commit is last_commit or, in the last step, the one after.
 *
 * Invariants: at every moment one area holds, durably, a snapshot and all commits up to
 * last_commit; the chain of an area never runs over its end; a failure before the first write
 * changes nothing.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "2-edit/edit_group.h"
#include "2-edit/journal.h"
#include "2-edit/journal_reader.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

#define AREA_BLOCKS_MIN 64u

/*
 * State of one used run, at most: a segment edit and the key edit of a segment that is the last
 * of its session, 76 bytes; or the edits of a log of one chunk and of its SSTable, 144 bytes, of
 * which there are few, as an index is a small part of a disk. So 128 a run is ample, twice that
 * leaves an area room for commits, and the constant for the largest group on the smallest disk.
 */
#define STATE_BYTES_PER_RUN 128u
#define STATE_BYTES_MIN 65536u

/* Commits up to this number of blocks never outweigh a snapshot. */
#define COMMIT_BLOCKS_MIN 64u

enum journal_state { JOURNAL_EMPTY, JOURNAL_LOADED, JOURNAL_WRITING, JOURNAL_POISONED };

struct mls_journal {
	struct mls_block_dev *dev;
	const struct mls_keyring *keys;
	uint64_t area_blocks;
	struct mls_block_ring areas[MLS_NR_JOURNAL_AREAS];
	struct mls_edit_owner owners[MLS_NR_OWNERS];	/* apply NULL: there is none */

	pthread_mutex_t lock;			/* of all below; held over a commit's I/O */
	unsigned active;			/* the area that was loaded or is written */
	uint64_t ordinal;			/* of its snapshot */
	uint8_t session[MLS_SESSION_BYTES];
	struct mls_chain_writer *writer;	/* of the active area; NULL until start */
	uint64_t snapshot_blocks;		/* of the active area's first group */

	/* Written under the lock, read without: a sync mustn't wait for a commit's I/O. */
	_Atomic enum journal_state state;
	_Atomic uint64_t last_commit;
};

uint64_t mls_journal_area_blocks(uint64_t nr_runs)
{
	uint64_t bytes = UINT64_MAX;

	if (nr_runs < UINT64_MAX / (4 * STATE_BYTES_PER_RUN))
		bytes = 2 * (nr_runs * STATE_BYTES_PER_RUN + STATE_BYTES_MIN);
	return mls_max_u64(mls_div_round_up(bytes, MLS_CHAIN_ROOM_BYTES), AREA_BLOCKS_MIN);
}

int mls_journal_new(struct mls_journal **journal, struct mls_block_dev *dev, const struct mls_keyring *keys,
		    uint64_t hba, uint64_t area_blocks)
{
	struct mls_journal *new;
	uint64_t second_hba;
	int err;

	if (area_blocks < 2 || !mls_add_u64(hba, area_blocks, &second_hba))
		return MLS_EINVAL;
	new = calloc(1, sizeof *new);
	if (!new)
		return MLS_ENOMEM;
	new->dev = dev;
	new->keys = keys;
	new->area_blocks = area_blocks;
	err = mls_block_ring_init(&new->areas[0], dev, hba, area_blocks);
	if (!err)
		err = mls_block_ring_init(&new->areas[1], dev, second_hba, area_blocks);
	if (err) {
		free(new);
		return err;
	}
	pthread_mutex_init(&new->lock, NULL);
	*journal = new;
	return 0;
}

void mls_journal_free(struct mls_journal *journal)
{
	if (!journal)
		return;
	mls_chain_writer_free(journal->writer);
	pthread_mutex_destroy(&journal->lock);
	free(journal);
}

void mls_journal_set_owner(struct mls_journal *journal, enum mls_edit_owner_id id,
			   const struct mls_edit_owner *owner)
{
	MLS_INVARIANT(id > 0 && id < MLS_NR_OWNERS);
	MLS_INVARIANT(owner->reset && owner->apply && owner->snapshot);
	journal->owners[id] = *owner;
}

uint64_t mls_journal_last_commit(struct mls_journal *journal)
{
	return atomic_load(&journal->last_commit);
}

bool mls_journal_poisoned(struct mls_journal *journal)
{
	return atomic_load(&journal->state) == JOURNAL_POISONED;
}

/* ---- The owners ---- */

/* From the top down: what lies above may hold on to what lies below (the index reads logs). */
static void owners_reset(struct mls_journal *journal)
{
	for (unsigned id = MLS_NR_OWNERS - 1; id > 0; id--)
		if (journal->owners[id].reset)
			journal->owners[id].reset(journal->owners[id].arg);
}

static int owners_apply(struct mls_journal *journal, const uint8_t *edits, size_t bytes)
{
	struct mls_edit edit;
	int err;

	while ((err = mls_edit_next(&edits, &bytes, &edit)) == 0) {
		const struct mls_edit_owner *owner = &journal->owners[edit.owner];

		err = owner->apply ? owner->apply(owner->arg, edit.data, edit.bytes) : MLS_EFORMAT;
		if (err)
			return err;
	}
	return err == MLS_ENOENT ? 0 : err;
}

static int owners_snapshot(struct mls_journal *journal, struct mls_edit_group *group)
{
	int err = 0;

	for (unsigned id = 1; id < MLS_NR_OWNERS && !err; id++)
		if (journal->owners[id].snapshot)
			err = journal->owners[id].snapshot(journal->owners[id].arg, group);
	return err;
}

/* ---- Reading ---- */

/* The area's first group: is there a snapshot, and which? */
static int area_probe(struct mls_journal *journal, unsigned area, struct mls_journal_info *info)
{
	struct mls_journal_reader *reader = NULL;
	struct mls_journal_group group;
	int err;

	err = mls_journal_reader_new(&reader, &journal->areas[area], journal->keys);
	if (err)
		return err;
	err = mls_journal_reader_next(reader, &group);
	if (!err)
		*info = group.info;
	mls_journal_reader_free(reader);
	return err;
}

int mls_journal_candidates(struct mls_journal *journal, unsigned areas[MLS_NR_JOURNAL_AREAS], unsigned *nr)
{
	struct mls_journal_info info[MLS_NR_JOURNAL_AREAS];
	bool listed[MLS_NR_JOURNAL_AREAS];
	unsigned first = 0, count = 0;

	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS; area++) {
		int err = area_probe(journal, area, &info[area]);

		if (err && err != MLS_ENOENT && err != MLS_EFORMAT && err != MLS_EIO)
			return err;
		if (err == MLS_EIO)
			info[area].ordinal = 0;		/* last, so that its load tells of the error */
		listed[area] = err == 0 || err == MLS_EIO;
	}

	if (listed[0] && listed[1] && info[1].ordinal > info[0].ordinal)
		first = 1;
	for (unsigned i = 0; i < MLS_NR_JOURNAL_AREAS; i++) {
		unsigned area = (first + i) % MLS_NR_JOURNAL_AREAS;

		if (listed[area])
			areas[count++] = area;
	}
	*nr = count;
	return 0;
}

static int area_load(struct mls_journal *journal, unsigned area, struct mls_journal_info *info)
{
	struct mls_journal_reader *reader = NULL;
	struct mls_journal_group group;
	bool any = false;
	int err;

	err = mls_journal_reader_new(&reader, &journal->areas[area], journal->keys);
	if (err)
		return err;
	while ((err = mls_journal_reader_next(reader, &group)) == 0) {
		err = owners_apply(journal, group.edits, group.edit_bytes);
		if (err) {
			mls_error("journal: area %u: commit %llu: edit refused: %s", area,
				  (unsigned long long)group.info.commit, mls_strerror(err));
			break;
		}
		*info = group.info;
		any = true;
	}
	mls_journal_reader_free(reader);
	return err == MLS_ENOENT && any ? 0 : err;
}

int mls_journal_load(struct mls_journal *journal, unsigned area, struct mls_journal_info *info)
{
	struct mls_journal_info loaded = { .commit = 0 };
	int err;

	MLS_INVARIANT(area < MLS_NR_JOURNAL_AREAS);
	pthread_mutex_lock(&journal->lock);
	MLS_INVARIANT(journal->state == JOURNAL_EMPTY || journal->state == JOURNAL_LOADED);

	owners_reset(journal);
	err = area_load(journal, area, &loaded);
	if (err) {
		owners_reset(journal);
		atomic_store(&journal->state, JOURNAL_EMPTY);
	} else {
		atomic_store(&journal->state, JOURNAL_LOADED);
		journal->active = area;
		journal->ordinal = loaded.ordinal;
		*info = loaded;
	}
	pthread_mutex_unlock(&journal->lock);
	return err;
}

int mls_journal_apply_loaded(struct mls_journal *journal, const struct mls_edit_group *group)
{
	int err;

	pthread_mutex_lock(&journal->lock);
	MLS_INVARIANT(journal->state == JOURNAL_LOADED);
	err = owners_apply(journal, mls_edit_group_data(group), mls_edit_group_bytes(group));
	pthread_mutex_unlock(&journal->lock);
	return err;
}

/* ---- Writing ---- */

static int poison(struct mls_journal *journal, const char *step, int err)
{
	mls_error("journal: area %u, after commit %llu: %s failed: %s; no more commits until reopened",
		  journal->active, (unsigned long long)journal->last_commit, step, mls_strerror(err));
	atomic_store(&journal->state, JOURNAL_POISONED);
	return err;
}

static int flush(struct mls_journal *journal)
{
	int err = mls_block_dev_flush(journal->dev);

	return err ? poison(journal, "flush", err) : 0;
}

static unsigned other_area(const struct mls_journal *journal)
{
	return (journal->active + 1) % MLS_NR_JOURNAL_AREAS;
}

static uint64_t group_blocks(const struct mls_edit_group *group)
{
	return mls_chain_blocks(sizeof(struct mls_journal_hdr_disk) + mls_edit_group_bytes(group));
}

static int put_group(struct mls_journal *journal, const struct mls_edit_group *group, uint64_t commit,
		     uint8_t kind)
{
	struct mls_journal_hdr_disk hdr = { .kind = kind };
	int err;

	memcpy(hdr.session, journal->session, sizeof hdr.session);
	mls_put_le64(hdr.commit, commit);
	mls_put_le64(hdr.ordinal, journal->ordinal);

	err = mls_chain_begin(journal->writer);
	if (!err)
		err = mls_chain_put(journal->writer, &hdr, sizeof hdr);
	if (!err && mls_edit_group_bytes(group) > 0)
		err = mls_chain_put(journal->writer, mls_edit_group_data(group), mls_edit_group_bytes(group));
	if (!err)
		err = mls_chain_end(journal->writer);
	return err ? poison(journal, kind == MLS_JOURNAL_SNAPSHOT ? "snapshot" : "commit", err) : 0;
}

/*
 * Write the state of last_commit to the area and go on there. Not flushed.
 *
 * room_blocks  what must fit behind the snapshot.
 * Returns      0; MLS_ENOSPC, MLS_ENOMEM or an owner's error: nothing was written, nothing has
 *              changed; else poisoned.
 */
static int write_snapshot(struct mls_journal *journal, unsigned area, uint64_t ordinal, uint64_t room_blocks)
{
	const struct mls_chain_pos birth = { 0 };
	struct mls_chain_writer *writer = NULL;
	struct mls_edit_group *group = NULL;
	int err;

	err = mls_edit_group_new(&group);
	if (err)
		return err;
	err = owners_snapshot(journal, group);
	if (err)
		goto out;
	if (group_blocks(group) > journal->area_blocks - room_blocks) {
		mls_error("journal: snapshot of %llu blocks leaves no room for %llu in an area of %llu",
			  (unsigned long long)group_blocks(group), (unsigned long long)room_blocks,
			  (unsigned long long)journal->area_blocks);
		err = MLS_ENOSPC;
		goto out;
	}
	err = mls_chain_writer_new(&writer, &journal->areas[area], journal->keys, MLS_JOURNAL_LABEL, &birth);
	if (err)
		goto out;

	mls_chain_writer_free(journal->writer);
	journal->writer = writer;
	journal->active = area;
	journal->ordinal = ordinal;
	journal->snapshot_blocks = group_blocks(group);
	err = put_group(journal, group, journal->last_commit, MLS_JOURNAL_SNAPSHOT);
out:
	mls_edit_group_free(group);
	return err;
}

int mls_journal_start(struct mls_journal *journal, const uint8_t session[MLS_SESSION_BYTES])
{
	unsigned area = 0;
	uint64_t ordinal = 0;
	int err;

	pthread_mutex_lock(&journal->lock);
	MLS_INVARIANT(journal->state == JOURNAL_EMPTY || journal->state == JOURNAL_LOADED);
	if (journal->state == JOURNAL_LOADED) {
		area = other_area(journal);
		ordinal = journal->ordinal + 1;
	}
	memcpy(journal->session, session, MLS_SESSION_BYTES);
	err = write_snapshot(journal, area, ordinal, 0);
	if (!err)
		err = flush(journal);
	if (!err)
		atomic_store(&journal->state, JOURNAL_WRITING);
	pthread_mutex_unlock(&journal->lock);
	return err;
}

/* Is the area full for another nr_blocks, or do its commits outweigh the snapshot? Recovery reads
 * all of an area, so the latter bounds its time by the size of the state. */
static bool snapshot_due(const struct mls_journal *journal, uint64_t nr_blocks)
{
	uint64_t end = mls_chain_writer_pos(journal->writer)->seq;
	uint64_t commit_blocks = end - journal->snapshot_blocks;

	return nr_blocks > journal->area_blocks - end ||
	       commit_blocks > mls_max_u64(COMMIT_BLOCKS_MIN, 2 * journal->snapshot_blocks);
}

static int commit_locked(struct mls_journal *journal, const struct mls_edit_group *group)
{
	uint64_t commit = journal->last_commit + 1;
	uint64_t nr_blocks = group_blocks(group);
	int err;

	if (journal->state != JOURNAL_WRITING)
		return journal->state == JOURNAL_POISONED ? MLS_EPOISONED : MLS_EROFS;
	if (nr_blocks >= journal->area_blocks)
		return MLS_ENOSPC;

	if (snapshot_due(journal, nr_blocks)) {
		err = write_snapshot(journal, other_area(journal), journal->ordinal + 1, nr_blocks);
		if (err)
			return err;
	}
	err = flush(journal);
	if (err)
		return err;
	MLS_INVARIANT(nr_blocks <= journal->area_blocks - mls_chain_writer_pos(journal->writer)->seq);
	err = put_group(journal, group, commit, 0);
	if (err)
		return err;
	err = flush(journal);
	if (err)
		return err;

	/* The owners made these edits themselves; but from a state that was loaded, and may be one that can't be. */
	err = owners_apply(journal, mls_edit_group_data(group), mls_edit_group_bytes(group));
	if (err) {
		journal->state = JOURNAL_POISONED;
		mls_error("journal: commit %llu: edit refused: %s", (unsigned long long)commit, mls_strerror(err));
		return err;
	}
	atomic_store(&journal->last_commit, commit);
	return 0;
}

int mls_journal_commit(struct mls_journal *journal, const struct mls_edit_group *group)
{
	int err;

	pthread_mutex_lock(&journal->lock);
	err = commit_locked(journal, group);
	pthread_mutex_unlock(&journal->lock);
	return err;
}
