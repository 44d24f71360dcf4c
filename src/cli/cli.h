/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli.h - beside the layers: how every MlsDisk program starts, speaks and ends.
 *
 * Role     Process hygiene (no core dumps, private files), messages "PROGRAM: text" on stderr,
 *          and the exit statuses of mlsdisk(7). Uses the public header only, as any program of
 *          others would.
 * Threads  mls_cli_start before threads; the rest any.
 */
#ifndef MLS_CLI_CLI_H
#define MLS_CLI_CLI_H

#include "mlsdisk/mlsdisk.h"

enum mls_cli_status {
	MLS_CLI_DONE = 0,
	MLS_CLI_FAILED = 1,	/* I/O or system error */
	MLS_CLI_USAGE = 2,
	MLS_CLI_NO_KEY = 3,	/* wrong key or not an MlsDisk */
	MLS_CLI_TAMPERED = 4,
	MLS_CLI_STALE = 5,	/* rollback or store mismatch */
	MLS_CLI_IN_USE = 6,
};

/*
 * First call of main: umask 077, no core dumps, not to be traced by others, and the library's
 * messages (errors and warnings) go to stderr under this program's name.
 *
 * program  a string that lives as long as the process, such as "mlsdisk-format".
 */
void mls_cli_start(const char *program);

/*
 * For programs that never start another one: no_new_privs, so that a setuid program or one with file
 * capabilities, if it ever came to that, would get nothing. (mlsdisk-fuse starts fusermount3.)
 */
void mls_cli_no_new_privileges(void);

const char *mls_cli_program(void);

/* One line on stderr: "PROGRAM: text", "PROGRAM: warning: text". No newline in format. */
void mls_cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mls_cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An error and a line that points to --help. Returns MLS_CLI_USAGE, so: return mls_cli_usage(...). */
int mls_cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What --version prints. Returns MLS_CLI_DONE, or MLS_CLI_FAILED if stdout can't take it. */
int mls_cli_version(void);

/* Flush stdout. Returns MLS_CLI_DONE, or says that writing failed and returns MLS_CLI_FAILED. */
int mls_cli_end_stdout(void);

#endif
