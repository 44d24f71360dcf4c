/* SPDX-License-Identifier: MPL-2.0 */
/* test_cli.c - sizes, key files and passphrases as the programs take them. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include <check.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_secret.h"
#include "cli/cli_size.h"
#include "tests/lib/check_run.h"

START_TEST(sizes_are_powers_of_1024)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "1", 1 },			{ "4096", 4096 },
		{ "4096B", 4096 },		{ "1K", 1024 },
		{ "1k", 1024 },			{ "64M", 64ull << 20 },
		{ "16G", 16ull << 30 },		{ "16GiB", 16ull << 30 },
		{ "16GB", 16ull << 30 },	{ "16gib", 16ull << 30 },
		{ "2T", 2ull << 40 },		{ "8388607T", 8388607ull << 40 },
		{ "007K", 7 * 1024 },		{ "9223372036854775807", INT64_MAX },
	};

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		uint64_t bytes = 0;

		ck_assert_msg(mls_cli_parse_size("--size", good[i].text, &bytes) == 0, "%s", good[i].text);
		ck_assert_uint_eq(bytes, good[i].bytes);
	}
}
END_TEST

START_TEST(bad_sizes_are_refused)
{
	static const char *const bad[] = {
		"",	 " 1",	  "-1",	   "+1",  "G",		 "0",	 "0K",
		"1.5G",	 "1 G",	  "1GG",   "1P",  "1KiBs",	 "1i",	 "1Ki",
		"0x10",	 "1e9",	  "inf",   "1K ", "8388608T",	 "9223372036854775808",
		"18446744073709551616", "99999999999999999999999999", "17179869184G",
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint64_t bytes = 77;

		ck_assert_msg(mls_cli_parse_size("--size", bad[i], &bytes) == MLS_EINVAL, "'%s'", bad[i]);
		ck_assert_uint_eq(bytes, 77);
	}
}
END_TEST

START_TEST(sizes_are_printed_for_people)
{
	char text[MLS_CLI_SIZE_TEXT_BYTES];

	ck_assert_str_eq(mls_cli_format_size(text, 0), "0 bytes");
	ck_assert_str_eq(mls_cli_format_size(text, 1023), "1023 bytes");
	ck_assert_str_eq(mls_cli_format_size(text, 1024), "1 KiB");
	ck_assert_str_eq(mls_cli_format_size(text, 1536), "1.5 KiB");
	ck_assert_str_eq(mls_cli_format_size(text, 16ull << 30), "16 GiB");
	ck_assert_str_eq(mls_cli_format_size(text, (16ull << 30) - 1), "15.9 GiB");
	ck_assert_str_eq(mls_cli_format_size(text, UINT64_MAX), "16777215.9 TiB");
}
END_TEST

static char dir[64];

static char *key_file(const void *data, size_t bytes)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof path, "%s/key", dir);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
	ck_assert_int_eq(fclose(f), 0);
	return path;
}

START_TEST(key_file_counts_every_byte)
{
	struct mls_secret secret = { 0 };

	ck_assert_int_eq(mls_cli_read_secret(&secret, key_file("a\0b\n", 4), NULL, false), 0);
	ck_assert_uint_eq(secret.bytes, 4);
	ck_assert(!secret.passphrase);
	ck_assert_mem_eq(secret.data, "a\0b\n", 4);
	mls_cli_secret_release(&secret);
	ck_assert_ptr_null(secret.data);
	mls_cli_secret_release(&secret);
}
END_TEST

START_TEST(key_file_of_wrong_length_is_refused)
{
	static char big[MLS_CLI_SECRET_MAX_BYTES + 1];
	struct mls_secret secret = { 0 };

	ck_assert_int_eq(mls_cli_read_secret(&secret, key_file("", 0), NULL, false), MLS_EINVAL);
	ck_assert_int_eq(mls_cli_read_secret(&secret, key_file(big, sizeof big), NULL, false), MLS_EINVAL);
	ck_assert_int_eq(mls_cli_read_secret(&secret, key_file(big, sizeof big - 1), NULL, false), 0);
	ck_assert_uint_eq(secret.bytes, MLS_CLI_SECRET_MAX_BYTES);
	mls_cli_secret_release(&secret);
	ck_assert_int_eq(mls_cli_read_secret(&secret, "/nonexistent/key", NULL, false), MLS_ENOENT);
	ck_assert_int_eq(mls_cli_read_secret(&secret, dir, NULL, false), MLS_EIO);
	ck_assert_ptr_null(secret.data);
}
END_TEST

/* ---- The terminal: a child at the prompt, and we are the user ---- */

struct user {
	int tty;		/* our side */
	pid_t pid;
	char screen[4096];
	size_t nr;
};

/* In a coverage build: _exit would lose what was counted. */
extern void __gcov_dump(void) __attribute__((weak));

/* What the child does: 40 + number of bytes read, or -error. */
static _Noreturn void ask_and_exit(bool confirm)
{
	struct mls_secret secret = { 0 };
	int err = mls_cli_read_secret(&secret, NULL, "Passphrase", confirm);
	int status = err ? -err : 40 + (int)secret.bytes;

	if (!err && memcmp(secret.data, "sesame", 6) != 0)
		status = 99;
	mls_cli_secret_release(&secret);
	if (__gcov_dump)
		__gcov_dump();
	_exit(status);
}

static void user_start(struct user *user, bool confirm)
{
	memset(user, 0, sizeof *user);
	user->pid = forkpty(&user->tty, NULL, NULL, NULL);
	ck_assert_int_ge(user->pid, 0);
	if (user->pid == 0) {
		signal(SIGINT, SIG_DFL);	/* Check has handlers of its own */
		ask_and_exit(confirm);
	}
}

/* Read the screen until it shows text a given number of times, or the child is gone. */
static void user_await(struct user *user, const char *text, unsigned times)
{
	for (;;) {
		unsigned seen = 0;
		ssize_t n;

		for (const char *p = user->screen; (p = strstr(p, text)) != NULL; p++)
			seen++;
		if (seen >= times)
			return;
		n = read(user->tty, user->screen + user->nr, sizeof user->screen - 1 - user->nr);
		if (n <= 0)
			return;
		user->nr += (size_t)n;
	}
}

static void user_type(struct user *user, const char *keys)
{
	ck_assert_int_eq(write(user->tty, keys, strlen(keys)), (ssize_t)strlen(keys));
}

/* Returns wait's status. */
static int user_end(struct user *user)
{
	int status = 0;

	user_await(user, "no such text", 1);
	ck_assert_int_eq(waitpid(user->pid, &status, 0), user->pid);
	close(user->tty);
	return status;
}

START_TEST(passphrase_is_asked_without_echo)
{
	struct user user;

	user_start(&user, false);
	user_await(&user, "Passphrase: ", 1);
	user_type(&user, "sesame\n");
	ck_assert_int_eq(WEXITSTATUS(user_end(&user)), 46);
	ck_assert_ptr_null(strstr(user.screen, "sesame"));
}
END_TEST

START_TEST(new_passphrase_is_asked_twice)
{
	static const struct {
		const char *again;
		int status;
	} cases[] = { { "sesame\n", 46 }, { "sesamE\n", -MLS_EINVAL }, { "sesame \n", -MLS_EINVAL }, { "\n", -MLS_EINVAL } };

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct user user;

		user_start(&user, true);
		user_await(&user, "Passphrase: ", 1);
		user_type(&user, "sesame\n");
		user_await(&user, "again: ", 1);
		user_type(&user, cases[i].again);
		ck_assert_int_eq(WEXITSTATUS(user_end(&user)), cases[i].status);
	}
}
END_TEST

START_TEST(empty_passphrase_is_refused)
{
	struct user user;

	user_start(&user, false);
	user_await(&user, "Passphrase: ", 1);
	user_type(&user, "\n");
	ck_assert_int_eq(WEXITSTATUS(user_end(&user)), -MLS_EINVAL);
}
END_TEST

START_TEST(signal_at_the_prompt_restores_the_terminal)
{
	struct termios asking, after;
	struct user user;
	int status, side;

	user_start(&user, false);
	side = open(ptsname(user.tty), O_RDWR | O_NOCTTY);	/* keeps the terminal when the child is gone */
	ck_assert_int_ge(side, 0);
	user_await(&user, "Passphrase: ", 1);
	ck_assert_int_eq(tcgetattr(side, &asking), 0);
	ck_assert((asking.c_lflag & ECHO) == 0);
	user_type(&user, "half\003");
	ck_assert_int_eq(waitpid(user.pid, &status, 0), user.pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
	ck_assert_int_eq(tcgetattr(side, &after), 0);
	ck_assert((after.c_lflag & ECHO) != 0);
	close(side);
	close(user.tty);
}
END_TEST

START_TEST(files_are_private_after_start)
{
	mode_t mask;

	mls_cli_start("test_cli");
	mask = umask(0);
	umask(mask);
	ck_assert_uint_eq(mask, 077);
	ck_assert_str_eq(mls_cli_program(), "test_cli");
	ck_assert_int_eq(mls_cli_usage("a usage error, as expected"), 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cli");
	TCase *tc = tcase_create("cli");
	int status;
	char key[128];

	snprintf(dir, sizeof dir, "/tmp/test_cli.XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	tcase_add_test(tc, sizes_are_powers_of_1024);
	tcase_add_test(tc, bad_sizes_are_refused);
	tcase_add_test(tc, sizes_are_printed_for_people);
	tcase_add_test(tc, key_file_counts_every_byte);
	tcase_add_test(tc, key_file_of_wrong_length_is_refused);
	tcase_add_test(tc, passphrase_is_asked_without_echo);
	tcase_add_test(tc, new_passphrase_is_asked_twice);
	tcase_add_test(tc, empty_passphrase_is_refused);
	tcase_add_test(tc, signal_at_the_prompt_restores_the_terminal);
	tcase_add_test(tc, files_are_private_after_start);
	suite_add_tcase(suite, tc);
	status = check_run(suite);
	snprintf(key, sizeof key, "%s/key", dir);
	unlink(key);
	rmdir(dir);
	return status;
}
