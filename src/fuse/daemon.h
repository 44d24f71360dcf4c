/* SPDX-License-Identifier: MPL-2.0 */
/*
 * daemon.h - going to the background, with an honest exit status.
 *
 * Role     The process forks before anything is opened. The parent lives until the child either
 *          says that image.raw is ready (exit 0) or ends (exit with the child's status). Until
 *          ready the child has the terminal's stderr, so its messages are seen.
 */
#ifndef MLS_FUSE_DAEMON_H
#define MLS_FUSE_DAEMON_H

#include "mlsdisk/mlsdisk.h"

struct mls_daemon {
	int ready_fd; /* -1: in the foreground */
};

/* Returns in the child only (or, in the foreground, in the one process there is). */
MLS_MUST_CHECK int mls_daemon_start(struct mls_daemon *daemon, bool foreground);

/* image.raw is ready: let the parent go, leave the terminal, log to syslog. */
void mls_daemon_ready(struct mls_daemon *daemon);

#endif
