/* SPDX-License-Identifier: MPL-2.0 */
/* fsck_args.c - the command line of mlsdisk-fsck; see fsck_args.h. mlsdisk-fsck(8) has the same text. */
#include "fsck_args.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/cli_options.h"

static const char help_text[] =
	"Usage: mlsdisk-fsck [-n|-p|-y] [--data] [-C FD] [--json] [--salvage=FILE]\n"
	"                    [--key-file=FILE] [--trusted-store=URI] BACKING\n"
	"Check a secure disk that isn't in use, and repair what can be derived from what authenticates.\n"
	"\n"
	"  -n                     look only; writes nothing, also not to the trusted store (default)\n"
	"  -p                     do the safe repairs\n"
	"  -y                     do all repairs\n"
	"  --data                 also authenticate every block of user data that is in use\n"
	"  -C FD                  progress lines on file descriptor FD: pass, done, all, BACKING;\n"
	"                         0: a bar on standard error, as there is on a terminal without -C\n"
	"  --json                 findings, one object a line, and a summary, on standard output\n"
	"  --salvage=FILE         write everything that authenticates to a new, sparse raw image, and the\n"
	"                         LBAs that are lost to FILE.map\n"
	"  --key-file=FILE        the whole file is the secret ('-': standard input); default: ask for a\n"
	"                         passphrase\n"
	"  --trusted-store=URI    file:PATH, tpm2:INDEX or none; default: a file named after the disk's\n"
	"                         UUID in /var/lib/mlsdisk (root), $XDG_STATE_HOME/mlsdisk or\n"
	"                         ~/.local/state/mlsdisk\n"
	"  --help, --version\n"
	"\n"
	"Exit status, added up: 0 clean, 1 faults corrected, 4 faults left, 8 the check couldn't be done\n"
	"(in use, wrong key, not an MlsDisk, I/O error), 16 usage, 32 cancelled.\n";

enum { OPT_DATA = 256, OPT_JSON, OPT_SALVAGE };

static const struct option long_options[] = {
	{ "data", no_argument, NULL, OPT_DATA },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "salvage", required_argument, NULL, OPT_SALVAGE },
	MLS_CLI_OPTION_KEY_FILE,
	MLS_CLI_OPTION_TRUSTED_STORE,
	MLS_CLI_OPTIONS_END,
};

static int usage(const char *message)
{
	mls_cli_error("%s", message);
	fprintf(stderr, "Try '%s --help'.\n", mls_cli_program());
	return FSCK_USAGE;
}

static int parse_fd(const char *text, int *fd)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (!isdigit((unsigned char)text[0]) || *end || n > 65535)
		return usage("-C: a file descriptor is expected");
	*fd = (int)n;
	return 0;
}

static int fsck_status(int cli_status)
{
	return cli_status == MLS_CLI_USAGE ? FSCK_USAGE : cli_status ? FSCK_FAILED : FSCK_CLEAN;
}

/* One option of ours. Returns 0 or FSCK_USAGE. *mode: the letter given, or 0. */
static int take(struct fsck_args *args, int option, int *mode)
{
	switch (option) {
	case 'n':
	case 'p':
	case 'y':
		if (*mode && *mode != option)
			return usage("only one of -n, -p and -y can be given");
		*mode = option;
		args->mode = option == 'n' ? FSCK_LOOK : option == 'p' ? FSCK_PREEN : FSCK_YES;
		return 0;
	case 'C':
		return parse_fd(optarg, &args->progress_fd);
	case OPT_DATA:
		args->data = true;
		return 0;
	case OPT_JSON:
		args->json = true;
		return 0;
	default:
		args->salvage = optarg;
		return 0;
	}
}

int fsck_args_parse(struct fsck_args *args, int argc, char **argv, bool *go_on)
{
	struct mls_cli_options shared = { .help_text = help_text };
	int option, mode = 0, status;

	*go_on = false;
	*args = (struct fsck_args){ .progress_fd = -1 };
	while ((option = getopt_long(argc, argv, "npyC:", long_options, NULL)) != -1) {
		if (option == '?' || option >= MLS_CLI_OPT_KEY_FILE) {
			if (mls_cli_take_option(&shared, option, &status) == MLS_CLI_EXIT)
				return fsck_status(status);
			continue;
		}
		status = take(args, option, &mode);
		if (status)
			return status;
	}
	args->key_file = shared.key_file;
	args->store_uri = shared.trusted_store;
	if (optind == argc)
		return usage("BACKING is missing: the file or block device that holds the disk");
	if (optind + 1 < argc)
		return usage("too many arguments");
	args->backing = argv[optind];
	*go_on = true;
	return FSCK_CLEAN;
}
