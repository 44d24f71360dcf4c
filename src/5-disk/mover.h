/* SPDX-License-Identifier: MPL-2.0 */
/*
 * mover.h - layer 5: empties segments.
 *
 * Role     Of each victim: finds what is current in it, moves that into the cleaner's stream as ordinary
 *          writes of the current epoch, marks the victim cleaned. Which segments, when, and what follows
 *          is the cleaner's business (cleaner.h).
 * Emptied  is called after each victim that was, by whichever thread did it, without locks: a sync may be due.
 * Threads  clean: one caller at a time. nr_helpers threads empty victims beside the caller, so that one
 *          waits for the device while another seals.
 * Memory   One segment's blocks for the caller and for each helper, allocated by new.
 */
#ifndef MLS_DISK_MOVER_H
#define MLS_DISK_MOVER_H

#include "5-disk/segment_table.h"

struct mls_disk;
struct mls_movers;

MLS_MUST_CHECK int mls_movers_new(struct mls_movers **movers, struct mls_disk *disk, unsigned nr_helpers,
				  void (*emptied)(void *arg), void *arg);
void mls_movers_free(struct mls_movers *movers);	/* NULL is fine */

struct mls_moved {
	uint64_t gain;		/* blocks of cleaned victims that weren't current */
	bool starved;		/* there was no room for some moves; their victims stay */
	bool walks_left;	/* some have no summary, and stay */
};

/*
 * Empty nr victims. What was done before an error counts. walk: those without a summary, too, for each of which the
 * whole index is walked over; else the segment table gets to know them.
 */
MLS_MUST_CHECK int mls_movers_clean(struct mls_movers *movers, const struct mls_seg_info *infos, size_t nr,
				    bool walk, struct mls_moved *moved);

#endif
