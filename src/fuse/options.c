/* SPDX-License-Identifier: MPL-2.0 */
/* options.c - the command line of mlsdisk-fuse; the man page says the same at length. */

#include "fuse/options.h"

#include <fuse_opt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/cli_options.h"
#include "cli/cli_size.h"

static const char help_text[] =
	"Usage: mlsdisk-fuse [OPTION]... BACKING MOUNTPOINT\n"
	"       mlsdisk-fuse [OPTION]... MOUNTPOINT\n"
	"Show the secure disk that BACKING holds as MOUNTPOINT/image.raw. Without BACKING, the default\n"
	"disk: 16 GiB, thin, made on first use with a fresh key file.\n"
	"\n"
	"  --key-file=FILE         the whole FILE is the secret ('-': standard input); without it a\n"
	"                          passphrase is asked for\n"
	"  --trusted-store=URI     file:PATH, tpm2:INDEX or none; default: a file named after the\n"
	"                          disk's UUID in /var/lib/mlsdisk (root) or ~/.local/state/mlsdisk\n"
	"  --accept-rollback       once: accept a BACKING older than the trusted store knows\n"
	"  --read-only             write nothing, not even to the trusted store\n"
	"  --cache-size=SIZE       bound of the index cache (K, M, G, T: powers of 1024)\n"
	"  --sync-policy=early     when unsynced data outgrows the space: sync by itself (default)\n"
	"  --sync-policy=strict    ... answer 'no space' instead\n"
	"  -f, --foreground        stay in the foreground, log to stderr\n"
	"  -o nodiscard            keep the space of a backing file that the disk doesn't need any more\n"
	"  -o discard              ... give back that of a block device, too\n"
	"  -o nodefrag             don't put into sequence on BACKING what is read in sequence\n"
	"  -o OPT[,OPT...]         mount options of FUSE, such as allow_other\n"
	"  --help, --version\n"
	"\n"
	"Returns 0 once image.raw is ready. Exit status: 0 done, 1 I/O or system error, 2 usage, 3 wrong\n"
	"key or not an MlsDisk, 4 integrity violation, 5 rollback or store mismatch, 6 in use.\n"
	"See mlsdisk-fuse(1).\n";

int mls_fuse_options_add_mount_option(struct mls_fuse_options *options, const char *name, const char *value)
{
	char *text = NULL;
	int failed;

	if (value) {
		if (asprintf(&text, "%s=%s", name, value) < 0)
			return MLS_ENOMEM;
		failed = fuse_opt_add_opt_escaped(&options->mount_options, text);
		free(text);
	} else {
		failed = fuse_opt_add_opt(&options->mount_options, name);
	}
	return failed ? MLS_ENOMEM : MLS_OK;
}

/* These five are ours to know; all others go to libfuse, which refuses what it doesn't know. */
static int take_mount_options(struct mls_fuse_options *options, const char *list)
{
	char *copy = strdup(list), *rest = copy, *one;
	int err = copy ? MLS_OK : MLS_ENOMEM;

	while (!err && (one = strsep(&rest, ",")) != NULL) {
		if (strcmp(one, "ro") == 0)
			options->read_only = true;
		else if (strcmp(one, "discard") == 0 || strcmp(one, "nodiscard") == 0)
			options->no_discard = !(options->discard = *one == 'd');
		else if (strcmp(one, "nodefrag") == 0)
			options->no_defrag = true;
		else if (strcmp(one, "rw") != 0 && *one)
			err = mls_fuse_options_add_mount_option(options, one, NULL);
	}
	free(copy);
	return err;
}

enum {
	OPT_ACCEPT_ROLLBACK = 256,
	OPT_READ_ONLY,
	OPT_CACHE_SIZE,
	OPT_SYNC_POLICY,
};

static const struct option long_options[] = {
	MLS_CLI_OPTION_KEY_FILE,
	MLS_CLI_OPTION_TRUSTED_STORE,
	{"accept-rollback", no_argument, NULL, OPT_ACCEPT_ROLLBACK},
	{"read-only", no_argument, NULL, OPT_READ_ONLY},
	{"cache-size", required_argument, NULL, OPT_CACHE_SIZE},
	{"sync-policy", required_argument, NULL, OPT_SYNC_POLICY},
	{"foreground", no_argument, NULL, 'f'},
	MLS_CLI_OPTIONS_END,
};

static int take_sync_policy(struct mls_fuse_options *options, const char *policy)
{
	if (strcmp(policy, "strict") == 0)
		options->strict_sync = true;
	else if (strcmp(policy, "early") == 0)
		options->strict_sync = false;
	else
		return mls_cli_usage("--sync-policy=%s: expected early or strict", policy);
	return 0;
}

/* An option of ours alone. Returns an exit status, 0 to go on. */
static int take_option(struct mls_fuse_options *options, int option)
{
	switch (option) {
	case OPT_ACCEPT_ROLLBACK:
		options->accept_rollback = true;
		return 0;
	case OPT_READ_ONLY:
		options->read_only = true;
		return 0;
	case OPT_CACHE_SIZE:
		return mls_cli_parse_size("--cache-size", optarg, &options->cache_bytes) ? MLS_CLI_USAGE : 0;
	case OPT_SYNC_POLICY:
		return take_sync_policy(options, optarg);
	case 'f':
		options->foreground = true;
		return 0;
	default: /* -o */
		if (!take_mount_options(options, optarg))
			return 0;
		mls_cli_error("out of memory");
		return MLS_CLI_FAILED;
	}
}

static int take_operands(struct mls_fuse_options *options, int nr, char **operands)
{
	if (nr < 1)
		return mls_cli_usage("a mount point is missing");
	if (nr > 2)
		return mls_cli_usage("too many arguments: %s", operands[2]);
	options->backing = nr == 2 ? operands[0] : NULL;
	options->mount_point = operands[nr - 1];
	if (!options->backing && (options->key_file || options->trusted_store))
		return mls_cli_usage("the default disk has its own key file and trusted store: "
				     "give BACKING too, or leave out --key-file and --trusted-store");
	if (options->read_only && options->accept_rollback)
		return mls_cli_usage("--accept-rollback writes; it can't be used with --read-only");
	return 0;
}

enum mls_options_verdict mls_fuse_options_parse(struct mls_fuse_options *options, int argc, char **argv,
						int *status)
{
	struct mls_cli_options shared = {.help_text = help_text};
	int option;

	*options = (struct mls_fuse_options){0};
	while ((option = getopt_long(argc, argv, "fo:", long_options, NULL)) != -1) {
		if (option == '?' || option >= MLS_CLI_OPT_KEY_FILE) {
			if (mls_cli_take_option(&shared, option, status) == MLS_CLI_EXIT)
				return MLS_OPTIONS_EXIT;
			continue;
		}
		*status = take_option(options, option);
		if (*status)
			return MLS_OPTIONS_EXIT;
	}
	options->key_file = shared.key_file;
	options->trusted_store = shared.trusted_store;
	*status = take_operands(options, argc - optind, argv + optind);
	return *status ? MLS_OPTIONS_EXIT : MLS_OPTIONS_RUN;
}
