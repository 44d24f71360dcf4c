/* SPDX-License-Identifier: MPL-2.0 */
/* fsck_args.c - the command line of mlsdisk-fsck; see fsck_args.h. mlsdisk-fsck(8) has the same text. */
#include "fsck_args.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

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

enum { OPT_DATA = 256, OPT_JSON, OPT_SALVAGE, OPT_KEY_FILE, OPT_TRUSTED_STORE, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
	{ "data", no_argument, NULL, OPT_DATA },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "salvage", required_argument, NULL, OPT_SALVAGE },
	{ "key-file", required_argument, NULL, OPT_KEY_FILE },
	{ "trusted-store", required_argument, NULL, OPT_TRUSTED_STORE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
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

/* One option; 0, or FSCK_USAGE. *mode: the letter given, or 0. */
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
	case OPT_SALVAGE:
		args->salvage = optarg;
		return 0;
	case OPT_KEY_FILE:
		args->key_file = optarg;
		return 0;
	case OPT_TRUSTED_STORE:
		args->store_uri = optarg;
		return 0;
	default:
		fprintf(stderr, "Try '%s --help'.\n", mls_cli_program());
		return FSCK_USAGE;
	}
}

int fsck_args_parse(struct fsck_args *args, int argc, char **argv, bool *go_on)
{
	int option, mode = 0, status;

	*go_on = false;
	*args = (struct fsck_args){ .progress_fd = -1 };
	while ((option = getopt_long(argc, argv, "npyC:", long_options, NULL)) != -1) {
		if (option == OPT_HELP) {
			fputs(help_text, stdout);
			return mls_cli_end_stdout() ? FSCK_FAILED : FSCK_CLEAN;
		}
		if (option == OPT_VERSION)
			return mls_cli_version() ? FSCK_FAILED : FSCK_CLEAN;
		status = take(args, option, &mode);
		if (status)
			return status;
	}
	if (optind == argc)
		return usage("BACKING is missing: the file or block device that holds the disk");
	if (optind + 1 < argc)
		return usage("too many arguments");
	args->backing = argv[optind];
	*go_on = true;
	return FSCK_CLEAN;
}
