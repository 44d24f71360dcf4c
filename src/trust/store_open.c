/* SPDX-License-Identifier: MPL-2.0 */
/* store_open.c - which trusted store a URI means, and where the default one is. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "trust/store.h"
#include "trust/tpm2_nv.h"

int mls_trusted_store_default_path(char *path, size_t path_bytes, const uint8_t uuid[MLS_UUID_BYTES])
{
	const char *state = secure_getenv("XDG_STATE_HOME"), *home = secure_getenv("HOME");
	char name[MLS_UUID_TEXT_BYTES];
	int n;

	mls_uuid_format(name, uuid);
	if (geteuid() == 0) {
		n = snprintf(path, path_bytes, "%s/%s.trust", MLS_PATH_DEFAULT_STORE_DIR, name);
	} else if (state && state[0] == '/') {
		n = snprintf(path, path_bytes, "%s/mlsdisk/%s.trust", state, name);
	} else if (home && home[0] == '/') {
		n = snprintf(path, path_bytes, "%s/.local/state/mlsdisk/%s.trust", home, name);
	} else {
		mls_error("trusted store: neither XDG_STATE_HOME nor HOME is set; use --trusted-store=file:PATH");
		return MLS_EINVAL;
	}
	if (n < 0 || (size_t)n >= path_bytes) {
		mls_error("trusted store: the path of the default store is too long; use --trusted-store=file:PATH");
		return MLS_EINVAL;
	}
	return 0;
}

/* The NV index that "tpm2:" is followed by. */
static int open_tpm2(struct mls_trusted_store **store, const char *text, const uint8_t uuid[MLS_UUID_BYTES])
{
	char *end;
	unsigned long index = strtoul(text, &end, 0);

	if (text[0] < '0' || text[0] > '9' || *end || index < MLS_TPM2_INDEX_MIN || index > MLS_TPM2_INDEX_MAX) {
		mls_error("trusted store tpm2:%s: expected an NV index of 0x%08x to 0x%08x, such as tpm2:0x01800001", text,
			  MLS_TPM2_INDEX_MIN, MLS_TPM2_INDEX_MAX);
		return MLS_EINVAL;
	}
#ifdef HAVE_TPM2
	return mls_store_tpm2_open(store, (uint32_t)index, uuid);
#else
	(void)store;
	(void)uuid;
	mls_error("trusted store tpm2:%s: this program was built without tpm2-tss (configure --with-tpm2); use file:PATH",
		  text);
	return MLS_EINVAL;
#endif
}

int mls_trusted_store_open(struct mls_trusted_store **store, const char *uri, const uint8_t uuid[MLS_UUID_BYTES])
{
	char path[PATH_MAX];
	int err;

	if (!uri) {
		err = mls_trusted_store_default_path(path, sizeof path, uuid);
		return err ? err : mls_store_file_open(store, path, uuid);
	}
	if (strcmp(uri, "none") == 0) {
		*store = NULL;
		return 0;
	}
	if (strncmp(uri, "file:", 5) == 0 && uri[5] != '\0')
		return mls_store_file_open(store, uri + 5, uuid);
	if (strncmp(uri, "tpm2:", 5) == 0)
		return open_tpm2(store, uri + 5, uuid);
	mls_error("trusted store '%s': unknown; expected file:PATH, tpm2:INDEX or none", uri);
	return MLS_EINVAL;
}

void mls_trusted_store_destroy(struct mls_trusted_store *store)
{
	if (store)
		store->ops->destroy(store);
}
