/* SPDX-License-Identifier: MPL-2.0 */
/* confine.h - the system calls that a daemon which serves its mount can do without, refused. */
#ifndef MLS_FUSE_CONFINE_H
#define MLS_FUSE_CONFINE_H

#include <stdbool.h>

struct mls_fuse_options;

/*
 * For all threads, and for good; once mounted, before the first request of a user is served. Nothing
 * without libseccomp, in a kernel without seccomp (with a warning), or where fusermount3 will be
 * needed at the end.
 */
void mls_confine_process(const struct mls_fuse_options *options);

#endif
