/* SPDX-License-Identifier: MPL-2.0 */
/*
 * thread.c - why it exists: cleaning and compaction want all of a core for long, and a request's thread that
 * becomes ready meanwhile would wait for its turn as one of many.
 *
 * Linux keeps a nice value for each thread. A few steps and not the lowest: the background holds short locks
 * that writers wait for, and writers wait for what it frees.
 */
#include "base/thread.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#define NICE_STEPS 5

void mls_thread_in_background(void)
{
	id_t tid = (id_t)syscall(SYS_gettid);

	if (setpriority(PRIO_PROCESS, tid, getpriority(PRIO_PROCESS, tid) + NICE_STEPS))
		mls_debug("thread: can't lower its priority");
}
