/* SPDX-License-Identifier: MPL-2.0 */
/*
 * store_file.c - the trusted register in a file outside the adversary's reach.
 *
 * Two slots are written in turn, so that a crash, or a torn write, always leaves the one before.
 * The file has its full length from the start and never changes it: an advance is one write of one
 * block past the page cache (O_DSYNC and O_DIRECT; a plain file system may refuse the latter), and
 * makes no metadata durable. Measured on ext4 that's as fast as pwrite and fdatasync at their best,
 * with one system call less.
 *
 * The MAC isn't against the adversary, who can't reach the file: see trust_slots.c, which knows the
 * states, too. There is no file: EMPTY.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "trust/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "trust/trust_slots.h"

#define FILE_BYTES (MLS_NR_TRUST_SLOTS * MLS_BLOCK_BYTES)
#define FOREIGN_HINT "give each disk a store of its own"

struct store_file {
	struct mls_trusted_store base;		/* first */
	char *path;
	int fd;					/* -1: there is no file yet */
	struct mls_trust_slots slots;		/* one block for each slot */
};

static struct store_file *store_file(struct mls_trusted_store *store)
{
	return (struct store_file *)store;
}

/* ---- The file ---- */

static int open_fd(const char *path, int flags)
{
	int fd;

	flags |= O_RDWR | O_CLOEXEC | O_NOCTTY | O_DSYNC;
	fd = open(path, flags | O_DIRECT, 0600);
	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags, 0600);
	return fd;
}

/* flags: 0 or O_CREAT. MLS_ENOENT: there is no such file; nothing is logged then. */
static int attach(struct store_file *s, int flags)
{
	struct stat st;
	int fd = open_fd(s->path, flags), err = MLS_EIO;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return MLS_ENOENT;
	if (fd < 0 || fstat(fd, &st) < 0) {
		mls_error("trusted store %s: %s", s->path, strerror(errno));
		goto fail;
	}
	if (!S_ISREG(st.st_mode)) {
		mls_error("trusted store %s: not a regular file", s->path);
		err = MLS_EINVAL;
		goto fail;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		err = errno == EWOULDBLOCK ? MLS_EBUSY : MLS_EIO;
		mls_error("trusted store %s: %s", s->path,
			  err == MLS_EBUSY ? "in use by another process" : strerror(errno));
		goto fail;
	}
	s->fd = fd;
	return 0;
fail:
	if (fd >= 0)
		close(fd);
	return err;
}

static int sync_dir_of(const char *path)
{
	char *dir = strdup(path), *slash;
	int fd, err = 0;

	if (!dir)
		return MLS_ENOMEM;
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';	/* keep the slash of "/" */
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0) {
		mls_error("directory of %s: %s", path, strerror(errno));
		err = MLS_EIO;
	}
	if (fd >= 0)
		close(fd);
	free(dir);
	return err;
}

/* All directories on the way to path, durable. */
static int make_dirs(const char *path)
{
	char *dir = strdup(path), *slash;
	int err = 0;

	if (!dir)
		return MLS_ENOMEM;
	for (slash = strchr(dir + 1, '/'); slash && !err; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(dir, 0700) == 0) {
			err = sync_dir_of(dir);
		} else if (errno != EEXIST && access(dir, F_OK) < 0) {
			mls_error("trusted store: directory %s: %s", dir, strerror(errno));
			err = MLS_EIO;
		}
		*slash = '/';
	}
	free(dir);
	return err;
}

/* One transfer of whole blocks at a slot. What O_DIRECT can't do here is done without it. */
static ssize_t transfer(struct store_file *s, bool write, void *data, size_t bytes, unsigned slot)
{
	off_t at = (off_t)slot * MLS_BLOCK_BYTES;
	ssize_t n;
	int flags;

	for (;;) {
		n = write ? pwrite(s->fd, data, bytes, at) : pread(s->fd, data, bytes, at);
		if (n >= 0 || (errno != EINTR && errno != EINVAL))
			return n;
		if (errno == EINTR)
			continue;
		flags = fcntl(s->fd, F_GETFL);
		if (flags < 0 || !(flags & O_DIRECT) || fcntl(s->fd, F_SETFL, flags & ~O_DIRECT) < 0) {
			errno = EINVAL;
			return -1;
		}
	}
}

static int write_blocks(struct store_file *s, uint8_t *data, unsigned nr_blocks, unsigned slot)
{
	size_t bytes = (size_t)nr_blocks * MLS_BLOCK_BYTES;
	ssize_t n = transfer(s, true, data, bytes, slot);

	if (n == (ssize_t)bytes)
		return 0;
	mls_error("trusted store %s: slot %u: %s", s->path, slot, n < 0 ? strerror(errno) : "short write");
	return MLS_EIO;
}

/* A file of FILE_BYTES zeros, durable, under its name. A crash on the way leaves an empty store. */
static int create(struct store_file *s)
{
	int err = 0;

	if (s->fd < 0) {
		err = make_dirs(s->path);
		if (!err)
			err = attach(s, O_CREAT);
		if (err == MLS_ENOENT) {
			mls_error("trusted store %s: can't be created", s->path);
			err = MLS_EIO;
		}
	}
	if (err)
		return err;
	memset(s->slots.bytes, 0, FILE_BYTES);
	err = write_blocks(s, s->slots.bytes, MLS_NR_TRUST_SLOTS, 0);
	if (err)
		return err;
	if (fsync(s->fd) < 0) {
		mls_error("trusted store %s: %s", s->path, strerror(errno));
		return MLS_EIO;
	}
	return sync_dir_of(s->path);
}

/* Read the file and set the state. Only a failure to read is an error. */
static int load(struct store_file *s)
{
	struct stat st;
	ssize_t n;
	int err;

	s->slots.state = MLS_TRUST_UNKNOWN;
	if (s->fd < 0) {
		err = attach(s, 0);
		if (err == MLS_ENOENT)
			s->slots.state = MLS_TRUST_EMPTY;
		if (err)
			return err == MLS_ENOENT ? 0 : err;
	}
	memset(s->slots.bytes, 0, FILE_BYTES);
	n = transfer(s, false, s->slots.bytes, FILE_BYTES, 0);
	if (n < 0 || fstat(s->fd, &st) < 0) {
		mls_error("trusted store %s: %s", s->path, strerror(errno));
		return MLS_EIO;
	}
	err = mls_trust_slots_judge(&s->slots, s->path);
	if (err)
		return err;
	if (st.st_size > (off_t)FILE_BYTES && s->slots.state == MLS_TRUST_EMPTY)
		s->slots.state = MLS_TRUST_FOREIGN;	/* zeros first, but ours are never that long */
	return 0;
}

static int refuse_foreign(const struct store_file *s)
{
	return mls_trust_slots_refuse_foreign(&s->slots, s->path, FOREIGN_HINT);
}

/* ---- The contract ---- */

static int file_set_key(struct mls_trusted_store *store, const uint8_t key[32])
{
	struct store_file *s = store_file(store);

	mls_trust_slots_set_key(&s->slots, key);
	return 0;
}

static int file_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	struct store_file *s = store_file(store);
	int err;

	if (!s->slots.has_key)
		return MLS_EINVAL;
	err = load(s);
	if (err)
		return err;
	switch (s->slots.state) {
	case MLS_TRUST_EMPTY:
		return MLS_ENOENT;
	case MLS_TRUST_FOREIGN:
		return refuse_foreign(s);
	case MLS_TRUST_DAMAGED:
		mls_error("trusted store %s: damaged, or made with another key", s->path);
		return MLS_EAUTH;
	default:
		mls_trust_slots_value(&s->slots, trust);
		return 0;
	}
}

/* What the first advance needs: a file of full length that is ours to write. */
static int prepare(struct store_file *s)
{
	int err = 0;

	if (s->slots.state == MLS_TRUST_UNKNOWN)
		err = load(s);
	if (err)
		return err;
	if (s->slots.state == MLS_TRUST_FOREIGN)
		return refuse_foreign(s);
	if (s->slots.state == MLS_TRUST_VALID)
		return 0;
	if (s->slots.state == MLS_TRUST_DAMAGED)
		mls_warn("trusted store %s: was damaged; it begins anew", s->path);
	return create(s);
}

static int file_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	struct store_file *s = store_file(store);
	unsigned slot;
	int err;

	if (!s->slots.has_key)
		return MLS_EINVAL;
	if (memcmp(trust->uuid, s->slots.uuid, sizeof s->slots.uuid) != 0) {
		mls_error("trusted store %s: opened for another disk", s->path);
		return MLS_ESTALE;
	}
	if (s->slots.state != MLS_TRUST_VALID) {
		err = prepare(s);
		if (err)
			return err;
	}
	slot = s->slots.next_slot;
	MLS_INVARIANT(slot < MLS_NR_TRUST_SLOTS && s->fd >= 0);
	err = mls_trust_slots_encode(&s->slots, trust);
	if (!err)
		err = write_blocks(s, (uint8_t *)mls_trust_slot_at(&s->slots, slot), 1, slot);
	if (!err)
		mls_trust_slots_written(&s->slots);
	return err;
}

static unsigned file_nr_damaged(struct mls_trusted_store *store)
{
	const struct store_file *s = store_file(store);

	return s->slots.state == MLS_TRUST_VALID ? s->slots.nr_damaged : 0;
}

static void file_destroy(struct mls_trusted_store *store)
{
	struct store_file *s = store_file(store);

	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	mls_blocks_free(s->slots.bytes);
	mls_secret_free(s, sizeof *s);
}

static const struct mls_trusted_store_ops file_ops = {
	.set_key = file_set_key,
	.read = file_read,
	.advance = file_advance,
	.nr_damaged = file_nr_damaged,
	.destroy = file_destroy,
};

int mls_store_file_open(struct mls_trusted_store **store, const char *path, const uint8_t uuid[MLS_UUID_BYTES])
{
	struct store_file *s = mls_secret_alloc(sizeof *s);
	int err = MLS_ENOMEM;

	if (!s)
		return MLS_ENOMEM;
	s->base.ops = &file_ops;
	s->fd = -1;
	memcpy(s->slots.uuid, uuid, sizeof s->slots.uuid);
	s->slots.slot_bytes = MLS_BLOCK_BYTES;
	s->path = strdup(path);
	s->slots.bytes = mls_blocks_zalloc(MLS_NR_TRUST_SLOTS);
	if (s->path && s->slots.bytes)
		err = load(s);
	if (!err && s->slots.state == MLS_TRUST_FOREIGN)
		err = refuse_foreign(s);
	if (err) {
		file_destroy(&s->base);
		return err;
	}
	s->slots.state = MLS_TRUST_UNKNOWN;
	*store = &s->base;
	return 0;
}
