/* SPDX-License-Identifier: MPL-2.0 */
/*
 * repair.h - what can be put right, from what authenticates.
 *
 * Role     mlsdisk-fsck -p: superblock copies are written anew from the one that counts; wrong live
 *          counts and leaked logs are corrected in the state that the next session begins with, which
 *          is what completes a recovery, too. Nothing else is changed, and never a block of user data.
 * Needs    An inspection after passes 2 to 5, whose device may be written.
 */
#ifndef MLS_CHECK_REPAIR_H
#define MLS_CHECK_REPAIR_H

#include "check/inspect.h"

/* Both copies become the one that counts. MLS_EIO, MLS_ENOSPC; MLS_ENOMEM. */
MLS_MUST_CHECK int mls_repair_superblock(struct mls_inspect *x);

/* The store's value once more, onto its damaged copy. MLS_EINVAL: the store has no value; MLS_EIO. */
MLS_MUST_CHECK int mls_repair_store(const struct mls_inspect *x, struct mls_trusted_store *store);

/*
 * Open for writing, with live counts and logs corrected, and close. The state has changed then: look at
 * the disk anew.
 *
 * Returns  0; MLS_EINVAL: the state isn't one to go on from (x->verdict, x->index_damaged); what
 *          mls_disk_open and mls_disk_close answer.
 */
MLS_MUST_CHECK int mls_repair_state(struct mls_inspect *x, struct mls_trusted_store *store,
				    const struct mls_secret *secret);

#endif
