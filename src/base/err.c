/* SPDX-License-Identifier: MPL-2.0 */
/* err.c - the one error list in words, and what to do when a promise of ours is broken. */
#include "base/err.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

static const char *const err_text[] = {
	[-MLS_OK] = "success",
	[-MLS_EIO] = "I/O or system error",
	[-MLS_ENOMEM] = "out of memory",
	[-MLS_ENOSPC] = "no space left",
	[-MLS_EINVAL] = "invalid argument",
	[-MLS_ENOENT] = "not found",
	[-MLS_EAUTH] = "integrity violation",
	[-MLS_ESTALE] = "rollback or store mismatch",
	[-MLS_EFORMAT] = "not an MlsDisk, or an unknown format",
	[-MLS_EKEY] = "wrong key",
	[-MLS_EBUSY] = "in use by another process",
	[-MLS_EEXIST] = "exists already",
	[-MLS_EROFS] = "opened read-only",
	[-MLS_EABORTED] = "transaction aborted",
	[-MLS_EPOISONED] = "writing stopped after a failed flush or commit; reopen the disk",
};

const char *mls_strerror(int err)
{
	size_t nr = sizeof err_text / sizeof err_text[0];

	if (err > 0 || (size_t)-err >= nr)
		return "unknown error";
	return err_text[-err];
}

int mls_exit_status(int err)
{
	switch (err) {
	case MLS_OK:
		return 0;
	case MLS_EINVAL:
		return 2;
	case MLS_EFORMAT:
	case MLS_EKEY:
		return 3;
	case MLS_EAUTH:
		return 4;
	case MLS_ESTALE:
		return 5;
	case MLS_EBUSY:
		return 6;
	default:
		return 1;
	}
}

int mls_err_from_errno(int errnum)
{
	switch (errnum) {
	case 0:
		return MLS_OK;
	case ENOMEM:
		return MLS_ENOMEM;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return MLS_ENOSPC;
	case ENOENT:
		return MLS_ENOENT;
	case EEXIST:
		return MLS_EEXIST;
	default:
		return MLS_EIO;
	}
}

_Noreturn void mls_invariant_failed(const char *expr, const char *file, int line)
{
	mls_error("%s:%d: broken invariant: %s", file, line, expr);
	abort();
}
