/* SPDX-License-Identifier: MPL-2.0 */
/*
 * tpm2_nv.c - one NV index, through tpm2-tss.
 *
 * Sessions
 *   use        HMAC session bound to the index: its key comes from the authorization value (256 random
 *              bits, so no salt is needed) and both nonces. One for each command, which ends it: a
 *              session kept would be lost with the TPM's sleep, would stand in the way of everybody
 *              else's after 2^16 of theirs (TPM_RC_CONTEXT_GAP), and would outlive a killed process.
 *   define     salted by a fresh key of the null hierarchy, for here the authorization value itself
 *              crosses the bus. That key isn't certified: who only listens learns nothing; who replaces
 *              the TPM at this moment, can. It is the one moment of trust on first use.
 *
 * Without a resource manager (a swtpm's socket, /dev/tpm0) a process that is killed may still leave a
 * session in the TPM, which has room for three. Such a connection has one user at a time, so when the
 * room is used up, what is there belongs to the dead.
 *
 * Attributes AUTHREAD, AUTHWRITE: nobody without the value, not even the owner, reads or writes.
 *            NO_DA: wrong guesses (2^256) neither lock the TPM nor are locked out with it.
 *            Not ORDERLY: a write is in non-volatile memory when it returns. The owner can undefine the
 *            index, as he can break the machine: that is seen as a lost store, never as an older one.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "trust/tpm2_nv.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tss2/tss2_esys.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

#define NV_ATTRIBUTES (TPMA_NV_AUTHREAD | TPMA_NV_AUTHWRITE | TPMA_NV_NO_DA)
#define PATIENCE_NS 100000000L		/* between two tries while the TPM asks for patience ... */
#define NR_PATIENCE 600u		/* ... which is given it for a minute */

struct mls_tpm2_nv {
	uint32_t index;
	char name[24];
	TSS2_TCTI_CONTEXT *tcti;
	ESYS_CONTEXT *esys;
	ESYS_TR handle;
	TPM2B_AUTH auth;
};

static const TPMT_SYM_DEF session_cipher = {
	.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB,
};

/* ---- Response codes ---- */

/* Of the TPM itself, or of a resource manager that speaks for it: without the layer. Else 0. */
static TSS2_RC tpm_code(TSS2_RC rc)
{
	TSS2_RC layer = rc & TSS2_RC_LAYER_MASK;

	return layer == TSS2_TPM_RC_LAYER || layer == TSS2_RESMGR_TPM_RC_LAYER ? rc & 0xffff : 0;
}

/* Without the number of the handle, session or parameter. */
static TSS2_RC base_code(TSS2_RC rc)
{
	TSS2_RC code = tpm_code(rc);

	return code & TPM2_RC_FMT1 ? code & (TPM2_RC_FMT1 | 0x3f) : code;
}

static bool wants_patience(TSS2_RC rc)
{
	switch (base_code(rc)) {
	case TPM2_RC_NV_RATE:
	case TPM2_RC_NV_UNAVAILABLE:
	case TPM2_RC_RETRY:
	case TPM2_RC_YIELDED:
	case TPM2_RC_TESTING:
		return true;
	default:
		return false;
	}
}

/* true: waited, try again. */
static bool be_patient(const struct mls_tpm2_nv *nv, TSS2_RC rc, unsigned *nr_waits)
{
	const struct timespec pause = { .tv_nsec = PATIENCE_NS };

	if (!wants_patience(rc) || *nr_waits == NR_PATIENCE)
		return false;
	if ((*nr_waits)++ == 0 && base_code(rc) == TPM2_RC_NV_RATE)
		mls_warn("trusted store %s: the TPM limits the rate of writes; waiting", nv->name);
	(void)nanosleep(&pause, NULL);
	return true;
}

/* What failed, once, in words, as an error of ours. */
static int fail(const struct mls_tpm2_nv *nv, const char *what, TSS2_RC rc)
{
	switch (base_code(rc)) {
	case TPM2_RC_AUTH_FAIL:
	case TPM2_RC_BAD_AUTH:
		mls_error("trusted store %s: %s: the TPM refuses this disk's authorization: the index was made with "
			  "another key, or was made anew by somebody else",
			  nv->name, what);
		return MLS_EAUTH;
	case TPM2_RC_LOCKOUT:
		mls_error("trusted store %s: %s: the TPM is locked after too many wrong authorizations; wait, or reset "
			  "it with tpm2_dictionarylockout --clear-lockout",
			  nv->name, what);
		return MLS_EIO;
	case TPM2_RC_NV_RATE:
		mls_error("trusted store %s: %s: the TPM has limited the rate of writes for a minute", nv->name, what);
		return MLS_EIO;
	case TPM2_RC_NV_SPACE:
		mls_error("trusted store %s: %s: the TPM has no space for another index; tpm2_nvreadpublic lists what "
			  "is there",
			  nv->name, what);
		return MLS_EIO;
	case TPM2_RC_NV_LOCKED:
		mls_error("trusted store %s: %s: the index is locked until the TPM is reset", nv->name, what);
		return MLS_EIO;
	default:
		mls_error("trusted store %s: %s: %s", nv->name, what, Tss2_RC_Decode(rc));
		return rc == TSS2_ESYS_RC_MEMORY ? MLS_ENOMEM : MLS_EIO;
	}
}

/* ---- Connection ---- */

static const char *tcti_conf(void)
{
	const char *conf = secure_getenv("MLSDISK_TCTI");

	if (!conf || !conf[0])
		conf = secure_getenv("TPM2TOOLS_TCTI");
	return conf && conf[0] ? conf : NULL;
}

static int connect_tpm(struct mls_tpm2_nv *nv)
{
	const char *conf = tcti_conf();
	TSS2_RC rc = Tss2_TctiLdr_Initialize(conf, &nv->tcti);

	if (rc != TSS2_RC_SUCCESS) {
		mls_error("trusted store %s: no TPM at %s (%s); MLSDISK_TCTI names another, such as device:/dev/tpmrm0",
			  nv->name, conf ? conf : "the default places", Tss2_RC_Decode(rc));
		return MLS_EIO;
	}
	rc = Esys_Initialize(&nv->esys, nv->tcti, NULL);
	return rc == TSS2_RC_SUCCESS ? 0 : fail(nv, "connecting", rc);
}

/* A TPM without firmware before us (a virtual one) may never have been started. */
static int wake_tpm(struct mls_tpm2_nv *nv)
{
	unsigned nr_waits = 0;
	TSS2_RC rc;

	do
		rc = Esys_Startup(nv->esys, TPM2_SU_CLEAR);
	while (be_patient(nv, rc, &nr_waits));
	return rc == TSS2_RC_SUCCESS ? 0 : fail(nv, "starting the TPM", rc);
}

int mls_tpm2_nv_open(struct mls_tpm2_nv **out, uint32_t index)
{
	struct mls_tpm2_nv *nv = mls_secret_alloc(sizeof *nv);
	int err;

	if (!nv)
		return MLS_ENOMEM;
	MLS_INVARIANT(index >= MLS_TPM2_INDEX_MIN && index <= MLS_TPM2_INDEX_MAX);
	nv->index = index;
	nv->handle = ESYS_TR_NONE;
	snprintf(nv->name, sizeof nv->name, "tpm2:0x%08x", index);
	err = connect_tpm(nv);
	if (err) {
		mls_tpm2_nv_close(nv);
		return err;
	}
	*out = nv;
	return 0;
}

void mls_tpm2_nv_close(struct mls_tpm2_nv *nv)
{
	if (!nv)
		return;
	if (nv->esys) {
		/* tpm2-tss has a copy of the value in plain memory, which it frees as it is. */
		mls_wipe(&nv->auth.buffer, sizeof nv->auth.buffer);
		if (nv->handle != ESYS_TR_NONE) {
			(void)Esys_TR_SetAuth(nv->esys, nv->handle, &nv->auth);
			(void)Esys_TR_Close(nv->esys, &nv->handle);
		}
		Esys_Finalize(&nv->esys);
	}
	Tss2_TctiLdr_Finalize(&nv->tcti);
	mls_secret_free(nv, sizeof *nv);
}

const char *mls_tpm2_nv_name(const struct mls_tpm2_nv *nv)
{
	return nv->name;
}

void mls_tpm2_nv_set_auth(struct mls_tpm2_nv *nv, const uint8_t auth[MLS_TPM2_AUTH_BYTES])
{
	nv->auth.size = MLS_TPM2_AUTH_BYTES;
	memcpy(nv->auth.buffer, auth, MLS_TPM2_AUTH_BYTES);
}

/* ---- Looking ---- */

/* Is it as define makes it? */
static bool is_of_our_shape(const TPMS_NV_PUBLIC *public, uint16_t bytes)
{
	return (public->attributes & ~TPMA_NV_WRITTEN) == NV_ATTRIBUTES && public->nameAlg == TPM2_ALG_SHA256 &&
	       public->dataSize == bytes && public->authPolicy.size == MLS_TPM2_LABEL_BYTES;
}

static TSS2_RC find_index(struct mls_tpm2_nv *nv)
{
	unsigned nr_waits = 0;
	TSS2_RC rc;

	if (nv->handle != ESYS_TR_NONE)
		(void)Esys_TR_Close(nv->esys, &nv->handle);
	nv->handle = ESYS_TR_NONE;
	do
		rc = Esys_TR_FromTPMPublic(nv->esys, nv->index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv->handle);
	while (be_patient(nv, rc, &nr_waits));
	return rc;
}

int mls_tpm2_nv_look(struct mls_tpm2_nv *nv, uint16_t bytes, uint8_t label[MLS_TPM2_LABEL_BYTES])
{
	TPM2B_NV_PUBLIC *public = NULL;
	TSS2_RC rc;
	int err = 0;

	rc = find_index(nv);
	if (tpm_code(rc) == TPM2_RC_INITIALIZE) {
		err = wake_tpm(nv);
		if (err)
			return err;
		rc = find_index(nv);
	}
	if (base_code(rc) == TPM2_RC_HANDLE)
		return MLS_ENOENT;
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_NV_ReadPublic(nv->esys, nv->handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &public, NULL);
	if (rc != TSS2_RC_SUCCESS)
		return fail(nv, "looking for the index", rc);
	if (is_of_our_shape(&public->nvPublic, bytes)) {
		memcpy(label, public->nvPublic.authPolicy.buffer, MLS_TPM2_LABEL_BYTES);
	} else {
		mls_error("trusted store %s: the index is there, but isn't a trusted store, so it is left alone; choose "
			  "another index",
			  nv->name);
		err = MLS_ESTALE;
	}
	Esys_Free(public);
	return err;
}

/* ---- Sessions ---- */

/* Those that are in the TPM end. */
static void clear_sessions(struct mls_tpm2_nv *nv)
{
	TPMS_CAPABILITY_DATA *found = NULL;
	TPMI_YES_NO more;
	ESYS_TR session;

	if (Esys_GetCapability(nv->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_HANDLES,
			       TPM2_LOADED_SESSION_FIRST, TPM2_MAX_CAP_HANDLES, &more, &found) != TSS2_RC_SUCCESS)
		return;
	for (UINT32 i = 0; i < found->data.handles.count; i++)
		if (Esys_TR_FromTPMPublic(nv->esys, found->data.handles.handle[i], ESYS_TR_NONE, ESYS_TR_NONE,
					  ESYS_TR_NONE, &session) == TSS2_RC_SUCCESS)
			(void)Esys_FlushContext(nv->esys, session);
	Esys_Free(found);
}

/* salt_key, bind: ESYS_TR_NONE: none. */
static TSS2_RC start_session(struct mls_tpm2_nv *nv, ESYS_TR salt_key, ESYS_TR bind, ESYS_TR *session)
{
	TSS2_RC rc;

	for (bool again = false;; again = true) {
		rc = Esys_StartAuthSession(nv->esys, salt_key, bind, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL,
					   TPM2_SE_HMAC, &session_cipher, TPM2_ALG_SHA256, session);
		if (again || (base_code(rc) != TPM2_RC_SESSION_MEMORY && base_code(rc) != TPM2_RC_SESSION_HANDLES))
			return rc;
		clear_sessions(nv);
	}
}

/* ---- Defining ---- */

/* The owner's password, if somebody told us where it is. A file, for others see environments. */
static int owner_auth(struct mls_tpm2_nv *nv, TPM2B_AUTH *auth)
{
	const char *path = secure_getenv("MLSDISK_TPM2_OWNER_AUTH_FILE");
	ssize_t n;
	int fd;

	auth->size = 0;
	if (!path)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, auth->buffer, sizeof auth->buffer);
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		mls_error("trusted store %s: %s, which MLSDISK_TPM2_OWNER_AUTH_FILE names, can't be read", nv->name, path);
		return MLS_EIO;
	}
	auth->size = (UINT16)n;
	return 0;
}

/* A key that lives until it is flushed, for the salt of one session. */
static TSS2_RC make_salt_key(struct mls_tpm2_nv *nv, ESYS_TR *key)
{
	static const TPM2B_SENSITIVE_CREATE sensitive;
	static const TPM2B_DATA outside;
	static const TPML_PCR_SELECTION pcrs;
	static const TPM2B_PUBLIC public = {
		.publicArea = {
			.type = TPM2_ALG_ECC,
			.nameAlg = TPM2_ALG_SHA256,
			.objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM |
					    TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
					    TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA,
			.parameters.eccDetail = {
				.symmetric = { .algorithm = TPM2_ALG_AES, .keyBits.aes = 128,
					       .mode.aes = TPM2_ALG_CFB },
				.scheme.scheme = TPM2_ALG_NULL,
				.curveID = TPM2_ECC_NIST_P256,
				.kdf.scheme = TPM2_ALG_NULL,
			},
		},
	};

	return Esys_CreatePrimary(nv->esys, ESYS_TR_RH_NULL, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
				  &public, &outside, &pcrs, key, NULL, NULL, NULL, NULL);
}

static TSS2_RC start_salted(struct mls_tpm2_nv *nv, ESYS_TR *session)
{
	ESYS_TR key = ESYS_TR_NONE;
	TSS2_RC rc = make_salt_key(nv, &key);

	if (rc != TSS2_RC_SUCCESS)
		return rc;
	rc = start_session(nv, key, ESYS_TR_NONE, session);
	(void)Esys_FlushContext(nv->esys, key);
	return rc;
}

static TSS2_RC define(struct mls_tpm2_nv *nv, const TPM2B_NV_PUBLIC *public)
{
	ESYS_TR session = ESYS_TR_NONE;
	TSS2_RC rc = start_salted(nv, &session);

	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_TRSess_SetAttributes(nv->esys, session, TPMA_SESSION_DECRYPT | TPMA_SESSION_CONTINUESESSION,
					       0xff);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_NV_DefineSpace(nv->esys, ESYS_TR_RH_OWNER, session, ESYS_TR_NONE, ESYS_TR_NONE, &nv->auth,
					 public, &nv->handle);
	if (session != ESYS_TR_NONE)
		(void)Esys_FlushContext(nv->esys, session);
	return rc;
}

int mls_tpm2_nv_define(struct mls_tpm2_nv *nv, uint16_t bytes, const uint8_t label[MLS_TPM2_LABEL_BYTES])
{
	TPM2B_NV_PUBLIC public = {
		.nvPublic = {
			.nvIndex = nv->index,
			.nameAlg = TPM2_ALG_SHA256,
			.attributes = NV_ATTRIBUTES,
			.authPolicy.size = MLS_TPM2_LABEL_BYTES,
			.dataSize = bytes,
		},
	};
	TPM2B_AUTH owner = { .size = 0 };
	unsigned nr_waits = 0;
	TSS2_RC rc;
	int err = owner_auth(nv, &owner);

	if (err)
		return err;
	MLS_INVARIANT(nv->auth.size == MLS_TPM2_AUTH_BYTES && nv->handle == ESYS_TR_NONE);
	memcpy(public.nvPublic.authPolicy.buffer, label, MLS_TPM2_LABEL_BYTES);
	rc = Esys_TR_SetAuth(nv->esys, ESYS_TR_RH_OWNER, &owner);
	if (rc == TSS2_RC_SUCCESS)
		do
			rc = define(nv, &public);
		while (be_patient(nv, rc, &nr_waits));
	mls_wipe(&owner, sizeof owner);
	(void)Esys_TR_SetAuth(nv->esys, ESYS_TR_RH_OWNER, &owner);
	if (base_code(rc) == TPM2_RC_BAD_AUTH || base_code(rc) == TPM2_RC_AUTH_FAIL) {
		mls_error("trusted store %s: defining the index: the TPM's owner has a password, and it's %s one; let "
			  "MLSDISK_TPM2_OWNER_AUTH_FILE name a file that holds it",
			  nv->name, secure_getenv("MLSDISK_TPM2_OWNER_AUTH_FILE") ? "not this" : "not the empty");
		return MLS_EIO;
	}
	return rc == TSS2_RC_SUCCESS ? 0 : fail(nv, "defining the index", rc);
}

/* ---- Reading and writing ---- */

/* One command on the index, in a session of its own: data in, or *out. */
static TSS2_RC command(struct mls_tpm2_nv *nv, uint16_t offset, const TPM2B_MAX_NV_BUFFER *data, uint16_t bytes,
		       TPM2B_MAX_NV_BUFFER **out)
{
	ESYS_TR session = ESYS_TR_NONE;
	TSS2_RC rc = start_session(nv, ESYS_TR_NONE, nv->handle, &session);

	/* DECRYPT: the TPM decrypts what goes in; ENCRYPT: it encrypts what comes out. No CONTINUESESSION. */
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_TRSess_SetAttributes(nv->esys, session, data ? TPMA_SESSION_DECRYPT : TPMA_SESSION_ENCRYPT,
					       0xff);
	if (rc == TSS2_RC_SUCCESS && data)
		rc = Esys_NV_Write(nv->esys, nv->handle, nv->handle, session, ESYS_TR_NONE, ESYS_TR_NONE, data, offset);
	else if (rc == TSS2_RC_SUCCESS)
		rc = Esys_NV_Read(nv->esys, nv->handle, nv->handle, session, ESYS_TR_NONE, ESYS_TR_NONE, bytes, offset,
				  out);
	if (rc != TSS2_RC_SUCCESS && session != ESYS_TR_NONE)
		(void)Esys_FlushContext(nv->esys, session);
	return rc;
}

static TSS2_RC patient_command(struct mls_tpm2_nv *nv, uint16_t offset, const TPM2B_MAX_NV_BUFFER *data,
			       uint16_t bytes, TPM2B_MAX_NV_BUFFER **out)
{
	TSS2_RC rc = Esys_TR_SetAuth(nv->esys, nv->handle, &nv->auth);
	unsigned nr_waits = 0;

	MLS_INVARIANT(nv->handle != ESYS_TR_NONE && nv->auth.size == MLS_TPM2_AUTH_BYTES);
	if (rc == TSS2_RC_SUCCESS)
		do
			rc = command(nv, offset, data, bytes, out);
		while (be_patient(nv, rc, &nr_waits));
	return rc;
}

int mls_tpm2_nv_read(struct mls_tpm2_nv *nv, void *data, uint16_t bytes)
{
	TPM2B_MAX_NV_BUFFER *buffer = NULL;
	TSS2_RC rc = patient_command(nv, 0, NULL, bytes, &buffer);
	int err = 0;

	if (tpm_code(rc) == TPM2_RC_NV_UNINITIALIZED)
		return MLS_ENOENT;
	if (rc != TSS2_RC_SUCCESS)
		return fail(nv, "reading", rc);
	if (buffer->size == bytes) {
		memcpy(data, buffer->buffer, bytes);
	} else {
		mls_error("trusted store %s: reading: expected %u bytes, found %u", nv->name, bytes, buffer->size);
		err = MLS_EIO;
	}
	Esys_Free(buffer);
	return err;
}

int mls_tpm2_nv_write(struct mls_tpm2_nv *nv, uint16_t offset, const void *data, uint16_t bytes)
{
	TPM2B_MAX_NV_BUFFER buffer = { .size = bytes };
	TSS2_RC rc;

	MLS_INVARIANT(bytes <= sizeof buffer.buffer);
	memcpy(buffer.buffer, data, bytes);
	rc = patient_command(nv, offset, &buffer, 0, NULL);
	return rc == TSS2_RC_SUCCESS ? 0 : fail(nv, "writing", rc);
}
