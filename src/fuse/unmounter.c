/* SPDX-License-Identifier: MPL-2.0 */
/* unmounter.c - see unmounter.h. */
#include "fuse/unmounter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/log_sink.h"
#include "fuse/mount_point.h"
#include "fuse/options.h"

#define NAME "mlsdisk-unmount" /* the 15 bytes that a thread's name may have */
#define OUR_FD 3

static bool auto_unmount(const struct mls_fuse_options *options)
{
	return options->mount_options && strstr(options->mount_options, "auto_unmount");
}

bool mls_unmounter_suffices(const struct mls_unmounter *unmounter, const struct mls_fuse_options *options)
{
	return geteuid() == 0 || unmounter->fd >= 0 || auto_unmount(options);
}

/* getopt has changed the order in argv, not in memory. */
static void rename_process(int argc, char **argv)
{
	char *end = argv[0];

	for (int i = 0; i < argc; i++)
		if (argv[i] + strlen(argv[i]) > end)
			end = argv[i] + strlen(argv[i]);
	memset(argv[0], 0, (size_t)(end - argv[0]));
	snprintf(argv[0], (size_t)(end - argv[0]) + 1, NAME);
	(void)prctl(PR_SET_NAME, NAME, 0, 0, 0);
}

/* Of what the caller gave us nothing stays open: who waits for the end of our output waits for the daemon only. */
static bool leave_files(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
	    dup2(null, STDERR_FILENO) < 0)
		return false;
	if (fd != OUR_FD && dup3(fd, OUR_FD, O_CLOEXEC) < 0)
		return false;
	return syscall(SYS_close_range, OUR_FD + 1, ~0U, 0) == 0 || errno == ENOSYS;
}

/* A signal to all of us (a terminal's, a service manager's) ends the daemon, which then needs us. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		sigaction(ignored[i], &ignore, NULL);
}

_Noreturn static void unmounter_main(int fd, const char *mount_point)
{
	char word = 0;
	ssize_t bytes;

	ignore_signals();
	setsid();
	if (chdir("/") || !leave_files(fd))
		_exit(1);
	do
		bytes = read(OUR_FD, &word, 1);
	while (bytes < 0 && errno == EINTR);
	if (bytes == 1) {
		word = (char)(mls_fusermount_unmount(mount_point) != 0);
		while (write(OUR_FD, &word, 1) < 0 && errno == EINTR)
			;
	}
	_exit(0);
}

void mls_unmounter_start(struct mls_unmounter *unmounter, const struct mls_fuse_options *options, int argc,
			 char **argv)
{
	int fds[2];
	pid_t child;

	*unmounter = (struct mls_unmounter){.fd = -1};
	if (geteuid() == 0 || auto_unmount(options))
		return;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		goto failed;
	child = fork();
	if (child == 0) {
		rename_process(argc, argv);
		unmounter_main(fds[1], options->mount_point);
	}
	close(fds[1]);
	if (child > 0) {
		unmounter->fd = fds[0];
		return;
	}
	close(fds[0]);
failed:
	mls_say(MLS_LOG_WARNING, "can't start a process that unmounts: %s: we keep the right to do it, "
		"and to run other programs", strerror(errno));
}

/* Already unmounted: the mount point may be another's by now. */
static bool is_mounted(int session_fd)
{
	struct pollfd session = {.fd = session_fd};

	return session_fd >= 0 && !(poll(&session, 1, 0) == 1 && (session.revents & POLLERR));
}

void mls_unmounter_ask(struct mls_unmounter *unmounter, int session_fd)
{
	if (unmounter->fd < 0 || !is_mounted(session_fd))
		return;
	unmounter->asked = send(unmounter->fd, "", 1, MSG_NOSIGNAL) == 1;
}

void mls_unmounter_wait(struct mls_unmounter *unmounter)
{
	char failed = 1;
	ssize_t bytes;

	if (!unmounter->asked)
		return;
	do
		bytes = read(unmounter->fd, &failed, 1);
	while (bytes < 0 && errno == EINTR);
	if (bytes != 1 || failed)
		mls_say(MLS_LOG_WARNING, "couldn't unmount; the next start clears it, or: fusermount3 -u -z MOUNTPOINT");
	close(unmounter->fd);
	unmounter->fd = -1;
	unmounter->asked = false;
}
