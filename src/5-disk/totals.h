/* SPDX-License-Identifier: MPL-2.0 */
/*
 * totals.h - layer 5: what was done to a disk since it was formatted.
 *
 * Role     Counters that outlive sessions. The journal keeps them: each index transaction, each snapshot,
 *          and a clean close write them down. A crash loses what came since the last of these; nothing
 *          depends on them.
 * Order    A number here is a place in the edit: new ones come at the end.
 * Source   doc/format.md "Edits".
 */
#ifndef MLS_DISK_TOTALS_H
#define MLS_DISK_TOTALS_H

#include "base/endian.h"
#include "format/mlsdisk_format.h"

#define MLS_TOTALS(X)                                                                                          \
	X(SESSIONS, "sessions")				/* opened for writing */                                \
	X(READ_BYTES, "read_bytes")			/* by users */                                          \
	X(WRITTEN_BYTES, "written_bytes")                                                                      \
	X(DISCARDED_BLOCKS, "discarded_blocks")		/* that were mapped */                                  \
	X(DEV_READ_BLOCKS, "device_read_blocks")	/* of BACKING */                                        \
	X(DEV_WRITTEN_BLOCKS, "device_written_blocks")                                                         \
	X(DEV_DISCARDED_BLOCKS, "device_discarded_blocks")                                                     \
	X(DEV_FLUSHES, "device_flushes")                                                                       \
	X(SYNC_ROUNDS, "sync_rounds")                                                                          \
	X(EARLY_SYNCS, "early_syncs")                                                                          \
	X(CLEANED_SEGMENTS, "cleaned_segments")                                                                \
	X(MOVED_BLOCKS, "moved_blocks")			/* by the cleaner */

enum mls_total {
#define MLS_TOTAL_ENUM(id, name) MLS_TOTAL_##id,
	MLS_TOTALS(MLS_TOTAL_ENUM)
#undef MLS_TOTAL_ENUM
	MLS_NR_TOTALS_KNOWN
};
_Static_assert(MLS_NR_TOTALS_KNOWN <= MLS_NR_TOTALS, "totals fit into their edit");

struct mls_totals {
	uint64_t at[MLS_NR_TOTALS];
};

const char *mls_total_name(enum mls_total total);

/* Blocks of BACKING written (read) for each block written (read) by users; 0: nothing was. */
double mls_totals_write_amplification(const struct mls_totals *totals);
double mls_totals_read_amplification(const struct mls_totals *totals);

void mls_totals_encode(struct mls_totals_disk *edit, const struct mls_totals *totals);
void mls_totals_decode(struct mls_totals *totals, const struct mls_totals_disk *edit);

#endif
