/* SPDX-License-Identifier: MPL-2.0 */
/*
 * image_ops.h - the file system of one file: image.raw, the plaintext disk.
 *
 * Role     FUSE requests in, calls of the public library out, enum mls_err turned into errno.
 * Shapes   Inode 1 is the directory, inode 2 image.raw. Offsets and sizes in bytes.
 * Threads  The operations run in any worker; init and release in main.
 */
#ifndef MLS_FUSE_IMAGE_OPS_H
#define MLS_FUSE_IMAGE_OPS_H

#include "fuse/sync_queue.h"

#define MLS_IMAGE_NAME "image.raw"

struct mls_image {
	struct mls_disk *disk; /* borrowed */
	struct mls_sync_queue syncs;
	_Atomic uint64_t size_bytes; /* grows */
	bool read_only;
	uid_t uid; /* who mounted: owns image.raw */
	gid_t gid;
	int64_t born_ns;
	_Atomic int64_t accessed_ns, modified_ns; /* since the epoch; kept in memory only */
};

extern const struct fuse_lowlevel_ops mls_image_ops; /* userdata: struct mls_image */

MLS_MUST_CHECK int mls_image_init(struct mls_image *image, struct mls_disk *disk, bool read_only);
void mls_image_release(struct mls_image *image);

#endif
