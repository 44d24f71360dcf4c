/* SPDX-License-Identifier: MPL-2.0 */
/*
 * thread.h - what threads are to the scheduler.
 *
 * Threads  Each speaks of itself.
 */
#ifndef MLS_BASE_THREAD_H
#define MLS_BASE_THREAD_H

/* What this thread does can wait: whoever answers a request goes first. */
void mls_thread_in_background(void);

#endif
