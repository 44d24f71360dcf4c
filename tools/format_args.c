/* SPDX-License-Identifier: MPL-2.0 */
/* format_args.c - the command line of mlsdisk-format; see format_args.h. mlsdisk-format(8) has the same text. */
#define _GNU_SOURCE		/* O_TMPFILE */
#include "format_args.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_options.h"
#include "cli/cli_size.h"

#define FILE_STEP_BYTES (UINT64_C(1) << 20)

static const char help_text[] =
	"Usage: mlsdisk-format [--size=SIZE] [--backing-size=SIZE] [--key-file=FILE]\n"
	"                      [--trusted-store=URI] [--force] BACKING\n"
	"Make a new secure disk on BACKING, a regular file (created sparse) or a block device.\n"
	"\n"
	"  --size=SIZE            size of the disk; default: the largest that BACKING can hold\n"
	"  --backing-size=SIZE    length of the file; default: what --size needs, with room for cleaning\n"
	"  --key-file=FILE        the whole file is the secret ('-': standard input); default: ask for a\n"
	"                         passphrase, twice\n"
	"  --trusted-store=URI    file:PATH, tpm2:INDEX (a TPM's NV index, such as 0x01800001), or none\n"
	"                         (freshness across restarts is given up); default: a file named after\n"
	"                         the disk's UUID in /var/lib/mlsdisk (root), $XDG_STATE_HOME/mlsdisk or\n"
	"                         ~/.local/state/mlsdisk\n"
	"  --force                overwrite an MlsDisk, file system or partition table\n"
	"  --help, --version\n"
	"\n"
	"SIZE: a number with K, M, G or T (powers of 1024). A new file needs one of the two sizes.\n"
	"\n"
	"Exit status: 0 done, 1 I/O or system error, or BACKING holds something, 2 usage, 3 wrong key or\n"
	"not an MlsDisk, 4 integrity violation, 5 trusted store of another disk, 6 in use.\n";

enum { OPT_SIZE = 256, OPT_BACKING_SIZE, OPT_FORCE };

static const struct option long_options[] = {
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "backing-size", required_argument, NULL, OPT_BACKING_SIZE },
	MLS_CLI_OPTION_KEY_FILE,
	MLS_CLI_OPTION_TRUSTED_STORE,
	{ "force", no_argument, NULL, OPT_FORCE },
	MLS_CLI_OPTIONS_END,
};

int format_args_parse(struct format_args *args, int argc, char **argv, bool *go_on)
{
	struct mls_cli_options shared = { .help_text = help_text };
	int option, status;

	*go_on = false;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case OPT_SIZE:
			if (mls_cli_parse_size("--size", optarg, &args->size_bytes))
				return MLS_CLI_USAGE;
			break;
		case OPT_BACKING_SIZE:
			if (mls_cli_parse_size("--backing-size", optarg, &args->backing_bytes))
				return MLS_CLI_USAGE;
			break;
		case OPT_FORCE:
			args->force = true;
			break;
		default:
			if (mls_cli_take_option(&shared, option, &status) == MLS_CLI_EXIT)
				return status;
		}
	}
	args->key_file = shared.key_file;
	args->store_uri = shared.trusted_store;
	if (optind == argc)
		return mls_cli_usage("BACKING is missing: the file or block device to make the disk on");
	if (optind + 1 < argc)
		return mls_cli_usage("too many arguments: '%s'", argv[optind + 1]);
	args->backing = argv[optind];
	*go_on = true;
	return MLS_CLI_DONE;
}

/* The longest file, up to wanted bytes, that path's file system takes (ext4 ends at 16 TiB): asked of
 * a file without a name. When in doubt, wanted: making the real one tells. */
static uint64_t longest_file(const char *path, uint64_t wanted)
{
	char *copy = strdup(path);
	uint64_t low = 0, high = wanted / FILE_STEP_BYTES;
	int fd = copy ? open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;

	free(copy);
	if (fd < 0)
		return wanted;
	if (ftruncate(fd, (off_t)wanted) == 0 || errno != EFBIG) {
		close(fd);
		return wanted;
	}
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (ftruncate(fd, (off_t)(middle * FILE_STEP_BYTES)) == 0)
			low = middle;
		else
			high = middle;
	}
	close(fd);
	return low * FILE_STEP_BYTES;
}

static int choose_backing(const struct format_args *args, const struct format_target *target, uint64_t *bytes)
{
	char text[MLS_CLI_SIZE_TEXT_BYTES];
	uint64_t needed;

	if (target->is_block_dev && args->backing_bytes)
		return mls_cli_usage("--backing-size is for files; %s is a block device of %s", args->backing,
				     mls_cli_format_size(text, target->bytes));
	if (args->backing_bytes && args->backing_bytes < target->bytes)
		return mls_cli_usage("%s is longer than --backing-size: it has %s; leave out --backing-size to use "
				     "all of it", args->backing, mls_cli_format_size(text, target->bytes));
	if (args->backing_bytes) {
		*bytes = args->backing_bytes;
		return MLS_CLI_DONE;
	}
	if (target->is_block_dev || !args->size_bytes) {
		if (target->bytes == 0)
			return mls_cli_usage("%s is %s: give --size=SIZE or --backing-size=SIZE", args->backing,
					     target->exists ? "empty" : "a new file");
		*bytes = target->bytes;
		return MLS_CLI_DONE;
	}
	needed = mls_backing_bytes(args->size_bytes);
	if (needed > INT64_MAX)
		return mls_cli_usage("--size: too large: no file can hold that disk");
	if (needed > target->bytes)
		needed = longest_file(args->backing, needed);
	*bytes = needed > target->bytes ? needed : target->bytes;
	return MLS_CLI_DONE;
}

int format_sizes(const struct format_args *args, const struct format_target *target, uint64_t *disk_bytes,
		 uint64_t *backing_bytes)
{
	char text[3][MLS_CLI_SIZE_TEXT_BYTES];
	uint64_t backing = 0, holds;
	int status;

	if (args->size_bytes && args->size_bytes < MLS_BLOCK_BYTES)
		return mls_cli_usage("--size: a disk has at least one block of %u bytes", MLS_BLOCK_BYTES);
	status = choose_backing(args, target, &backing);
	if (status)
		return status;
	holds = mls_disk_bytes_for_backing(backing);
	if (holds == 0) {
		mls_cli_error("%s: too small: %s, but the smallest disk needs %s", args->backing,
			      mls_cli_format_size(text[0], backing),
			      mls_cli_format_size(text[1], mls_backing_bytes(MLS_BLOCK_BYTES)));
		return MLS_CLI_FAILED;
	}
	*backing_bytes = backing;
	*disk_bytes = args->size_bytes ? args->size_bytes / MLS_BLOCK_BYTES * MLS_BLOCK_BYTES : holds;
	if (*disk_bytes > holds)
		mls_cli_warn("a disk of %s on %s is thin: once about %s are in use, writes fail with 'no space'",
			     mls_cli_format_size(text[0], *disk_bytes), mls_cli_format_size(text[1], backing),
			     mls_cli_format_size(text[2], holds));
	return MLS_CLI_DONE;
}
