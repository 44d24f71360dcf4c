/* SPDX-License-Identifier: MPL-2.0 */
/*
 * rand.h - below all layers: the only source of random bytes.
 *
 * Role     getrandom(2). Tests replace it through mls_rand_set_source (fault injection).
 * Errors   MLS_EIO: the source failed; the bytes are then zero and must not be used.
 * Threads  Any; set the source before threads start.
 */
#ifndef MLS_BASE_RAND_H
#define MLS_BASE_RAND_H

#include "mlsdisk/mlsdisk.h"

MLS_MUST_CHECK int mls_rand_bytes(void *out, size_t bytes);

typedef int mls_rand_fn(void *arg, void *out, size_t bytes);
void mls_rand_set_source(mls_rand_fn *fn, void *arg);	/* NULL: getrandom again */

#endif
