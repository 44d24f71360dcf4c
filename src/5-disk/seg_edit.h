/* SPDX-License-Identifier: MPL-2.0 */
/*
 * seg_edit.h - layer 5: the segments' edits, from bytes.
 *
 * Role     The one decoder, for the segment table and for those who only look. Announcements in the WAL
 *          are the same edits, packed: their length follows from their type.
 */
#ifndef MLS_DISK_SEG_EDIT_H
#define MLS_DISK_SEG_EDIT_H

#include "base/endian.h"
#include "format/mlsdisk_format.h"

struct mls_seg_edit {
	uint8_t type;			/* MLS_SEG_EDIT_... */
	int32_t delta;			/* ADD */
	uint64_t run;			/* ADD, FREE */
	uint64_t birth;			/* ADD, FREE; NEXT_BIRTH: births below were given */
	uint32_t key_id;		/* ADD, KEY */
	const uint8_t *salt;		/* KEY: 32 bytes within the edit */
	const struct mls_totals_disk *totals;	/* TOTALS: the edit */
};

#define MLS_SEG_NEXT_BIRTH_BYTES 16u

/* The length of an edit of this type; 0: unknown. */
static inline size_t mls_seg_edit_bytes(uint8_t type)
{
	switch (type) {
	case MLS_SEG_EDIT_ADD:
	case MLS_SEG_EDIT_FREE:
		return sizeof(struct mls_seg_add_disk);
	case MLS_SEG_EDIT_KEY:
		return sizeof(struct mls_seg_key_disk);
	case MLS_SEG_EDIT_NEXT_BIRTH:
		return MLS_SEG_NEXT_BIRTH_BYTES;
	case MLS_SEG_EDIT_TOTALS:
		return sizeof(struct mls_totals_disk);
	default:
		return 0;
	}
}

/* MLS_EFORMAT: unknown, or not of this length. Numbers aren't checked. */
MLS_MUST_CHECK static inline int mls_seg_edit_decode(struct mls_seg_edit *edit, const uint8_t *bytes, size_t nr_bytes)
{
	const struct mls_seg_add_disk *add = (const void *)bytes;
	const struct mls_seg_key_disk *key = (const void *)bytes;

	if (nr_bytes == 0 || nr_bytes != mls_seg_edit_bytes(bytes[0]))
		return MLS_EFORMAT;
	*edit = (struct mls_seg_edit){ .type = bytes[0] };
	if (edit->type == MLS_SEG_EDIT_KEY) {
		edit->key_id = mls_get_le32(key->key_id);
		edit->salt = key->salt;
	} else if (edit->type == MLS_SEG_EDIT_NEXT_BIRTH) {
		edit->birth = mls_get_le64(bytes + 8);
	} else if (edit->type == MLS_SEG_EDIT_TOTALS) {
		edit->totals = (const void *)bytes;
	} else {
		edit->delta = (int32_t)mls_get_le32(add->delta);
		edit->run = mls_get_le64(add->run);
		edit->birth = mls_get_le64(add->birth);
		edit->key_id = mls_get_le32(add->key_id);
	}
	return 0;
}

#endif
