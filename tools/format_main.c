/* SPDX-License-Identifier: MPL-2.0 */
/*
 * format_main.c - mlsdisk-format: make a new secure disk.
 *
 * Nothing is written, and no file is made, before the target has been looked at and the secret is
 * known. A file that we made is removed again if the format fails.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_secret.h"
#include "cli/cli_size.h"
#include "format_args.h"
#include "format_probe.h"

struct format_job {
	struct format_args args;
	struct format_target target;
	uint64_t disk_bytes, backing_bytes;
	struct mls_secret secret;
	uint8_t uuid[MLS_UUID_BYTES];
};

/* ---- The target ---- */

/* For block devices: its size, and whether the kernel lets us have it for ourselves. */
static int look_at_block_dev(struct format_job *job)
{
	int fd = open(job->args.backing, O_RDONLY | O_EXCL | O_CLOEXEC), status = MLS_CLI_DONE;
	uint64_t bytes = 0;

	if (fd < 0 && errno == EBUSY) {
		mls_cli_error("%s: in use (mounted, or part of another device)", job->args.backing);
		return MLS_CLI_IN_USE;
	}
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
		mls_cli_error("%s: %s", job->args.backing, strerror(errno));
		status = MLS_CLI_FAILED;
	}
	if (fd >= 0)
		close(fd);
	job->target.is_block_dev = true;
	job->target.bytes = bytes;
	return status;
}

static int look_at_target(struct format_job *job)
{
	const char *path = job->args.backing;
	struct stat st;

	if (stat(path, &st) < 0) {
		if (errno == ENOENT)
			return MLS_CLI_DONE;
		mls_cli_error("%s: %s", path, strerror(errno));
		return MLS_CLI_FAILED;
	}
	job->target.exists = true;
	if (S_ISBLK(st.st_mode))
		return look_at_block_dev(job);
	if (!S_ISREG(st.st_mode))
		return mls_cli_usage("%s is neither a regular file nor a block device", path);
	job->target.bytes = (uint64_t)st.st_size;
	return MLS_CLI_DONE;
}

static int refuse_if_it_holds_something(const struct format_job *job)
{
	char found[FORMAT_FOUND_BYTES] = "";
	int err;

	if (job->target.bytes < MLS_BLOCK_BYTES)
		return MLS_CLI_DONE;
	err = format_probe(job->args.backing, found);
	if (err)
		return mls_exit_status(err);
	if (!found[0] || job->args.force)
		return MLS_CLI_DONE;
	mls_cli_error("%s holds %s; left as it is. To destroy all of it, use --force", job->args.backing, found);
	return MLS_CLI_FAILED;
}

/* ---- Making it ---- */

static int open_dev(const struct format_job *job, struct mls_block_dev **dev)
{
	if (job->target.is_block_dev)
		return mls_block_dev_open(dev, job->args.backing, 0, 0);
	return mls_block_dev_open(dev, job->args.backing, MLS_DEV_CREATE, job->backing_bytes);
}

static int make_disk(struct format_job *job)
{
	const struct mls_format_opts opts = { .disk_bytes = job->disk_bytes };
	struct mls_trusted_store *store = NULL;
	struct mls_block_dev *dev = NULL;
	int err;

	err = mls_uuid_new(job->uuid);
	if (!err)
		err = mls_trusted_store_open(&store, job->args.store_uri, job->uuid);
	if (!err)
		err = open_dev(job, &dev);
	if (err == MLS_EBUSY)
		mls_cli_error("%s: not formatted: it, or its trusted store, is in use by another process",
			      job->args.backing);
	else if (err)
		mls_cli_error("%s: not formatted: %s", job->args.backing, mls_strerror(err));
	else
		err = mls_disk_format(dev, store, &job->secret, job->uuid, &opts);
	if (err && dev) {
		mls_cli_error("%s: can't be formatted: %s", job->args.backing, mls_strerror(err));
		if (!job->target.exists)
			(void)unlink(job->args.backing);
	}
	mls_block_dev_destroy(dev);
	mls_trusted_store_destroy(store);
	return mls_exit_status(err);
}

/* ---- Saying it ---- */

static void print_key(const struct format_job *job)
{
	if (!job->args.key_file)
		printf("passphrase");
	else if (job->secret.bytes < 32)
		printf("key file %s (stretched like a passphrase: it has less than 32 bytes)", job->args.key_file);
	else
		printf("key file %s", job->args.key_file);
	printf(", in key slot 0 of %u\n", MLS_NR_KEY_SLOTS);
}

static int report(const struct format_job *job)
{
	const struct format_args *args = &job->args;
	char text[MLS_CLI_SIZE_TEXT_BYTES], uuid[MLS_UUID_TEXT_BYTES], path[PATH_MAX] = "?";

	mls_uuid_format(uuid, job->uuid);
	printf("%s is an MlsDisk now.\n", args->backing);
	printf("  size           %s\n", mls_cli_format_size(text, job->disk_bytes));
	printf("  backing        %s%s\n", mls_cli_format_size(text, job->backing_bytes),
	       job->target.is_block_dev ? "" : ", sparse");
	printf("  UUID           %s\n", uuid);
	if (args->store_uri)
		printf("  trusted store  %s\n", args->store_uri);
	else if (mls_trusted_store_default_path(path, sizeof path, job->uuid) == 0)
		printf("  trusted store  file:%s\n", path);
	printf("  key            ");
	print_key(job);
	printf("Next: mlsdisk-fuse");
	if (args->key_file)
		printf(" --key-file=%s", args->key_file);
	if (args->store_uri)
		printf(" --trusted-store=%s", args->store_uri);
	printf(" %s MOUNTPOINT\n", args->backing);
	return mls_cli_end_stdout();
}

static int run(struct format_job *job)
{
	char prompt[256];
	int status;

	status = look_at_target(job);
	if (!status)
		status = format_sizes(&job->args, &job->target, &job->disk_bytes, &job->backing_bytes);
	if (!status)
		status = refuse_if_it_holds_something(job);
	if (status)
		return status;
	if (job->args.store_uri && strcmp(job->args.store_uri, "none") == 0)
		mls_cli_warn("no trusted store: whoever has BACKING can put back an old copy of the disk unnoticed");
	snprintf(prompt, sizeof prompt, "New passphrase for %s", job->args.backing);
	status = mls_exit_status(mls_cli_read_secret(&job->secret, job->args.key_file, prompt, true));
	if (!status)
		status = make_disk(job);
	if (!status)
		status = report(job);
	mls_cli_secret_release(&job->secret);
	return status;
}

int main(int argc, char **argv)
{
	struct format_job job = { 0 };
	bool go_on;
	int status;

	mls_cli_start("mlsdisk-format");
	mls_cli_no_new_privileges();
	status = format_args_parse(&job.args, argc, argv, &go_on);
	return go_on ? run(&job) : status;
}
