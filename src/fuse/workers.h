/* SPDX-License-Identifier: MPL-2.0 */
/*
 * workers.h - the threads that serve a FUSE session, and the signals that end it.
 *
 * Role     A fixed number of threads, made up front with all their memory. Ends when the file
 *          system is unmounted or SIGTERM, SIGINT or SIGHUP arrives; in either case every request
 *          that was read is answered before mls_workers_run returns.
 * Threads  Everything from main.
 */
#ifndef MLS_FUSE_WORKERS_H
#define MLS_FUSE_WORKERS_H

#include <fuse_lowlevel.h>

#define MLS_NR_WORKERS 32u

/* Hold the signals back for mls_workers_run. Call before any thread starts. */
void mls_workers_block_signals(void);

/* Serve until the end. Returns 0: unmounted; a signal's number; -1: no threads (said why). */
int mls_workers_run(struct fuse_session *session, unsigned nr_workers);

#endif
