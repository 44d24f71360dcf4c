/* SPDX-License-Identifier: MPL-2.0 */
/* openssl_err.c - see openssl_err.h. */
#include "1-crypto/openssl_err.h"

#include <openssl/err.h>

#include "base/log.h"
#include "mlsdisk/mlsdisk.h"

int mls_openssl_failed(const char *what)
{
	mls_error("OpenSSL failed at %s: error %lx", what, ERR_peek_last_error());
	ERR_clear_error();
	return MLS_ENOMEM;
}
