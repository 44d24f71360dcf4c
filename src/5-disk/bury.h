/* SPDX-License-Identifier: MPL-2.0 */
/*
 * bury.h - layer 5: discards of large ranges, which return at once.
 *
 * Role     A discard is a tombstone in the index for each mapped block. That takes a while for some GiB, so
 *          large ranges are noted in memory and buried by a thread. A block of a noted range reads as
 *          zeros; whoever writes to one buries it himself before; a sync, whoever asked for it, buries all that
 *          was discarded before its cut. So nobody can tell the difference, and nothing is stored: what a crash
 *          leaves is the state of one moment, as for any discard.
 * Space    Tombstones take some, and a sync can't wait for it. So a range is noted only if what its tombstones
 *          may take is free, and is held back from users and the cleaner; what else there is of it is
 *          buried before the discard returns.
 * Threads  Any. Locks: work (held over a few blocks' lookup and put), then what the index takes; table,
 *          then the segment table's and the allocator's. The cleaner takes neither, unless it syncs.
 * Source   doc/design.md 8 "Discard".
 */
#ifndef MLS_DISK_BURY_H
#define MLS_DISK_BURY_H

#include "mlsdisk/mlsdisk.h"

struct mls_burier;
struct mls_index_rec;

/* Starts the thread unless inline_work; then a range is buried by whoever comes to it: a sync, a writer. */
MLS_MUST_CHECK int mls_burier_new(struct mls_burier **burier, struct mls_disk *disk);
void mls_burier_free(struct mls_burier *burier);	/* NULL is fine. What is noted is forgotten. */

/* Discard the blocks [lba, end). */
MLS_MUST_CHECK int mls_bury(struct mls_burier *burier, uint64_t lba, uint64_t end);

/* Before nr blocks from lba on are written or read to be changed. */
MLS_MUST_CHECK int mls_bury_before_write(struct mls_burier *burier, uint64_t lba, uint64_t nr);

/* Everything that was noted before. Also before a writer is told that there's no space. Waits for space. */
MLS_MUST_CHECK int mls_bury_all(struct mls_burier *burier);

/*
 * Before a sync's cut: everything; and until mls_bury_cut_made, which comes next if this returned 0, nothing is noted.
 * Doesn't wait for space: MLS_ENOSPC, though it was held, if a host is full that promised nothing.
 */
MLS_MUST_CHECK int mls_bury_before_cut(struct mls_burier *burier);
void mls_bury_cut_made(struct mls_burier *burier);

/* The end of the noted range that lba is in; lba: it's in none. A reader asks before the index. */
uint64_t mls_buried_until(struct mls_burier *burier, uint64_t lba);
/* In [lba, end): the first block of a noted range; end: none. */
uint64_t mls_buried_from(struct mls_burier *burier, uint64_t lba, uint64_t end);

uint64_t mls_bury_pending(struct mls_burier *burier);	/* blocks of noted ranges, mapped or not */

#endif
