/* SPDX-License-Identifier: MPL-2.0 */
/*
 * store.h - beside the layers: the kinds of trusted store that this build has.
 *
 * Role     The contract (struct mls_trusted_store_ops) is public and stands in mlsdisk.h; here are
 *          the constructors that mls_trusted_store_open chooses from.
 * Source   doc/design.md 7, "Recovery"; mlsdisk(7).
 */
#ifndef MLS_TRUST_STORE_H
#define MLS_TRUST_STORE_H

#include "mlsdisk/mlsdisk.h"

/* The label under which the disk derives the key for set_key. */
#define MLS_TRUST_KEY_LABEL "store"

/*
 * A file. It may be missing: it, and directories on the way to it, are made by the first advance.
 * While the store is open the file is locked.
 *
 * uuid     whose store it is; one of another disk is never read nor overwritten.
 * Returns  0; MLS_EBUSY: locked by another process; MLS_ESTALE: the file of another disk, or not a
 *          store at all; MLS_EINVAL: not a regular file; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_store_file_open(struct mls_trusted_store **store, const char *path,
				       const uint8_t uuid[MLS_UUID_BYTES]);

/*
 * An NV index of a TPM 2.0. It may be undefined: the first advance defines it. While the store is open,
 * no other process can open a store of the same disk in a TPM. Only where HAVE_TPM2.
 *
 * Returns  0; MLS_EBUSY: in use by another process; MLS_ESTALE: the index of another disk, or not a
 *          store at all; MLS_EIO: no TPM, or it fails; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_store_tpm2_open(struct mls_trusted_store **store, uint32_t index,
				       const uint8_t uuid[MLS_UUID_BYTES]);

#endif
