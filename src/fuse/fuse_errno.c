/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuse_errno.c - the border where enum mls_err becomes errno.
 *
 * Programs above know what EIO, ENOSPC and EROFS mean for a disk, so whatever says "these bytes
 * can't be believed" or "this disk has stopped writing" is EIO to them; the log says more.
 */
#include "fuse/fuse_errno.h"

#include <errno.h>

#include "mlsdisk/mlsdisk.h"

int mls_errno(int err)
{
	switch (err) {
	case MLS_OK:
		return 0;
	case MLS_ENOMEM:
		return ENOMEM;
	case MLS_ENOSPC:
		return ENOSPC;
	case MLS_EINVAL:
		return EINVAL;
	case MLS_EROFS:
		return EROFS;
	case MLS_EBUSY:
		return EBUSY;
	case MLS_EEXIST:
		return EEXIST;
	default:
		return EIO;
	}
}
