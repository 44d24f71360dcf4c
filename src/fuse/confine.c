/* SPDX-License-Identifier: MPL-2.0 */
/*
 * confine.c - the system calls that a daemon which serves its mount can do without; see confine.h.
 *
 * Whoever got control of this process through a fault of ours should find little to do with it: no
 * other program, no other process, no network, no mounts, no part of the kernel that is none of a
 * disk's business. A list of what is refused (EPERM), not of what is allowed: the system calls that
 * glibc, liburing, libfuse, OpenSSL and tpm2-tss make change with their versions, and a list of those
 * allowed would some day fail a sync. The price: a system call that is new in the kernel is allowed.
 * What is asked through io_uring isn't seen by seccomp; there is no execve, ptrace or mount in it.
 *
 * A filter needs no_new_privs, and with it the setuid fusermount3 can't unmount. Root calls umount2
 * itself; for others a process that was started before does it (unmounter.h) or, with -o auto_unmount,
 * the fusermount3 that mounted. (Where /etc/mtab is a file, libfuse unmounts as root by running umount(8),
 * which is refused: the dead mount stays for the next start, which clears it.)
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "fuse/confine.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>

#include "fuse/harden.h"
#include "fuse/log_sink.h"
#include "fuse/options.h"

#ifndef HAVE_SECCOMP

static int refuse_system_calls(const struct mls_fuse_options *options)
{
	(void)options;
	return 0;
}

#else

#include <seccomp.h>
#include <stddef.h>
#include <sys/socket.h>

#define NR_FAMILIES 64 /* more than the kernel has */

/* By name: a name that this libseccomp or this architecture doesn't know is passed over. */
static const char *const refused[] = {
	/* other programs and processes */
	"execve", "execveat", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
#ifndef MLS_NEEDS_PTRACE
	"ptrace",
#endif
	/* being somebody or somewhere else */
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
	"capset", "chroot", "pivot_root", "unshare", "setns", "personality",
	/* mounts; umount2 is ours at the end */
	"mount", "move_mount", "mount_setattr", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount",
	"fspick", "swapon", "swapoff", "quotactl", "quotactl_fd",
	/* being called by others */
	"listen", "accept", "accept4",
	/* the file system beyond our files */
	"mknod", "mknodat", "open_by_handle_at", "fanotify_init", "acct",
	/* the kernel itself */
	"bpf", "perf_event_open", "userfaultfd", "init_module", "finit_module", "delete_module", "kexec_load",
	"kexec_file_load", "reboot", "add_key", "request_key", "keyctl", "iopl", "ioperm", "modify_ldt", "syslog",
	"lookup_dcookie", "vhangup", "sethostname", "setdomainname", "settimeofday", "clock_settime", "adjtimex",
	"clock_adjtime", "_sysctl", "uselib", "nfsservctl",
};

static int refuse_calls(scmp_filter_ctx filter)
{
	int err = 0;

	for (size_t i = 0; i < sizeof refused / sizeof refused[0] && !err; i++) {
		int nr = seccomp_syscall_resolve_name(refused[i]);

		if (nr != __NR_SCMP_ERROR && nr >= 0)
			err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), nr, 0);
	}
	return err;
}

static int refuse_family(scmp_filter_ctx filter, enum scmp_compare op, unsigned family)
{
	const struct scmp_arg_cmp first = {.arg = 0, .op = op, .datum_a = family};

	return seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, &first);
}

/* syslog and a TPM's software behind a socket speak AF_UNIX; such a TPM may also be across a network. */
static int refuse_sockets(scmp_filter_ctx filter, bool network)
{
	int err = refuse_family(filter, SCMP_CMP_GE, NR_FAMILIES);

	for (unsigned family = 0; family < NR_FAMILIES && !err; family++)
		if (family != AF_UNIX && !(network && (family == AF_INET || family == AF_INET6)))
			err = refuse_family(filter, SCMP_CMP_EQ, family);
	return err;
}

static int refuse_system_calls(const struct mls_fuse_options *options)
{
	bool network = options->trusted_store && strncmp(options->trusted_store, "tpm2:", 5) == 0;
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int err = filter ? 0 : -ENOMEM;

	if (!err) /* the engine has threads already */
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err) /* system calls of another ABI (32-bit ones) aren't looked at by number: none of them */
		err = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
	if (!err) /* we run no code of others: their mitigation would slow the encryption */
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	if (!err)
		err = refuse_calls(filter);
	if (!err)
		err = refuse_sockets(filter, network);
	if (!err)
		err = seccomp_load(filter); /* gives each thread no_new_privs, too */
	seccomp_release(filter);
	return err;
}

#endif

void mls_confine_process(const struct mls_fuse_options *options)
{
	int err;

	/* Without a filter that's for this thread and those that it will start: the workers, which talk to users. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		mls_say(MLS_LOG_WARNING, "can't set no_new_privs: %s", strerror(errno));
	err = refuse_system_calls(options);
	if (err)
		mls_say(MLS_LOG_WARNING, "can't refuse system calls that aren't needed (seccomp): %s",
			strerror(-err));
}
