/* SPDX-License-Identifier: MPL-2.0 */
/*
 * harden.c - what a process that the kernel reclaims memory through asks of the kernel.
 *
 * When memory is short the kernel writes dirty pages to the file system above us, that is, through
 * us. PR_SET_IO_FLUSHER lets our allocations not wait for that write; mlockall keeps us (and the
 * keys) out of swap. MCL_ONFAULT: only what is touched is locked, so thread stacks cost what they
 * use. Under a limited RLIMIT_MEMLOCK a lock on future memory would make later allocations fail,
 * so there it isn't tried.
 */
#include "fuse/harden.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/log_sink.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static bool may_lock_all(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {0};
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit now;

	if (setrlimit(RLIMIT_MEMLOCK, &all) == 0)
		return true;
	if (getrlimit(RLIMIT_MEMLOCK, &now) == 0 && now.rlim_cur == RLIM_INFINITY)
		return true;
	return syscall(SYS_capget, &header, caps) == 0 && (caps[0].effective & (1u << CAP_IPC_LOCK));
}

static void lock_memory(void)
{
	if (!may_lock_all()) {
		mls_say(MLS_LOG_WARNING,
			"can't lock memory (RLIMIT_MEMLOCK): keys and data may reach the swap area");
		return;
	}
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		mls_say(MLS_LOG_WARNING, "can't lock memory: %s: keys and data may reach the swap area",
			strerror(errno));
}

void mls_harden_process(void)
{
	lock_memory();
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		mls_say(MLS_LOG_WARNING,
			"can't become an I/O flusher: %s: when memory runs out, the system may hang "
			"(CAP_SYS_RESOURCE is needed)",
			strerror(errno));
	if (geteuid() == 0) /* others mount through fusermount3, which is setuid */
		(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
