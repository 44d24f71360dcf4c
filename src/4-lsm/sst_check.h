/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sst_check.h - layer 4: is an SSTable what it must be?
 *
 * Role     Reads all of a table, past damage, and reports what can't be: blocks that don't
 *          authenticate, with the LBAs that are lost; order, ranges, counts, index, footer.
 * Threads  One at a time per log.
 */
#ifndef MLS_LSM_SST_CHECK_H
#define MLS_LSM_SST_CHECK_H

#include "1-crypto/crypto_log.h"
#include "4-lsm/sstable.h"
#include "base/finding.h"

struct mls_sst_check {
	struct mls_crypto_log *log;
	uint64_t nr_data_blocks;		/* of the log */
	const struct mls_sst_info *info;	/* what the journal says */
	mls_report_fn *report;
	void *report_arg;
	/* Told of blocks read; false stops: MLS_EABORTED. NULL: nobody cares. */
	bool (*progress)(void *arg, uint64_t nr_blocks);
	void *progress_arg;
};

/* 0 when the check came to its end, whatever it found; MLS_EABORTED; MLS_ENOMEM. */
MLS_MUST_CHECK int mls_sst_check(const struct mls_sst_check *check);

#endif
