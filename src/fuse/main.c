/* SPDX-License-Identifier: MPL-2.0 */
/*
 * main.c - mlsdisk-fuse: a secure disk as one file, MOUNTPOINT/image.raw.
 *
 * The order of things, and why:
 *   options, default disk, mount point           in the terminal: they may ask and explain
 *   unmounter                                    a process of its own, which mustn't know the secret
 *   secret                                       still in the terminal
 *   fork                                         before any thread, lock or key but the secret
 *   harden, block signals                        threads inherit both
 *   device, probe, trusted store, disk           read main's open_disk: it is the whole stack
 *   mount, INIT                                  the last that needs system calls which...
 *   confine                                      ...are refused from here on, in all threads
 *   ready                                        the parent returns 0 only now
 *   workers                                      until unmounted or told to end
 *   disk closed (synced), unmounted              in this order: what was answered is safe before
 *                                                the mount goes
 */

#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_secret.h"
#include "cli/cli_size.h"
#include "fuse/confine.h"
#include "fuse/daemon.h"
#include "fuse/default_disk.h"
#include "fuse/harden.h"
#include "fuse/image_ops.h"
#include "fuse/kernel_io.h"
#include "fuse/log_sink.h"
#include "fuse/mount_point.h"
#include "fuse/options.h"
#include "fuse/unmounter.h"
#include "fuse/workers.h"

struct stack {
	struct mls_block_dev *dev;
	struct mls_trusted_store *store;
	struct mls_disk *disk;
};

/* ---- The disk ------------------------------------------------------------------------------ */

/* What the user can do about a refusal. The engine has said where and what it found. */
static void explain_refusal(const struct mls_fuse_options *options, int err)
{
	const char *backing = options->backing;

	switch (err) {
	case MLS_EKEY:
		mls_say(MLS_LOG_ERROR,
			"%s: expected the key of one of its slots, found that this %s opens none of "
			"them; try another",
			backing, options->key_file ? "key file" : "passphrase");
		break;
	case MLS_EFORMAT:
		mls_say(MLS_LOG_ERROR, "%s: expected an MlsDisk, found none (mlsdisk-format makes one)",
			backing);
		break;
	case MLS_EAUTH:
		mls_say(MLS_LOG_ERROR,
			"%s: refused: it has been changed by others, or the medium is damaged; "
			"put back a whole copy you trust",
			backing);
		break;
	case MLS_ESTALE:
		mls_say(MLS_LOG_ERROR,
			"%s: refused: it isn't the state that the trusted store knows. If you put back "
			"a backup yourself, open it once with --accept-rollback; if the store was moved, "
			"name it with --trusted-store",
			backing);
		break;
	case MLS_EBUSY:
		mls_say(MLS_LOG_ERROR,
			"%s: in use by another process; a disk has one user at a time (after "
			"unmounting, the daemon still writes for a moment)",
			backing);
		break;
	default:
		mls_say(MLS_LOG_ERROR, "%s: %s", backing, mls_strerror(err));
	}
}

static void stack_close(struct stack *stack)
{
	mls_trusted_store_destroy(stack->store);
	mls_block_dev_destroy(stack->dev);
}

static int stack_open(struct stack *stack, const struct mls_fuse_options *options,
		      const struct mls_secret *secret)
{
	const struct mls_open_opts opts = {
		.read_only = options->read_only,
		.accept_rollback = options->accept_rollback,
		.strict_sync = options->strict_sync,
		.no_discard = options->no_discard,
		.no_defrag = options->no_defrag,
		.cache_bytes = options->cache_bytes,
	};
	unsigned dev_flags = (options->read_only ? MLS_DEV_READ_ONLY : 0) | (options->discard ? MLS_DEV_DISCARD : 0);
	struct mls_probe probe;
	int err;

	err = mls_block_dev_open(&stack->dev, options->backing, dev_flags, 0);
	if (err)
		goto failed;
	err = mls_probe(stack->dev, &probe);
	if (!err && !probe.is_mlsdisk)
		err = MLS_EFORMAT;
	if (err)
		goto failed;
	err = mls_trusted_store_open(&stack->store, options->trusted_store, probe.uuid);
	if (err)
		goto failed;
	if (!stack->store)
		mls_say(MLS_LOG_WARNING,
			"no trusted store: an older copy of %s put back while it's closed won't be noticed",
			options->backing);
	err = mls_disk_open(&stack->disk, stack->dev, stack->store, secret, &opts);
	if (!err)
		return MLS_OK;
failed:
	explain_refusal(options, err);
	stack_close(stack);
	return err;
}

/* ---- The mount ----------------------------------------------------------------------------- */

static int add_mount_options(struct mls_fuse_options *options)
{
	char max_read[16];
	int err;

	snprintf(max_read, sizeof max_read, "%u", MLS_FUSE_MAX_IO_BYTES);
	err = mls_fuse_options_add_mount_option(options, "subtype", MLS_FUSE_SUBTYPE);
	if (!err)
		err = mls_fuse_options_add_mount_option(options, "fsname", options->backing);
	if (!err)
		err = mls_fuse_options_add_mount_option(options, "max_read", max_read);
	if (!err)
		err = mls_fuse_options_add_mount_option(options, "default_permissions", NULL);
	if (!err && options->read_only)
		err = mls_fuse_options_add_mount_option(options, "ro", NULL);
	return err;
}

static struct fuse_session *session_new(struct mls_fuse_options *options, struct mls_image *image)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;

	if (add_mount_options(options) || fuse_opt_add_arg(&args, "mlsdisk-fuse") ||
	    fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, options->mount_options))
		mls_say(MLS_LOG_ERROR, "out of memory");
	else
		session = fuse_session_new(&args, &mls_image_ops, sizeof mls_image_ops, image);
	fuse_opt_free_args(&args);
	return session;
}

/* The kernel keeps even root out of another user's mount, and losetup runs as root. */
static void say_who_may_use(const struct mls_fuse_options *options)
{
	const char *given = options->mount_options ? options->mount_options : "";

	if (geteuid() != 0 && !strstr(given, "allow_other") && !strstr(given, "allow_root"))
		mls_say(MLS_LOG_INFO, "only you can use %s, not even root: for losetup, add -o allow_other",
			options->mount_point);
}

static void say_ready(const struct mls_fuse_options *options, const struct mls_image *image)
{
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	if (options->foreground)
		fprintf(stderr, "mlsdisk-fuse: %s/" MLS_IMAGE_NAME " is ready: %s%s\n", options->mount_point,
			mls_cli_format_size(size, image->size_bytes), options->read_only ? ", read-only" : "");
}

/* From a mounted session to its end. Returns an exit status. */
static int serve(struct fuse_session *session, const struct mls_fuse_options *options, struct mls_image *image,
		 struct mls_daemon *daemon, const struct mls_unmounter *unmounter)
{
	struct mls_request_buf buf;
	int reason;

	if (mls_kernel_io_attach(session) || mls_request_buf_init(&buf)) {
		mls_say(MLS_LOG_ERROR, "out of memory");
		return MLS_CLI_FAILED;
	}
	reason = mls_kernel_io_handshake(session, &buf);
	mls_request_buf_release(&buf);
	if (reason) {
		mls_say(MLS_LOG_ERROR, "%s: the kernel ended the mount at once", options->mount_point);
		return MLS_CLI_FAILED;
	}
	if (mls_unmounter_suffices(unmounter, options))
		mls_confine_process(options);
	say_who_may_use(options);
	say_ready(options, image);
	mls_daemon_ready(daemon);

	reason = mls_workers_run(session, MLS_NR_WORKERS);
	if (reason > 0)
		mls_say(MLS_LOG_INFO, "%s: ending on signal %d", options->mount_point, reason);
	return reason < 0 ? MLS_CLI_FAILED : MLS_CLI_DONE;
}

static int close_disk(struct stack *stack, const struct mls_fuse_options *options)
{
	int err = mls_disk_close(stack->disk);

	if (err)
		mls_say(MLS_LOG_ERROR, "%s: the last sync failed: %s; writes after the one before it are lost",
			options->backing, mls_strerror(err));
	stack_close(stack);
	return err ? mls_exit_status(err) : MLS_CLI_DONE;
}

/* Everything after the fork. Returns an exit status. */
static int run(struct mls_fuse_options *options, struct mls_secret *secret, struct mls_daemon *daemon,
	       struct mls_unmounter *unmounter)
{
	struct fuse_session *session;
	struct stack stack = {0};
	struct mls_image image;
	int err, status = MLS_CLI_FAILED, close_status;

	mls_harden_process();
	mls_workers_block_signals();
	err = stack_open(&stack, options, secret);
	mls_cli_secret_release(secret);
	if (err)
		return mls_exit_status(err);
	if (mls_image_init(&image, stack.disk, options->read_only)) {
		mls_say(MLS_LOG_ERROR, "out of memory");
		(void)close_disk(&stack, options);
		return MLS_CLI_FAILED;
	}

	session = session_new(options, &image);
	if (!session) {
		status = MLS_CLI_USAGE; /* libfuse has named the option it doesn't know */
	} else if (fuse_session_mount(session, options->mount_point)) {
		mls_say(MLS_LOG_ERROR, "%s: can't mount%s", options->mount_point,
			access("/dev/fuse", R_OK | W_OK)
				? ": /dev/fuse isn't there or isn't allowed (modprobe fuse)"
				: "");
	} else {
		status = serve(session, options, &image, daemon, unmounter);
	}

	close_status = close_disk(&stack, options);
	if (session) {
		mls_unmounter_ask(unmounter, fuse_session_fd(session));
		fuse_session_unmount(session);
		mls_unmounter_wait(unmounter);
		fuse_session_destroy(session);
	}
	mls_image_release(&image);
	return status ? status : close_status;
}

/* ---- The start ----------------------------------------------------------------------------- */

/* Absolute, for we leave the directory, and the mount table shows it. */
static int resolve_backing(struct mls_fuse_options *options, char **backing)
{
	if (!*backing)
		*backing = realpath(options->backing, NULL);
	if (!*backing) {
		mls_cli_error("%s: %s%s", options->backing, strerror(errno),
			      errno == ENOENT ? " (mlsdisk-format makes a disk)" : "");
		return MLS_CLI_FAILED;
	}
	options->backing = *backing;
	return MLS_CLI_DONE;
}

static int read_secret(struct mls_secret *secret, const struct mls_fuse_options *options)
{
	char *prompt = NULL;
	int err;

	if (asprintf(&prompt, "Passphrase for %s", options->backing) < 0)
		return MLS_CLI_FAILED;
	err = mls_cli_read_secret(secret, options->key_file, prompt, false);
	free(prompt);
	return err ? MLS_CLI_FAILED : MLS_CLI_DONE;
}

int main(int argc, char **argv)
{
	struct mls_fuse_options options;
	struct mls_unmounter unmounter;
	struct mls_daemon daemon;
	struct mls_secret secret = {0};
	char *backing = NULL, *key_file = NULL, *mount_point = NULL;
	int status = MLS_CLI_FAILED, err;

	mls_cli_start("mlsdisk-fuse");
	mls_log_sink_init();
	if (mls_fuse_options_parse(&options, argc, argv, &status) == MLS_OPTIONS_EXIT)
		goto out;
	err = mls_mount_point_prepare(options.mount_point, &mount_point);
	if (err) {
		status = err == MLS_EINVAL ? MLS_CLI_FAILED : mls_exit_status(err);
		goto out;
	}
	options.mount_point = mount_point;
	if (!options.backing) {
		status = mls_default_disk_prepare(&backing, &key_file);
		if (status)
			goto out;
		options.key_file = key_file;
	}
	status = resolve_backing(&options, &backing);
	if (status)
		goto out;
	mls_unmounter_start(&unmounter, &options, argc, argv);
	status = read_secret(&secret, &options);
	if (status)
		goto out;
	if (mls_daemon_start(&daemon, options.foreground))
		status = MLS_CLI_FAILED;
	else
		status = run(&options, &secret, &daemon, &unmounter);
out:
	mls_cli_secret_release(&secret);
	free(options.mount_options);
	free(mount_point);
	free(backing);
	free(key_file);
	return status;
}
