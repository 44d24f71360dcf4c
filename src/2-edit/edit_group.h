/* SPDX-License-Identifier: MPL-2.0 */
/*
 * edit_group.h - layer 2: edits that go together, as bytes.
 *
 * Role     What journal.h promises of a group, and for the journal and the layers above the walk
 *          through one. The bytes of a group in memory are those on BACKING: for each edit a
 *          struct mls_edit_hdr_disk and the edit, without gaps.
 * Errors   MLS_ENOMEM. The walk: MLS_EFORMAT for bytes that are no edits.
 * Threads  One at a time per group.
 */
#ifndef MLS_EDIT_EDIT_GROUP_H
#define MLS_EDIT_EDIT_GROUP_H

#include "2-edit/journal.h"

#define MLS_EDIT_BYTES_MAX 65535u

/* All edits of from behind those of group. On error group is unchanged. */
MLS_MUST_CHECK int mls_edit_group_append(struct mls_edit_group *group, const struct mls_edit_group *from);
const uint8_t *mls_edit_group_data(const struct mls_edit_group *group);

struct mls_edit {
	enum mls_edit_owner_id owner;
	const uint8_t *data;		/* within the group's bytes */
	size_t bytes;
};

/*
 * Take the next edit from *at, *left bytes long, and move both behind it.
 * Returns 0; MLS_ENOENT: *left is 0; MLS_EFORMAT: cut short, or an owner that doesn't exist.
 */
MLS_MUST_CHECK int mls_edit_next(const uint8_t **at, size_t *left, struct mls_edit *edit);

#endif
