/* SPDX-License-Identifier: MPL-2.0 */
/*
 * rescue.h - a salvage's blocks that no index names any more; for salvage.c only.
 */
#ifndef MLS_CHECK_RESCUE_H
#define MLS_CHECK_RESCUE_H

#include "check/salvage.h"

/* salvage.c: one block into the image. */
MLS_MUST_CHECK int mls_salvage_save(struct mls_salvage *s, uint64_t lba, const void *block);

/* There is no index. */
MLS_MUST_CHECK int mls_rescue_all(struct mls_salvage *s);

/* The index has named what it can. The lost ranges that stand for damage of the index become those LBAs of
 * them of which something is lost, or may be. */
MLS_MUST_CHECK int mls_rescue_gaps(struct mls_salvage *s);

#endif
