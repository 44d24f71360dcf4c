/* SPDX-License-Identifier: MPL-2.0 */
/* confine.h - the system calls that a daemon which serves its mount can do without, refused. */
#ifndef MLS_FUSE_CONFINE_H
#define MLS_FUSE_CONFINE_H

struct mls_fuse_options;

/*
 * For all threads, and for good; once mounted, before the first request of a user is served. Only if this
 * process needn't run fusermount3 at the end (mls_unmounter_suffices). Without libseccomp, or in a kernel
 * without seccomp (with a warning), new privileges are given up and nothing else.
 */
void mls_confine_process(const struct mls_fuse_options *options);

#endif
