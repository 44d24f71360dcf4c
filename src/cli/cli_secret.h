/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli_secret.h - beside the layers: the user's secret, from a key file or the terminal.
 *
 * Role     A key file is read as a whole, every byte counts, a newline at its end too. Without
 *          one a passphrase is asked for on /dev/tty, without echo; its newline doesn't count.
 * Keys     The bytes live in pages of their own that are locked (as far as RLIMIT_MEMLOCK lets),
 *          left out of core dumps, and wiped on release.
 */
#ifndef MLS_CLI_CLI_SECRET_H
#define MLS_CLI_CLI_SECRET_H

#include "mlsdisk/mlsdisk.h"

#define MLS_CLI_SECRET_MAX_BYTES 16384u

/*
 * key_file  a path, "-" for standard input, or NULL to ask for a passphrase.
 * prompt    what to ask for, without colon: "Passphrase for disk.img". Only used if key_file is NULL.
 * confirm   ask twice (a new passphrase).
 * secret    on success to be given to mls_cli_secret_release; untouched on error.
 * Returns   0, or after a message: MLS_EINVAL: empty, too long, the two differ, or no terminal;
 *           MLS_ENOENT: no such file; MLS_EIO; MLS_ENOMEM. A signal at the prompt restores the terminal
 *           and takes its usual course.
 */
MLS_MUST_CHECK int mls_cli_read_secret(struct mls_secret *secret, const char *key_file, const char *prompt,
				       bool confirm);

/* Wipe and free; a zeroed struct is fine, and so is twice. */
void mls_cli_secret_release(struct mls_secret *secret);

#endif
