/* SPDX-License-Identifier: MPL-2.0 */
/*
 * repair.c - what can be put right, from what authenticates.
 *
 * Order: superblock first, since the disk is opened by it; then one opening for writing. A crash in
 * between leaves the disk as it was or as it will be: the superblock is written copy by copy, the state
 * changes with the snapshot that begins the session.
 */
#include "check/repair.h"

#include "2-edit/edit_group.h"
#include "3-log/stored_log.h"
#include "5-disk/disk.h"

int mls_repair_superblock(struct mls_inspect *x)
{
	struct mls_superblock sb = x->sb;

	/* The copy that counts is overwritten last. */
	sb.good_copy = x->copies[1].state == MLS_COPY_AUTHENTIC && x->copies[1].sb.generation == sb.generation;
	return mls_superblock_write(x->dev, x->keys, &sb);
}

int mls_repair_store(const struct mls_inspect *x, struct mls_trusted_store *store)
{
	return x->has_trust ? store->ops->advance(store, &x->trust) : MLS_EINVAL;
}

static int amend_counts(const struct mls_inspect *x, struct mls_edit_group *group)
{
	int err = 0;

	for (uint64_t run = 0; run < x->nr_runs && !err; run++) {
		const struct mls_inspect_run *entry = &x->runs[run];
		int64_t delta = (int64_t)entry->live_sst - entry->noted_live;
		struct mls_seg_add_disk edit = { .type = MLS_SEG_EDIT_ADD };

		if (entry->kind != MLS_RUN_SEGMENT || delta == 0)
			continue;
		mls_put_le32(edit.delta, (uint32_t)(int32_t)delta);
		mls_put_le64(edit.run, run);
		mls_put_le64(edit.birth, entry->birth);
		mls_put_le32(edit.key_id, entry->key_id);
		err = mls_edit_add(group, MLS_OWNER_SEGMENTS, &edit, sizeof edit);
	}
	return err;
}

static int amend_logs(const struct mls_inspect *x, struct mls_edit_group *group)
{
	uint8_t edit[MLS_LOG_ID_EDIT_BYTES];
	int err = 0;

	for (size_t i = 0; i < x->nr_logs && !err; i++) {
		if (x->logs[i].table)
			continue;
		mls_log_id_edit_encode(edit, MLS_LOG_EDIT_DELETE, x->logs[i].id);
		err = mls_edit_add(group, MLS_OWNER_LOGS, edit, sizeof edit);
	}
	return err;
}

int mls_repair_state(struct mls_inspect *x, struct mls_trusted_store *store, const struct mls_secret *secret)
{
	const struct mls_open_opts opts = { .inline_work = true };
	struct mls_edit_group *group = NULL;
	struct mls_disk *disk = NULL;
	int err;

	if (x->verdict == MLS_INSPECT_REFUSED || x->verdict == MLS_INSPECT_UNKNOWN || x->index_damaged || !x->counted)
		return MLS_EINVAL;
	err = mls_edit_group_new(&group);
	if (!err)
		err = amend_counts(x, group);
	if (!err)
		err = amend_logs(x, group);
	if (!err)
		err = mls_disk_open_amended(&disk, x->dev, store, secret, &opts, group);
	if (!err)
		err = mls_disk_close(disk);
	mls_edit_group_free(group);
	return err;
}
