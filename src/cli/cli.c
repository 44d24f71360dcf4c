/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli.c - how every MlsDisk program starts, speaks and ends; see cli.h.
 *
 * The programs hold keys, so they leave no core and let no other process of the same user look
 * inside. These are second lines of defence: that one of them is refused isn't worth a failure.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *program_name = "mlsdisk";

static void say(const char *prefix, const char *format, va_list args)
{
	char message[1024];

	vsnprintf(message, sizeof message, format, args);
	fprintf(stderr, "%s: %s%s\n", program_name, prefix, message);
}

static void log_as_program(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	if (level == MLS_LOG_ERROR)
		mls_cli_error("%s", message);
	else if (level == MLS_LOG_WARNING)
		mls_cli_warn("%s", message);
}

/*
 * Where the caller closed standard files, ours would get their numbers: messages would go into BACKING, and what
 * leaves the terminal for /dev/null would take BACKING along. Opened the wrong way round, so that who uses them
 * still meets an error.
 */
static void take_standard_files(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			_exit(MLS_CLI_FAILED);
}

void mls_cli_start(const char *program)
{
	const struct rlimit none = { 0, 0 };

	take_standard_files();
	program_name = program;
	umask(077);
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* What we were given open stays open (--key-file=/dev/fd/N), but not in programs that we start. */
	(void)syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 1u << 2 /* CLOSE_RANGE_CLOEXEC */);
	/* tpm2-tss tells of all it meets on its way; what concerns our users we say ourselves. */
	(void)setenv("TSS2_LOG", "all+none", 0);
	mls_set_logger(log_as_program, NULL);
}

void mls_cli_no_new_privileges(void)
{
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

const char *mls_cli_program(void)
{
	return program_name;
}

void mls_cli_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("", format, args);
	va_end(args);
}

void mls_cli_warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("warning: ", format, args);
	va_end(args);
}

int mls_cli_usage(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say("", format, args);
	va_end(args);
	fprintf(stderr, "Try '%s --help'.\n", program_name);
	return MLS_CLI_USAGE;
}

int mls_cli_version(void)
{
	printf("%s (MlsDisk) %s\n", program_name, PACKAGE_VERSION);
	return mls_cli_end_stdout();
}

int mls_cli_end_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return MLS_CLI_DONE;
	mls_cli_error("standard output: %s", strerror(errno));
	return MLS_CLI_FAILED;
}
