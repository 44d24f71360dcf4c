/* SPDX-License-Identifier: MPL-2.0 */
/*
 * totals.c - what was done to a disk since it was formatted; see totals.h.
 */
#include "5-disk/totals.h"

const char *mls_total_name(enum mls_total total)
{
	static const char *const names[] = {
#define MLS_TOTAL_NAME(id, name) [MLS_TOTAL_##id] = (name),
		MLS_TOTALS(MLS_TOTAL_NAME)
#undef MLS_TOTAL_NAME
	};

	return names[total];
}

static double amplification(uint64_t dev_blocks, uint64_t bytes)
{
	return bytes ? (double)dev_blocks * MLS_BLOCK_BYTES / (double)bytes : 0.0;
}

double mls_totals_write_amplification(const struct mls_totals *totals)
{
	return amplification(totals->at[MLS_TOTAL_DEV_WRITTEN_BLOCKS], totals->at[MLS_TOTAL_WRITTEN_BYTES]);
}

double mls_totals_read_amplification(const struct mls_totals *totals)
{
	return amplification(totals->at[MLS_TOTAL_DEV_READ_BLOCKS], totals->at[MLS_TOTAL_READ_BYTES]);
}

void mls_totals_encode(struct mls_totals_disk *edit, const struct mls_totals *totals)
{
	*edit = (struct mls_totals_disk){ .type = MLS_SEG_EDIT_TOTALS };
	for (unsigned i = 0; i < MLS_NR_TOTALS; i++)
		mls_put_le64(edit->total[i], totals->at[i]);
}

void mls_totals_decode(struct mls_totals *totals, const struct mls_totals_disk *edit)
{
	for (unsigned i = 0; i < MLS_NR_TOTALS; i++)
		totals->at[i] = mls_get_le64(edit->total[i]);
}
