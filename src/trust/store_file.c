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
 * The MAC isn't against the adversary, who can't reach the file. It tells a damaged register, or
 * one of another disk, from a register that speaks the truth.
 *
 * States   UNKNOWN   the file hasn't been read yet
 *          EMPTY     no file, or only zeros: read answers MLS_ENOENT, an advance creates
 *          VALID     `next_slot` holds the older slot or none, `counter` is the newer one's
 *          DAMAGED   a store, but no slot authenticates: read answers MLS_EAUTH; an advance (the user
 *                    accepts a rollback) starts anew
 *          FOREIGN   another disk's, or no store at all: nobody but its owner may overwrite it
 *
 * Invariant: at any time after the first advance one slot is whole, since the other is written next;
 * a write that failed is repeated in the same slot.
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

#include "1-crypto/kdf.h"
#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "format/mlsdisk_format.h"

#define FILE_BYTES (MLS_NR_TRUST_SLOTS * MLS_BLOCK_BYTES)
#define SLOT_MAC_AT offsetof(struct mls_trust_slot_disk, mac)

enum store_state { STORE_UNKNOWN, STORE_EMPTY, STORE_VALID, STORE_DAMAGED, STORE_FOREIGN };

struct store_file {
	struct mls_trusted_store base;		/* first */
	char *path;
	int fd;					/* -1: there is no file yet */
	bool has_key;
	uint8_t key[MLS_KEY_BYTES];
	uint8_t uuid[MLS_UUID_BYTES];
	enum store_state state;
	unsigned next_slot;
	uint64_t counter;
	uint8_t *blocks;			/* one block for each slot */
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
	memset(s->blocks, 0, FILE_BYTES);
	err = write_blocks(s, s->blocks, MLS_NR_TRUST_SLOTS, 0);
	if (err)
		return err;
	if (fsync(s->fd) < 0) {
		mls_error("trusted store %s: %s", s->path, strerror(errno));
		return MLS_EIO;
	}
	return sync_dir_of(s->path);
}

/* ---- The slots ---- */

static const struct mls_trust_slot_disk *slot_at(const struct store_file *s, unsigned slot)
{
	return (const struct mls_trust_slot_disk *)(s->blocks + (size_t)slot * MLS_BLOCK_BYTES);
}

static int slot_encode(struct store_file *s, unsigned slot, uint64_t counter, const struct mls_trust *trust)
{
	struct mls_trust_slot_disk *disk = (struct mls_trust_slot_disk *)slot_at(s, slot);

	memset(disk, 0, MLS_BLOCK_BYTES);
	memcpy(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic);
	mls_put_le32(disk->version, MLS_TRUST_VERSION);
	mls_put_le64(disk->counter, counter);
	memcpy(disk->uuid, trust->uuid, sizeof disk->uuid);
	mls_put_le64(disk->sync_id, trust->sync_id);
	memcpy(disk->digest, trust->digest, sizeof disk->digest);
	return mls_hmac_sha256(s->key, disk, SLOT_MAC_AT, disk->mac);
}

static void slot_decode(const struct mls_trust_slot_disk *disk, struct mls_trust *trust)
{
	memcpy(trust->uuid, disk->uuid, sizeof trust->uuid);
	trust->sync_id = mls_get_le64(disk->sync_id);
	memcpy(trust->digest, disk->digest, sizeof trust->digest);
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

/* What this slot says of the whole file if the other one isn't VALID. */
static int slot_judge(const struct store_file *s, unsigned slot, enum store_state *state)
{
	const struct mls_trust_slot_disk *disk = slot_at(s, slot);
	uint8_t mac[32];
	int err;

	if (all_zero((const uint8_t *)disk, MLS_BLOCK_BYTES)) {
		*state = STORE_EMPTY;
		return 0;
	}
	if (memcmp(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic) != 0 ||
	    memcmp(disk->uuid, s->uuid, sizeof disk->uuid) != 0) {
		*state = STORE_FOREIGN;
		return 0;
	}
	*state = STORE_DAMAGED;		/* as long as nobody can tell */
	if (!s->has_key)
		return 0;
	err = mls_hmac_sha256(s->key, disk, SLOT_MAC_AT, mac);
	if (err)
		return err;
	*state = mls_equal_const_time(mac, disk->mac, sizeof mac) &&
				 mls_get_le32(disk->version) == MLS_TRUST_VERSION ?
			 STORE_VALID : STORE_DAMAGED;
	return 0;
}

/* Both slots' verdicts into one, and which slot to write next. */
static void judge(struct store_file *s, const enum store_state slot[MLS_NR_TRUST_SLOTS])
{
	uint64_t counter[MLS_NR_TRUST_SLOTS] = { mls_get_le64(slot_at(s, 0)->counter),
						 mls_get_le64(slot_at(s, 1)->counter) };
	unsigned newest = slot[1] == STORE_VALID && (slot[0] != STORE_VALID || counter[1] > counter[0]);

	s->counter = 0;
	s->next_slot = 0;
	if (slot[newest] == STORE_VALID) {
		s->state = STORE_VALID;
		s->counter = counter[newest];
		s->next_slot = !newest;
		if (slot[!newest] != STORE_VALID && slot[!newest] != STORE_EMPTY)
			mls_warn("trusted store %s: slot %u is damaged; slot %u counts", s->path, !newest, newest);
	} else if (slot[0] == STORE_DAMAGED || slot[1] == STORE_DAMAGED) {
		s->state = STORE_DAMAGED;
	} else if (slot[0] == STORE_FOREIGN || slot[1] == STORE_FOREIGN) {
		s->state = STORE_FOREIGN;
	} else {
		s->state = STORE_EMPTY;
	}
}

/* Read the file and set the state. Only a failure to read is an error. */
static int load(struct store_file *s)
{
	enum store_state slot[MLS_NR_TRUST_SLOTS];
	struct stat st;
	ssize_t n;
	int err;

	s->state = STORE_UNKNOWN;
	if (s->fd < 0) {
		err = attach(s, 0);
		if (err == MLS_ENOENT)
			s->state = STORE_EMPTY;
		if (err)
			return err == MLS_ENOENT ? 0 : err;
	}
	memset(s->blocks, 0, FILE_BYTES);
	n = transfer(s, false, s->blocks, FILE_BYTES, 0);
	if (n < 0 || fstat(s->fd, &st) < 0) {
		mls_error("trusted store %s: %s", s->path, strerror(errno));
		return MLS_EIO;
	}
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		err = slot_judge(s, i, &slot[i]);
		if (err)
			return err;
	}
	judge(s, slot);
	if (st.st_size > (off_t)FILE_BYTES && s->state == STORE_EMPTY)
		s->state = STORE_FOREIGN;	/* zeros first, but ours are never that long */
	return 0;
}

static int refuse_foreign(const struct store_file *s)
{
	char ours[MLS_UUID_TEXT_BYTES], found[MLS_UUID_TEXT_BYTES];

	mls_uuid_format(ours, s->uuid);
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++) {
		if (memcmp(slot_at(s, i)->magic, MLS_TRUST_MAGIC, sizeof slot_at(s, i)->magic) != 0)
			continue;
		mls_uuid_format(found, slot_at(s, i)->uuid);
		mls_error("trusted store %s: expected the one of disk %s, found that of disk %s; give each disk a "
			  "store of its own", s->path, ours, found);
		return MLS_ESTALE;
	}
	mls_error("trusted store %s: not a trusted store, so it is left alone; expected the one of disk %s",
		  s->path, ours);
	return MLS_ESTALE;
}

/* ---- The contract ---- */

static int file_set_key(struct mls_trusted_store *store, const uint8_t key[32])
{
	struct store_file *s = store_file(store);

	memcpy(s->key, key, sizeof s->key);
	s->has_key = true;
	s->state = STORE_UNKNOWN;
	return 0;
}

static int file_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	struct store_file *s = store_file(store);
	int err;

	if (!s->has_key)
		return MLS_EINVAL;
	err = load(s);
	if (err)
		return err;
	switch (s->state) {
	case STORE_EMPTY:
		return MLS_ENOENT;
	case STORE_FOREIGN:
		return refuse_foreign(s);
	case STORE_DAMAGED:
		mls_error("trusted store %s: damaged, or made with another key", s->path);
		return MLS_EAUTH;
	default:
		slot_decode(slot_at(s, !s->next_slot), trust);
		return 0;
	}
}

/* What the first advance needs: a file of full length that is ours to write. */
static int prepare(struct store_file *s)
{
	int err = 0;

	if (s->state == STORE_UNKNOWN)
		err = load(s);
	if (err)
		return err;
	if (s->state == STORE_FOREIGN)
		return refuse_foreign(s);
	if (s->state == STORE_VALID)
		return 0;
	if (s->state == STORE_DAMAGED)
		mls_warn("trusted store %s: was damaged; it begins anew", s->path);
	return create(s);
}

static int file_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	struct store_file *s = store_file(store);
	unsigned slot;
	int err;

	if (!s->has_key)
		return MLS_EINVAL;
	if (memcmp(trust->uuid, s->uuid, sizeof s->uuid) != 0) {
		mls_error("trusted store %s: opened for another disk", s->path);
		return MLS_ESTALE;
	}
	if (s->state != STORE_VALID) {
		err = prepare(s);
		if (err)
			return err;
	}
	slot = s->next_slot;
	MLS_INVARIANT(slot < MLS_NR_TRUST_SLOTS && s->fd >= 0);
	err = slot_encode(s, slot, s->counter + 1, trust);
	if (!err)
		err = write_blocks(s, s->blocks + (size_t)slot * MLS_BLOCK_BYTES, 1, slot);
	if (err)
		return err;
	s->state = STORE_VALID;
	s->counter++;
	s->next_slot = !slot;
	return 0;
}

static void file_destroy(struct mls_trusted_store *store)
{
	struct store_file *s = store_file(store);

	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	mls_blocks_free(s->blocks);
	mls_secret_free(s, sizeof *s);
}

static const struct mls_trusted_store_ops file_ops = {
	.set_key = file_set_key,
	.read = file_read,
	.advance = file_advance,
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
	memcpy(s->uuid, uuid, sizeof s->uuid);
	s->path = strdup(path);
	s->blocks = mls_blocks_zalloc(MLS_NR_TRUST_SLOTS);
	if (s->path && s->blocks)
		err = load(s);
	if (!err && s->state == STORE_FOREIGN)
		err = refuse_foreign(s);
	if (err) {
		file_destroy(&s->base);
		return err;
	}
	s->state = STORE_UNKNOWN;
	*store = &s->base;
	return 0;
}
