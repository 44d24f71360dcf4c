/* SPDX-License-Identifier: MPL-2.0 */
/*
 * openssl_err.h - layer 1: which of our errors a failure of OpenSSL is.
 *
 * We ask OpenSSL for nothing that it may refuse, so a failure means that it found no memory. It must not be
 * taken for a failed device: fsck would call a sound disk damaged. The library's own queue of errors doesn't
 * tell reliably: without memory it says "initialization error", or nothing at all (test_nth).
 */
#ifndef MLS_CRYPTO_OPENSSL_ERR_H
#define MLS_CRYPTO_OPENSSL_ERR_H

/* Logs what failed and empties the thread's queue of errors. Returns MLS_ENOMEM. */
int mls_openssl_failed(const char *what);

#endif
