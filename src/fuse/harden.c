/* SPDX-License-Identifier: MPL-2.0 */
/*
 * harden.c - what the serving process asks of the kernel, and what it gives up; see harden.h.
 *
 * When memory is short the kernel writes dirty pages to the file system above us, that is, through
 * us. PR_SET_IO_FLUSHER lets our allocations not wait for that write; mlockall keeps us (and the
 * keys) out of swap. MCL_ONFAULT: only what is touched is locked, so thread stacks cost what they
 * use. Under a limited RLIMIT_MEMLOCK a lock on future memory would make later allocations fail,
 * so there it isn't tried.
 *
 * Root then gives up every capability but those in kept[], and by no_new_privs the way to get any
 * back: execve gives a root process no more than it has. Other users have no capabilities; they mount by
 * fusermount3, which is setuid and so needs new privileges, and give those up later (confine.c).
 *
 * No core dumps, not dumpable, umask 077: mls_cli_start.
 */
#include "fuse/harden.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
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

/* Why we keep a capability. All others go. */
static const unsigned kept[] = {
	CAP_SYS_ADMIN,		/* mount; umount2 when we end by a signal */
	CAP_DAC_OVERRIDE,	/* BACKING, store or /dev/tpmrm0 of another user, as root is used to */
	CAP_DAC_READ_SEARCH,
	CAP_IPC_LOCK,		/* where RLIMIT_MEMLOCK couldn't be raised: mlock of keys, io_uring's buffers */
	CAP_SYS_RESOURCE,	/* the blocks that the host's file system keeps back for root: what lies
				 * on it now shall go on when it is full */
#ifdef MLS_NEEDS_PTRACE
	CAP_SYS_PTRACE,
#endif
};

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {0};
	uint32_t keep[_LINUX_CAPABILITY_U32S_3] = {0};

	for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
		keep[CAP_TO_INDEX(kept[i])] |= CAP_TO_MASK(kept[i]);
	if (syscall(SYS_capget, &header, caps))
		goto failed;
	for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		caps[i].permitted &= keep[i];
		caps[i].effective &= keep[i];
		caps[i].inheritable = 0; /* ambient ones go with it */
	}
	if (syscall(SYS_capset, &header, caps) == 0)
		return;
failed:
	mls_say(MLS_LOG_WARNING, "can't drop capabilities: %s", strerror(errno));
}

void mls_harden_process(void)
{
	lock_memory();
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		mls_say(MLS_LOG_WARNING,
			"can't become an I/O flusher: %s: when memory runs out, the system may hang "
			"(CAP_SYS_RESOURCE is needed)",
			strerror(errno));
	drop_capabilities();
	if (geteuid() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		mls_say(MLS_LOG_WARNING, "can't set no_new_privs: %s", strerror(errno));
}
