/* SPDX-License-Identifier: MPL-2.0 */
/* cli_options.c - the options that the programs share; see cli_options.h. */
#include "cli/cli_options.h"

#include <stdio.h>

#include "cli/cli.h"

enum mls_cli_verdict mls_cli_take_option(struct mls_cli_options *options, int option, int *status)
{
	switch (option) {
	case MLS_CLI_OPT_KEY_FILE:
		options->key_file = optarg;
		return MLS_CLI_GO_ON;
	case MLS_CLI_OPT_TRUSTED_STORE:
		options->trusted_store = optarg;
		return MLS_CLI_GO_ON;
	case MLS_CLI_OPT_HELP:
		fputs(options->help_text, stdout);
		*status = mls_cli_end_stdout();
		return MLS_CLI_EXIT;
	case MLS_CLI_OPT_VERSION:
		*status = mls_cli_version();
		return MLS_CLI_EXIT;
	default:
		fprintf(stderr, "Try '%s --help'.\n", mls_cli_program());
		*status = MLS_CLI_USAGE;
		return MLS_CLI_EXIT;
	}
}
