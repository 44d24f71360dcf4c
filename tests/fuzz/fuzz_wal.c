/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_wal.c - the bytes of a WAL group, and the announcements in it as the segment table takes them.
 */
#include <string.h>

#include "4-lsm/wal.h"
#include "base/endian.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t tag[MLS_TAG_BYTES] = { 1 };
	static struct fuzz_stack stack;
	struct mls_wal_group group = MLS_WAL_GROUP_INIT;

	(void)fuzz_keys();
	if (mls_wal_group_decode(&group, data, size, tag) != 0)
		return 0;
	fuzz_stack_init(&stack, true);
	mls_chunk_alloc_reset(stack.disk.alloc);
	(void)!mls_segment_table_announced(stack.disk.table, group.announce, group.announce_bytes);
	fuzz_stack_release(&stack);
	mls_wal_group_release(&group);
	return 0;
}

/* A header, a key, a segment that is opened, one that ends, two records. */
size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	struct mls_wal_group_hdr_disk *hdr = (void *)out;
	struct mls_seg_key_disk *key = (void *)(out + sizeof *hdr);
	struct mls_seg_add_disk *add = (void *)(key + 1);
	size_t nr = i % 2 ? 2 : 0, announce = i < 2 ? sizeof *key + 2 * sizeof *add : 0;

	if (i >= 4)
		return 0;
	memset(out, 0, room < 1024 ? room : 1024);
	mls_put_le64(hdr->sync_id, 1);
	mls_put_le64(hdr->nr_records, nr);
	mls_put_le32(hdr->announce_bytes, (uint32_t)announce);
	hdr->flags = (uint8_t)i;
	if (announce) {
		key->type = MLS_SEG_EDIT_KEY;
		mls_put_le32(key->key_id, 1);
		for (unsigned k = 0; k < 2; k++) {
			add[k].type = k ? MLS_SEG_EDIT_FREE : MLS_SEG_EDIT_ADD;
			mls_put_le64(add[k].run, 3);
			mls_put_le64(add[k].birth, 1);
			mls_put_le32(add[k].key_id, 1);
		}
	}
	return sizeof *hdr + announce + nr * sizeof(struct mls_index_rec_disk);
}
