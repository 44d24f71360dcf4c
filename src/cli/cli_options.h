/* SPDX-License-Identifier: MPL-2.0 */
/*
 * cli_options.h - the options that the programs share: their names, and what each of them does.
 *
 * A program puts the entries into its table for getopt_long and, in its loop, leaves every option that
 * isn't its own to mls_cli_take_option.
 */
#ifndef MLS_CLI_CLI_OPTIONS_H
#define MLS_CLI_CLI_OPTIONS_H

#include <getopt.h>

#include "mlsdisk/mlsdisk.h"

/* Above the values that programs give to options of their own. */
enum mls_cli_option {
	MLS_CLI_OPT_KEY_FILE = 1024,
	MLS_CLI_OPT_TRUSTED_STORE,
	MLS_CLI_OPT_HELP,
	MLS_CLI_OPT_VERSION,
};

#define MLS_CLI_OPTION_KEY_FILE { "key-file", required_argument, NULL, MLS_CLI_OPT_KEY_FILE }
#define MLS_CLI_OPTION_TRUSTED_STORE { "trusted-store", required_argument, NULL, MLS_CLI_OPT_TRUSTED_STORE }
/* And the end of the table. */
#define MLS_CLI_OPTIONS_END \
	{ "help", no_argument, NULL, MLS_CLI_OPT_HELP }, { "version", no_argument, NULL, MLS_CLI_OPT_VERSION }, \
	{ NULL, 0, NULL, 0 }

struct mls_cli_options {
	const char *help_text;		/* what --help prints; the program sets it */
	const char *key_file;		/* NULL: ask */
	const char *trusted_store;	/* NULL: the default */
};

enum mls_cli_verdict {
	MLS_CLI_GO_ON,
	MLS_CLI_EXIT,	/* all is said (--help, --version, an unknown option): exit with *status */
};

/* option and optarg are as getopt_long left them; it has said what it didn't like. */
MLS_MUST_CHECK enum mls_cli_verdict mls_cli_take_option(struct mls_cli_options *options, int option, int *status);

#endif
