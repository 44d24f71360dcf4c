/* SPDX-License-Identifier: MPL-2.0 */
/*
 * salvage.h - everything that still authenticates, into a raw image.
 *
 * Role     With an index that counts (x->consistent): what it names. Where parts of it are lost, or all
 *          of it: what the segments' own summaries name, and the WAL for segments that have none; of
 *          several versions of an LBA the one that was written last (5-disk/seg_summary.h). A discard is
 *          honoured if its tombstone can still be read. Nothing proves that this is the latest state.
 * Errors   MLS_EIO: the image can't be written; MLS_ENOMEM; MLS_EABORTED.
 */
#ifndef MLS_CHECK_SALVAGE_H
#define MLS_CHECK_SALVAGE_H

#include "check/inspect.h"

struct mls_lost_range {
	uint64_t lba, nr_lbas;
	enum mls_finding_code why;
};

struct mls_salvage {
	struct mls_inspect *x;		/* with a key */
	int image_fd;			/* disk_blocks long, all zeros */
	mls_progress_fn *progress;
	void *progress_arg;

	/* ---- Results ---- */
	bool from_summaries;
	uint64_t nr_saved, nr_lost;	/* blocks */
	uint64_t nr_rebuilt;		/* of the saved: found by summaries, where the index is damaged */
	struct mls_lost_range *lost;	/* in order of LBA, disjoint; mls_salvage_release */
	size_t nr_ranges;
};

/* A range that the checks found to be lost; any number, before mls_salvage_run. */
MLS_MUST_CHECK int mls_salvage_lose(struct mls_salvage *salvage, uint64_t lba, uint64_t nr_lbas,
				    enum mls_finding_code why);
MLS_MUST_CHECK int mls_salvage_run(struct mls_salvage *salvage);
void mls_salvage_release(struct mls_salvage *salvage);

#endif
