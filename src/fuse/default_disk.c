/* SPDX-License-Identifier: MPL-2.0 */
/*
 * default_disk.c - the disk of "mlsdisk-fuse MOUNTPOINT"; see default_disk.h.
 *
 * default.img and default.key lie in the state directory, where the default trusted stores are too.
 * Both appear under their names only when they are complete and durable (made as *.new, renamed).
 * The key comes first: a disk without its key would be lost, a key without a disk is just used.
 */
#include "fuse/default_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_secret.h"

#define DEFAULT_DISK_BYTES ((uint64_t)16 << 30)
#define DEFAULT_KEY_BYTES 32

struct default_disk {
	char *dir, *backing, *key_file;
	int dir_fd; /* held locked while things are made */
};

static char *state_dir(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *dir = NULL;
	int made = -1;

	if (geteuid() == 0)
		return strdup(MLS_PATH_DEFAULT_STORE_DIR);
	if (state && state[0] == '/')
		made = asprintf(&dir, "%s/mlsdisk", state);
	else if (home && home[0] == '/')
		made = asprintf(&dir, "%s/.local/state/mlsdisk", home);
	return made < 0 ? NULL : dir;
}

static int make_dirs(const char *dir)
{
	char *copy = strdup(dir);
	int failed = copy ? 0 : -1;

	for (char *slash = copy ? strchr(copy + 1, '/') : NULL; !failed && slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		failed = mkdir(copy, 0755) && errno != EEXIST ? -1 : 0;
		*slash = '/';
	}
	if (!failed)
		failed = mkdir(dir, 0700) && errno != EEXIST ? -1 : 0;
	free(copy);
	return failed;
}

/* Make the name durable. */
static int publish(struct default_disk *d, const char *from, const char *to)
{
	if (renameat(d->dir_fd, from, d->dir_fd, to) || fsync(d->dir_fd)) {
		mls_cli_error("%s/%s: %s", d->dir, to, strerror(errno));
		return MLS_EIO;
	}
	return MLS_OK;
}

static int make_key(struct default_disk *d)
{
	uint8_t key[DEFAULT_KEY_BYTES];
	int fd, err = MLS_EIO;

	(void)unlinkat(d->dir_fd, "default.key.new", 0);
	fd = openat(d->dir_fd, "default.key.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || getrandom(key, sizeof key, 0) != sizeof key || write(fd, key, sizeof key) != sizeof key ||
	    fsync(fd))
		mls_cli_error("%s.new: %s", d->key_file, strerror(errno));
	else
		err = publish(d, "default.key.new", "default.key");
	explicit_bzero(key, sizeof key);
	if (fd >= 0)
		close(fd);
	return err;
}

static int format_backing(const char *path, const struct mls_secret *secret, uint8_t uuid[MLS_UUID_BYTES])
{
	struct mls_format_opts opts = {.disk_bytes = DEFAULT_DISK_BYTES};
	struct mls_trusted_store *store = NULL;
	struct mls_block_dev *dev = NULL;
	int err;

	err = mls_block_dev_open(&dev, path, MLS_DEV_CREATE, mls_backing_bytes(DEFAULT_DISK_BYTES));
	if (err)
		goto out;
	err = mls_uuid_new(uuid);
	if (err)
		goto out;
	err = mls_trusted_store_open(&store, NULL, uuid);
	if (err)
		goto out;
	err = mls_disk_format(dev, store, secret, uuid, &opts);
out:
	mls_trusted_store_destroy(store);
	mls_block_dev_destroy(dev);
	return err;
}

static void say_made(const struct default_disk *d, const uint8_t uuid[MLS_UUID_BYTES])
{
	char store[PATH_MAX] = "?";

	(void)!mls_trusted_store_default_path(store, sizeof store, uuid);
	printf("Made the default disk, 16 GiB (space is taken as it is written):\n"
	       "  disk           %s\n"
	       "  key            %s   (without it the disk is lost: keep a copy)\n"
	       "  trusted store  %s\n",
	       d->backing, d->key_file, store);
	fflush(stdout);
}

static int make_disk(struct default_disk *d)
{
	uint8_t uuid[MLS_UUID_BYTES];
	struct mls_secret secret = {0};
	char *unfinished = NULL;
	int err;

	if (asprintf(&unfinished, "%s.new", d->backing) < 0)
		return MLS_ENOMEM;
	if (faccessat(d->dir_fd, "default.key", R_OK, 0) && errno == ENOENT) {
		err = make_key(d);
		if (err)
			goto out;
	}
	err = mls_cli_read_secret(&secret, d->key_file, NULL, false);
	if (err)
		goto out;
	(void)unlink(unfinished);
	err = format_backing(unfinished, &secret, uuid);
	if (err) {
		mls_cli_error("can't make the default disk %s: %s", d->backing, mls_strerror(err));
		goto out;
	}
	err = publish(d, "default.img.new", "default.img");
	if (err)
		goto out;
	say_made(d, uuid);
out:
	mls_cli_secret_release(&secret);
	free(unfinished);
	return err;
}

static int open_dir(struct default_disk *d)
{
	d->dir = state_dir();
	if (!d->dir) {
		mls_cli_error("no place for the default disk: neither XDG_STATE_HOME nor HOME is set");
		return MLS_EIO;
	}
	if (asprintf(&d->backing, "%s/default.img", d->dir) < 0 ||
	    asprintf(&d->key_file, "%s/default.key", d->dir) < 0)
		return MLS_ENOMEM;
	if (make_dirs(d->dir) == 0) {
		d->dir_fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (d->dir_fd >= 0 && flock(d->dir_fd, LOCK_EX) == 0)
			return MLS_OK;
	}
	mls_cli_error("%s: %s", d->dir, strerror(errno));
	return MLS_EIO;
}

int mls_default_disk_prepare(char **backing, char **key_file)
{
	struct default_disk d = {.dir_fd = -1};
	bool has_disk, has_key;
	int err = open_dir(&d);

	if (err)
		goto out;
	has_disk = faccessat(d.dir_fd, "default.img", F_OK, 0) == 0;
	has_key = faccessat(d.dir_fd, "default.key", F_OK, 0) == 0;
	if (has_disk && !has_key) {
		mls_cli_error("%s is there, but its key %s isn't: put the key back, or move the disk away to "
			      "get a new one",
			      d.backing, d.key_file);
		err = MLS_EKEY;
	} else if (!has_disk) {
		err = make_disk(&d);
	}
out:
	if (d.dir_fd >= 0)
		close(d.dir_fd);
	if (err) {
		free(d.backing);
		free(d.key_file);
	} else {
		*backing = d.backing;
		*key_file = d.key_file;
	}
	free(d.dir);
	return err ? mls_exit_status(err) : MLS_CLI_DONE;
}
