/* SPDX-License-Identifier: MPL-2.0 */
/*
 * custom_store.c - a trusted store of your own.
 *
 * A secure disk forgets nothing that it has synced, but a whole old copy of it is as authentic as the
 * new one. What tells them apart is a register of 40 bytes outside the adversary's reach: struct
 * mls_trust. libmlsdisk keeps it in a file or a TPM; if you have a better place (a service on a machine
 * that you trust, a monotonic counter, an enclave's sealed storage) you write a store, four functions,
 * and give it to mls_disk_format and mls_disk_open. This one keeps the register in a small file that
 * each advance replaces as a whole; the rest of the program is a demonstration:
 *
 *	cc custom_store.c $(pkg-config --cflags --libs mlsdisk) -o custom_store && ./custom_store
 *
 * What the disk expects of a store:
 *   read      the value of the last advance that returned 0; or, if one didn't return (a crash, an
 *             error), its value or the one before, but no other, ever.
 *   advance   durable when it returns 0. The disk's sync waits for it: it is on the path of every fsync.
 *             It isn't always "more": after an accepted rollback the value is simply the one to keep.
 *   errors    MLS_ENOENT if nothing was ever kept: the disk refuses to open, as its register was lost.
 *             If you can't tell, say MLS_EIO. Never make a value up.
 *   whose     one register, one disk: refuse another UUID's value with MLS_ESTALE.
 *   threads   one call at a time, but not always from the same thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mlsdisk/mlsdisk.h>

/* ---- The store ----------------------------------------------------------------------------- */

struct my_store {
	struct mls_trusted_store base;	/* first, so that a pointer to it is a pointer to us */
	int dir;			/* the directory that holds "register" */
};

static int my_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	const struct my_store *s = (const struct my_store *)store;
	struct mls_trust value;
	int fd = openat(s->dir, "register", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? MLS_ENOENT : MLS_EIO;
	n = read(fd, &value, sizeof value);
	close(fd);
	if (n != (ssize_t)sizeof value)
		return MLS_EIO;
	*trust = value;			/* results are untouched on error */
	return MLS_OK;
}

/* A new file beside the old one, durable; then it takes the old one's name, durable. */
static int my_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	const struct my_store *s = (const struct my_store *)store;
	struct mls_trust old;
	int err = my_read(store, &old), fd;

	if (err != MLS_OK && err != MLS_ENOENT)
		return err;
	if (err == MLS_OK && memcmp(old.uuid, trust->uuid, sizeof old.uuid) != 0)
		return MLS_ESTALE;	/* another disk's */
	fd = openat(s->dir, "register.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return MLS_EIO;
	err = write(fd, trust, sizeof *trust) == (ssize_t)sizeof *trust && fsync(fd) == 0 ? MLS_OK : MLS_EIO;
	close(fd);
	if (err == MLS_OK && renameat(s->dir, "register.new", s->dir, "register") != 0)
		err = MLS_EIO;
	if (err == MLS_OK && fsync(s->dir) != 0)
		err = MLS_EIO;
	return err;
}

static void my_destroy(struct mls_trusted_store *store)
{
	struct my_store *s = (struct my_store *)store;

	close(s->dir);
	free(s);
}

/* set_key would hand us a key of this disk's own, to authenticate the register where others might damage
 * it; nr_damaged is for registers kept more than once. Both may be left out. */
static const struct mls_trusted_store_ops my_ops = {
	.read = my_read,
	.advance = my_advance,
	.destroy = my_destroy,
};

static struct mls_trusted_store *my_store_open(const char *dir)
{
	struct my_store *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->base.ops = &my_ops;
	s->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0) {
		free(s);
		return NULL;
	}
	return &s->base;
}

/* ---- The demonstration --------------------------------------------------------------------- */

#define DISK_BYTES (8u << 20)

static void must(int err, const char *what)
{
	if (err == MLS_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, mls_strerror(err));
	exit(1);
}

/* All blocks of BACKING, out (an adversary takes a copy) or in (he puts it back). */
static void copy_backing(struct mls_block_dev *dev, void *image, int (*transfer)(struct mls_block_dev *,
									       struct mls_io *, unsigned))
{
	struct mls_io io = { .hba = 0, .nr_blocks = (uint32_t)dev->nr_blocks, .data = image };

	must(transfer(dev, &io, 1), "copy");
}

static void write_and_sync(struct mls_block_dev *dev, struct mls_trusted_store *store, const struct mls_secret *secret,
			   const char *text)
{
	const struct mls_open_opts opts = { 0 };
	struct mls_disk *disk;

	must(mls_disk_open(&disk, dev, store, secret, &opts), "open");
	must(mls_disk_write(disk, 0, text, strlen(text) + 1), "write");
	must(mls_disk_sync(disk), "sync");	/* calls my_advance */
	must(mls_disk_close(disk), "close");
}

static void be_quiet(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	if (level <= MLS_LOG_WARNING)
		printf("  (libmlsdisk: %s)\n", message);
}

int main(void)
{
	static const char key[32] = "32 bytes; yours come from random";
	const struct mls_secret secret = { .data = key, .bytes = sizeof key, .passphrase = false };
	const struct mls_format_opts format = { .disk_bytes = DISK_BYTES };
	struct mls_open_opts opts = { .read_only = false };
	char dir[] = "/tmp/custom_store.XXXXXX", path[64], text[16] = "";
	struct mls_trusted_store *store;
	struct mls_block_dev *dev;
	struct mls_disk *disk;
	uint8_t uuid[MLS_UUID_BYTES];
	void *old;
	int err;

	mls_set_logger(be_quiet, NULL);
	must(mkdtemp(dir) ? 0 : MLS_EIO, dir);
	store = my_store_open(dir);
	must(store ? 0 : MLS_EIO, dir);
	must(mls_block_dev_mem_new(&dev, mls_backing_bytes(DISK_BYTES) / MLS_BLOCK_BYTES), "device");
	must(mls_uuid_new(uuid), "UUID");
	must(mls_disk_format(dev, store, &secret, uuid, &format), "format");
	write_and_sync(dev, store, &secret, "monday");

	old = aligned_alloc(MLS_BLOCK_BYTES, dev->nr_blocks * MLS_BLOCK_BYTES);
	if (!old)
		must(MLS_ENOMEM, "copy");
	copy_backing(dev, old, dev->ops->read);
	write_and_sync(dev, store, &secret, "tuesday");

	copy_backing(dev, old, dev->ops->write);
	err = mls_disk_open(&disk, dev, store, &secret, &opts);
	printf("monday's copy is put back: %s\n", mls_strerror(err));
	if (err != MLS_ESTALE)
		return 1;

	opts.accept_rollback = true;	/* it was us: we restored a backup */
	must(mls_disk_open(&disk, dev, store, &secret, &opts), "open");
	must(mls_disk_read(disk, 0, text, sizeof text), "read");
	must(mls_disk_close(disk), "close");
	printf("accepted: it's %s again\n", text);

	free(old);
	mls_block_dev_destroy(dev);
	mls_trusted_store_destroy(store);
	snprintf(path, sizeof path, "%s/register", dir);
	return strcmp(text, "monday") != 0 || unlink(path) != 0 || rmdir(dir) != 0;
}
