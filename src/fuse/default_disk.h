/* SPDX-License-Identifier: MPL-2.0 */
/* default_disk.h - the disk of "mlsdisk-fuse MOUNTPOINT": made on first use, found again after. */
#ifndef MLS_FUSE_DEFAULT_DISK_H
#define MLS_FUSE_DEFAULT_DISK_H

#include "mlsdisk/mlsdisk.h"

/*
 * Find the default disk, or make it and say on stdout what was made and where.
 *
 * backing, key_file  get paths, to be freed.
 * Returns            an exit status; 0: both are there.
 */
MLS_MUST_CHECK int mls_default_disk_prepare(char **backing, char **key_file);

#endif
