/* SPDX-License-Identifier: MPL-2.0 */
/* fuse_errno.h - the border where enum mls_err becomes errno. */
#ifndef MLS_FUSE_ERRNO_H
#define MLS_FUSE_ERRNO_H

/* 0, or the positive errno that a program using image.raw gets for err. */
int mls_errno(int err);

#endif
