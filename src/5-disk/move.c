/* SPDX-License-Identifier: MPL-2.0 */
/* move.c - blocks get new places; see move.h. */
#include "5-disk/move.h"

#include "5-disk/disk.h"
#include "base/err.h"

/* The first few of them; *got: how many. */
static int move_some(struct mls_disk *disk, const struct mls_move *moves, uint32_t nr, uint64_t view, uint32_t *got,
		     size_t *moved)
{
	struct mls_index_rec recs[MLS_MOVES_MAX];
	uint64_t olds[MLS_MOVES_MAX];
	struct mls_seg_buf *buf;
	uint32_t slot;
	int err;

	*moved = 0;
	mls_backing_renew(&disk->backing);
	err = mls_seg_take(disk->writer, MLS_STREAM_CLEAN, nr, atomic_load(&disk->epoch_bound), &buf, &slot, got);
	if (err)
		return err;
	for (uint32_t i = 0; i < *got; i++) {
		int e = mls_seg_seal_moved(disk->writer, buf, slot + i, moves[i].lba, moves[i].plain, &moves[i].order,
					   &recs[i]);

		olds[i] = moves[i].old;
		err = err ? err : e;
	}
	if (!err)
		err = mls_lsm_move_each(disk->lsm, recs, olds, *got, view, moved);
	mls_seg_indexed(disk->writer, buf, *got);
	return err;
}

int mls_move_blocks(struct mls_disk *disk, const struct mls_move *moves, uint32_t nr, uint64_t view,
		    atomic_uint_fast64_t *moved)
{
	int err = 0;

	MLS_INVARIANT(nr <= MLS_MOVES_MAX);
	while (nr > 0 && !err) {
		uint32_t got;
		size_t nr_moved;

		err = move_some(disk, moves, nr, view, &got, &nr_moved);
		mls_count(moved, nr_moved);
		if (!err) {
			moves += got;
			nr -= got;
		}
	}
	return err;
}
