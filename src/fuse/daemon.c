/* SPDX-License-Identifier: MPL-2.0 */
/* daemon.c - going to the background, with an honest exit status; see daemon.h. */
#include "fuse/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/log_sink.h"

_Noreturn static void parent_wait(int fd, pid_t child)
{
	char ready;
	ssize_t bytes;
	int status = 0;

	do
		bytes = read(fd, &ready, 1);
	while (bytes < 0 && errno == EINTR);
	if (bytes == 1)
		_exit(0);

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		_exit(WEXITSTATUS(status));
	if (WIFSIGNALED(status))
		mls_say(MLS_LOG_ERROR, "ended by signal %d (%s) before the disk was ready", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	_exit(1);
}

int mls_daemon_start(struct mls_daemon *daemon, bool foreground)
{
	int fds[2];
	pid_t child;

	daemon->ready_fd = -1;
	if (foreground)
		return MLS_OK;
	if (pipe2(fds, O_CLOEXEC))
		goto failed;
	child = fork();
	if (child < 0)
		goto failed;
	if (child > 0) {
		close(fds[1]);
		parent_wait(fds[0], child);
	}
	close(fds[0]);
	daemon->ready_fd = fds[1];
	setsid();
	return MLS_OK;
failed:
	mls_say(MLS_LOG_ERROR, "can't go to the background: %s", strerror(errno));
	return MLS_EIO;
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

void mls_daemon_ready(struct mls_daemon *daemon)
{
	if (daemon->ready_fd < 0)
		return;
	mls_log_sink_to_syslog();
	leave_terminal();
	if (chdir("/"))
		mls_say(MLS_LOG_WARNING, "chdir /: %s", strerror(errno));
	while (write(daemon->ready_fd, "", 1) < 0 && errno == EINTR)
		;
	close(daemon->ready_fd);
	daemon->ready_fd = -1;
}
