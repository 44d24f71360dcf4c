/* SPDX-License-Identifier: MPL-2.0 */
/*
 * move.h - layer 5: blocks get new places.
 *
 * Role     Seals blocks that were read and opened into the cleaner's stream, as ordinary writes of the current epoch, and
 *          puts each into the index if the version it was made from is still the newest. So a move never brings
 *          old data back, and a crash undoes it as a whole.
 * Threads  Any. May wait for a segment buffer, for flush and compaction, and for the sync that is running.
 */
#ifndef MLS_DISK_MOVE_H
#define MLS_DISK_MOVE_H

#include <stdatomic.h>

#include "5-disk/segment.h"

#define MLS_MOVES_MAX 256u

struct mls_disk;

struct mls_move {
	uint64_t lba;
	uint64_t old;			/* where it lies: the record's "hba", as it was looked up */
	const void *plain;
	struct mls_write_order order;
};

/*
 * Up to MLS_MOVES_MAX of them, in ascending LBA. view: mls_lsm_view of before they were looked up. moved counts those
 * that were put. Returns 0; MLS_ENOSPC: no run; or what the device, the crypto library, the index answered. What was
 * moved before an error stays moved.
 */
MLS_MUST_CHECK int mls_move_blocks(struct mls_disk *disk, const struct mls_move *moves, uint32_t nr, uint64_t view,
				   atomic_uint_fast64_t *moved);

#endif
