/* SPDX-License-Identifier: MPL-2.0 */
/*
 * punch.h - layer 5: gives free runs back to the host.
 *
 * Role     A run that is free for good may still take space on the host. It is borrowed from the
 *          allocator, so that nobody writes to it meanwhile, discarded, and returned.
 * When     A run is given to the allocator only when no state that may still be accepted needs it:
 *          it could be overwritten at once, so it can be punched as well.
 * Threads  One at a time: the cleaner's, or whoever closes the disk.
 * Source   doc/design.md 8 "Space".
 */
#ifndef MLS_DISK_PUNCH_H
#define MLS_DISK_PUNCH_H

#include "mlsdisk/mlsdisk.h"

struct mls_disk;

/* Does this disk give space back at all? */
bool mls_punch_wanted(const struct mls_disk *disk);

/*
 * One range. At least min_free runs stay free; busy: runs that will be written again soon are kept.
 * Returns how long to rest before the next one, in ns; 0: there is nothing to do.
 */
uint64_t mls_punch_step(struct mls_disk *disk, uint64_t min_free, bool busy);

/* All there is, for so many ns at most. */
void mls_punch_rest(struct mls_disk *disk, uint64_t ns);

#endif
