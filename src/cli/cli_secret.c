/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli_secret.c - the user's secret, from a key file or the terminal; see cli_secret.h.
 *
 * At the prompt echo is off, so whatever ends the program there must first restore the terminal:
 * signals are caught, noted, and raised again once the terminal is as it was. After a stop (^Z) the
 * question is asked again.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "cli/cli_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"

/* Room for the longest secret and one byte more, which shows that a file is too long. */
#define ROOM_BYTES (MLS_CLI_SECRET_MAX_BYTES + 4096u)

static char *room_new(void)
{
	char *room = mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (room == MAP_FAILED) {
		mls_cli_error("no memory for the key: %s", strerror(errno));
		return NULL;
	}
	(void)mlock(room, ROOM_BYTES);		/* refused by a low limit: no reason to fail */
	(void)madvise(room, ROOM_BYTES, MADV_DONTDUMP);
	return room;
}

static void room_free(char *room)
{
	if (!room)
		return;
	explicit_bzero(room, ROOM_BYTES);
	munmap(room, ROOM_BYTES);
}

static int read_all(int fd, const char *name, char *room, size_t *bytes)
{
	size_t nr = 0;

	while (nr <= MLS_CLI_SECRET_MAX_BYTES) {
		ssize_t n = read(fd, room + nr, MLS_CLI_SECRET_MAX_BYTES + 1 - nr);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			mls_cli_error("key file %s: %s", name, strerror(errno));
			return MLS_EIO;
		}
		if (n == 0)
			break;
		nr += (size_t)n;
	}
	if (nr == 0) {
		mls_cli_error("key file %s: is empty", name);
		return MLS_EINVAL;
	}
	if (nr > MLS_CLI_SECRET_MAX_BYTES) {
		mls_cli_error("key file %s: longer than %u bytes", name, MLS_CLI_SECRET_MAX_BYTES);
		return MLS_EINVAL;
	}
	*bytes = nr;
	return 0;
}

static int read_key_file(const char *path, char *room, size_t *bytes)
{
	int fd, err;

	if (strcmp(path, "-") == 0)
		return read_all(STDIN_FILENO, "(standard input)", room, bytes);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		mls_cli_error("key file %s: %s", path, strerror(errno));
		return errno == ENOENT ? MLS_ENOENT : MLS_EIO;
	}
	err = read_all(fd, path, room, bytes);
	close(fd);
	return err;
}

/* ---- The terminal ---- */

static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE, SIGALRM };
#define NR_CAUGHT (sizeof caught / sizeof caught[0])
static volatile sig_atomic_t got_signal;

static void note_signal(int signum)
{
	got_signal = signum;
}

static void write_tty(int tty, const char *text)
{
	if (write(tty, text, strlen(text)) < 0)
		return;		/* the answer can still be typed */
}

/*
 * Up to the newline, or a signal. Returns the number of bytes, or -1: errno, or got_signal, says why.
 *
 * unblocked  lets the caught signals in. They are blocked but in ppoll: one that came between two
 *            reads would be noted, and the next read wait all the same. tty is non-blocking.
 */
static ssize_t read_line(int tty, char *room, const sigset_t *unblocked)
{
	struct pollfd typed = { .fd = tty, .events = POLLIN };
	size_t nr = 0;

	while (nr <= MLS_CLI_SECRET_MAX_BYTES) {
		ssize_t n;

		if (ppoll(&typed, 1, NULL, unblocked) < 0)
			return -1;
		n = read(tty, room + nr, 1);
		if (n < 0 && errno == EAGAIN)
			continue;		/* ^C has taken the line away again */
		if (n < 0)
			return -1;
		if (n == 0 || room[nr] == '\n')
			break;
		nr++;
	}
	return (ssize_t)nr;
}

/* One question with the terminal and the signals changed, both restored after. */
static ssize_t ask_once(int tty, const char *prompt, char *room)
{
	struct sigaction catch = { .sa_handler = note_signal }, old_action[NR_CAUGHT];
	struct termios old, quiet;
	sigset_t block, old_mask;
	ssize_t nr = -1;
	int saved_errno;

	got_signal = 0;
	sigemptyset(&catch.sa_mask);		/* without SA_RESTART: ppoll() must return */
	sigemptyset(&block);
	for (size_t i = 0; i < NR_CAUGHT; i++)
		if (caught[i] != SIGTTIN && caught[i] != SIGTTOU)	/* these come from our own calls */
			sigaddset(&block, caught[i]);
	sigprocmask(SIG_BLOCK, &block, &old_mask);
	for (size_t i = 0; i < NR_CAUGHT; i++)
		sigaction(caught[i], &catch, &old_action[i]);

	if (tcgetattr(tty, &old) == 0) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
		quiet.c_lflag |= ICANON | ISIG;
		if (tcsetattr(tty, TCSAFLUSH, &quiet) == 0) {
			write_tty(tty, prompt);
			write_tty(tty, ": ");
			nr = read_line(tty, room, &old_mask);
		}
		saved_errno = errno;
		while (tcsetattr(tty, TCSAFLUSH, &old) < 0 && errno == EINTR && !got_signal)
			;
		write_tty(tty, "\n");
		errno = saved_errno;
	}
	saved_errno = errno;
	sigprocmask(SIG_SETMASK, &old_mask, NULL);	/* what came meanwhile is noted here */
	for (size_t i = 0; i < NR_CAUGHT; i++)
		sigaction(caught[i], &old_action[i], NULL);
	errno = saved_errno;
	return nr;
}

static int ask(int tty, const char *prompt, char *room, size_t *bytes)
{
	ssize_t nr;

	for (;;) {
		nr = ask_once(tty, prompt, room);
		if (!got_signal)
			break;
		explicit_bzero(room, ROOM_BYTES);
		raise(got_signal);	/* ends us, or stops us until we're continued */
		if (got_signal != SIGTSTP && got_signal != SIGTTIN && got_signal != SIGTTOU) {
			mls_cli_error("interrupted by signal %d", (int)got_signal);
			return MLS_EIO;
		}
	}
	if (nr < 0) {
		mls_cli_error("/dev/tty: %s", strerror(errno));
		return MLS_EIO;
	}
	if (nr == 0) {
		mls_cli_error("the passphrase is empty");
		return MLS_EINVAL;
	}
	if ((size_t)nr > MLS_CLI_SECRET_MAX_BYTES) {
		mls_cli_error("the passphrase is longer than %u bytes", MLS_CLI_SECRET_MAX_BYTES);
		return MLS_EINVAL;
	}
	*bytes = (size_t)nr;
	return 0;
}

static int ask_passphrase(const char *prompt, bool confirm, char *room, size_t *bytes)
{
	char again_prompt[256], *again = NULL;
	size_t again_bytes = 0;
	int tty, err;

	tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (tty < 0) {
		mls_cli_error("no terminal to ask for a passphrase on; use --key-file=FILE");
		return MLS_EINVAL;
	}
	err = ask(tty, prompt, room, bytes);
	if (err || !confirm)
		goto out;
	again = room_new();
	if (!again) {
		err = MLS_ENOMEM;
		goto out;
	}
	snprintf(again_prompt, sizeof again_prompt, "%s, again", prompt);
	err = ask(tty, again_prompt, again, &again_bytes);
	if (err)
		goto out;
	if (again_bytes != *bytes || memcmp(again, room, *bytes) != 0) {
		mls_cli_error("the two passphrases differ");
		err = MLS_EINVAL;
	}
out:
	room_free(again);
	close(tty);
	return err;
}

int mls_cli_read_secret(struct mls_secret *secret, const char *key_file, const char *prompt, bool confirm)
{
	char *room = room_new();
	size_t bytes = 0;
	int err;

	if (!room)
		return MLS_ENOMEM;
	if (key_file)
		err = read_key_file(key_file, room, &bytes);
	else
		err = ask_passphrase(prompt, confirm, room, &bytes);
	if (err) {
		room_free(room);
		return err;
	}
	*secret = (struct mls_secret){ .data = room, .bytes = bytes, .passphrase = !key_file };
	return 0;
}

void mls_cli_secret_release(struct mls_secret *secret)
{
	room_free((char *)secret->data);
	*secret = (struct mls_secret){ 0 };
}
