/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cleaner.h - layer 5: gives the space of dead blocks back.
 *
 * Role     Keeps some runs free: picks the segments with the fewest live blocks, moves what is
 *          current out of them as ordinary writes, and frees them after the next sync. When that
 *          isn't enough it has the index compacted (dead blocks become known) and syncs early.
 * Pauses   When nobody writes, it makes room for the next burst and has what is scanned gathered (defrag.h).
 * Idle     When nobody has for seconds, it finds out what the discards of before have freed, closes up segments
 *          that are half empty, and gives free runs back to the host (punch.h).
 * Reserve  User data may not take the last runs: they are for moves, and the very last for the
 *          index, so that cleaning can always go on.
 * Threads  One that cleans, with helpers; one that syncs; or, with inline_work, whoever writes.
 * Source   doc/design.md 8 "Space".
 */
#ifndef MLS_DISK_CLEANER_H
#define MLS_DISK_CLEANER_H

#include <stdbool.h>

#include "mlsdisk/mlsdisk.h"

struct mls_disk;
struct mls_cleaner;

/* Sets the allocator's reserves; starts the thread unless inline_work. */
MLS_MUST_CHECK int mls_cleaner_new(struct mls_cleaner **cleaner, struct mls_disk *disk);
void mls_cleaner_free(struct mls_cleaner *cleaner);

/* Before nr blocks are written: wakes the cleaner and slows the writer down as space gets short. */
void mls_cleaner_pace(struct mls_cleaner *cleaner, uint32_t nr_blocks);

/* A writer found no run. Waits until there may be one again; MLS_ENOSPC: there won't be, as a round that began after
 * he came has found out. since: 0 when he comes, and his until he has it or gives up. */
MLS_MUST_CHECK int mls_cleaner_wait(struct mls_cleaner *cleaner, uint64_t *since);

/* Is there so much room that moves which nobody needs may have some? Never under the strict policy. */
bool mls_cleaner_has_plenty(struct mls_cleaner *cleaner);

/* There are more runs now. */
void mls_cleaner_resized(struct mls_cleaner *cleaner);

/* A user syncs. Under the strict policy nothing but his syncs frees what was cleaned, so the cleaner first sees to it
 * that this one frees as much as will be written until the next. */
void mls_cleaner_before_sync(struct mls_cleaner *cleaner);

/* A user's sync is complete: runs may have become free. */
void mls_cleaner_synced(struct mls_cleaner *cleaner);

#endif
