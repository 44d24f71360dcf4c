/* SPDX-License-Identifier: MPL-2.0 */
/* mount_point.h - is this directory fit to be mounted on; what a killed daemon left is cleared. */
#ifndef MLS_FUSE_MOUNT_POINT_H
#define MLS_FUSE_MOUNT_POINT_H

#include "mlsdisk/mlsdisk.h"

#define MLS_FUSE_SUBTYPE "mlsdisk"

/*
 * Check path and make it absolute. A mount of ours whose daemon is dead (ENOTCONN) is unmounted.
 *
 * absolute  gets the path, to be freed.
 * Returns   0, or after a message: MLS_EINVAL: not a directory; MLS_ENOENT; MLS_EBUSY: an MlsDisk is
 *           served there; MLS_EIO.
 */
MLS_MUST_CHECK int mls_mount_point_prepare(const char *path, char **absolute);

/* By the setuid program, at once even if it's in use. 0, or -1. */
MLS_MUST_CHECK int mls_fusermount_unmount(const char *absolute);

#endif
