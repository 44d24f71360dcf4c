/* SPDX-License-Identifier: MPL-2.0 */
/*
 * err.h - below all layers: invariants. The error list itself is public (mlsdisk.h).
 *
 * Role     MLS_INVARIANT states a promise of ours. It stays in release builds and stops the
 *          process: a secure disk that doubts itself must not go on writing. It must never be
 *          given anything that the host controls.
 */
#ifndef MLS_BASE_ERR_H
#define MLS_BASE_ERR_H

#include "mlsdisk/mlsdisk.h"

_Noreturn void mls_invariant_failed(const char *expr, const char *file, int line);

#define MLS_INVARIANT(expr)                                                       \
	do {                                                                      \
		if (__builtin_expect(!(expr), 0))                                 \
			mls_invariant_failed(#expr, __FILE__, __LINE__);          \
	} while (0)

/* errno of a failed system call -> enum mls_err. */
int mls_err_from_errno(int errnum);

#endif
