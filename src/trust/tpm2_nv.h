/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tpm2_nv.h - beside the layers: one NV index of a TPM 2.0, over authorized, encrypted sessions.
 *
 * Role     Knows tpm2-tss, and nothing of what the bytes mean. Whoever sits on the bus between us and
 *          the TPM sees neither the authorization value nor the bytes, and can't change, replay or
 *          suppress-and-acknowledge a command: each is an HMAC session's, keyed by the authorization
 *          value, with fresh nonces of both sides.
 * Shapes   A label of 32 bytes says, readable by everybody, whose index it is. It stands in the public
 *          area's policy field (the attributes let no policy be used) and so is part of the name that
 *          each session's HMAC covers.
 * Errors   MLS_ENOENT: not defined, or never written; MLS_EAUTH: the authorization value isn't
 *          accepted; MLS_ESTALE: the index is of another shape than we make; MLS_EIO: the TPM, or the
 *          way to it, failed; MLS_ENOMEM. All but MLS_ENOENT are logged here.
 * Threads  One at a time.
 */
#ifndef MLS_TRUST_TPM2_NV_H
#define MLS_TRUST_TPM2_NV_H

#include "mlsdisk/mlsdisk.h"

#define MLS_TPM2_LABEL_BYTES 32u
#define MLS_TPM2_AUTH_BYTES 32u
#define MLS_TPM2_INDEX_MIN 0x01000000u
#define MLS_TPM2_INDEX_MAX 0x01ffffffu

struct mls_tpm2_nv;

/* Connect to the TPM that MLSDISK_TCTI names, else TPM2TOOLS_TCTI, else tpm2-tss's default. */
MLS_MUST_CHECK int mls_tpm2_nv_open(struct mls_tpm2_nv **nv, uint32_t index);
void mls_tpm2_nv_close(struct mls_tpm2_nv *nv);		/* wipes; NULL is fine */
const char *mls_tpm2_nv_name(const struct mls_tpm2_nv *nv);	/* "tpm2:0x01800001" */

/* Copied into locked memory. Before read, write and define. */
void mls_tpm2_nv_set_auth(struct mls_tpm2_nv *nv, const uint8_t auth[MLS_TPM2_AUTH_BYTES]);

/* Whose index is it? What comes back isn't authentic until a read or write succeeded. */
MLS_MUST_CHECK int mls_tpm2_nv_look(struct mls_tpm2_nv *nv, uint16_t bytes, uint8_t label[MLS_TPM2_LABEL_BYTES]);

/* Define the index; it has never been written then. Asks for the owner's authorization (empty, or the
 * content of the file that MLSDISK_TPM2_OWNER_AUTH_FILE names). */
MLS_MUST_CHECK int mls_tpm2_nv_define(struct mls_tpm2_nv *nv, uint16_t bytes,
				      const uint8_t label[MLS_TPM2_LABEL_BYTES]);

/* After a look or define that returned 0. Durable when write returns 0. */
MLS_MUST_CHECK int mls_tpm2_nv_read(struct mls_tpm2_nv *nv, void *data, uint16_t bytes);
MLS_MUST_CHECK int mls_tpm2_nv_write(struct mls_tpm2_nv *nv, uint16_t offset, const void *data, uint16_t bytes);

#endif
