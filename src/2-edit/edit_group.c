/* SPDX-License-Identifier: MPL-2.0 */
/*
 * edit_group.c - layer 2: edits that go together, as bytes.
 *
 * A growing buffer, doubled when it's full. A snapshot of a full disk of 16 TiB is some 100 MiB:
 * held once, while it's written.
 */
#include <stdlib.h>
#include <string.h>

#include "2-edit/edit_group.h"
#include "base/endian.h"
#include "base/err.h"
#include "format/mlsdisk_format.h"

#define CAP_BYTES_MIN 256u

struct mls_edit_group {
	uint8_t *bytes;
	size_t nr_bytes, cap_bytes;
};

int mls_edit_group_new(struct mls_edit_group **group)
{
	struct mls_edit_group *new = calloc(1, sizeof *new);

	if (!new)
		return MLS_ENOMEM;
	*group = new;
	return 0;
}

void mls_edit_group_free(struct mls_edit_group *group)
{
	if (!group)
		return;
	free(group->bytes);
	free(group);
}

size_t mls_edit_group_bytes(const struct mls_edit_group *group)
{
	return group->nr_bytes;
}

const uint8_t *mls_edit_group_data(const struct mls_edit_group *group)
{
	return group->bytes;
}

static int group_reserve(struct mls_edit_group *group, size_t more)
{
	size_t cap = group->cap_bytes ? group->cap_bytes : CAP_BYTES_MIN;
	uint8_t *bytes;

	if (more > SIZE_MAX / 4 - group->nr_bytes)
		return MLS_ENOMEM;
	while (cap < group->nr_bytes + more)
		cap *= 2;
	if (cap == group->cap_bytes)
		return 0;
	bytes = realloc(group->bytes, cap);
	if (!bytes)
		return MLS_ENOMEM;
	group->bytes = bytes;
	group->cap_bytes = cap;
	return 0;
}

int mls_edit_add(struct mls_edit_group *group, enum mls_edit_owner_id owner, const void *edit, size_t bytes)
{
	struct mls_edit_hdr_disk hdr = { .owner = (uint8_t)owner };
	int err;

	MLS_INVARIANT(owner > 0 && owner < MLS_NR_OWNERS);
	MLS_INVARIANT(bytes > 0 && bytes <= MLS_EDIT_BYTES_MAX);

	err = group_reserve(group, sizeof hdr + bytes);
	if (err)
		return err;
	mls_put_le16(hdr.bytes, (uint16_t)bytes);
	memcpy(group->bytes + group->nr_bytes, &hdr, sizeof hdr);
	memcpy(group->bytes + group->nr_bytes + sizeof hdr, edit, bytes);
	group->nr_bytes += sizeof hdr + bytes;
	return 0;
}

int mls_edit_group_append(struct mls_edit_group *group, const struct mls_edit_group *from)
{
	int err;

	MLS_INVARIANT(group != from);
	if (from->nr_bytes == 0)
		return 0;
	err = group_reserve(group, from->nr_bytes);
	if (err)
		return err;
	memcpy(group->bytes + group->nr_bytes, from->bytes, from->nr_bytes);
	group->nr_bytes += from->nr_bytes;
	return 0;
}

int mls_edit_next(const uint8_t **at, size_t *left, struct mls_edit *edit)
{
	struct mls_edit_hdr_disk hdr;
	size_t bytes;

	if (*left == 0)
		return MLS_ENOENT;
	if (*left < sizeof hdr)
		return MLS_EFORMAT;
	memcpy(&hdr, *at, sizeof hdr);
	bytes = mls_get_le16(hdr.bytes);
	if (hdr.owner == 0 || hdr.owner >= MLS_NR_OWNERS || hdr.reserved != 0 || bytes == 0 ||
	    bytes > *left - sizeof hdr)
		return MLS_EFORMAT;

	edit->owner = hdr.owner;
	edit->data = *at + sizeof hdr;
	edit->bytes = bytes;
	*at += sizeof hdr + bytes;
	*left -= sizeof hdr + bytes;
	return 0;
}
