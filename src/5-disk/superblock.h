/* SPDX-License-Identifier: MPL-2.0 */
/*
 * superblock.h - layer 5: the root: geometry, key slots, both copies of it.
 *
 * Role     The first thing that is read, from a host that may show anything. Each copy is copied
 *          once, bounded, checked (checksum: damage; slot: key; MAC: forgery) and only then believed.
 * Fresh    Both copies, or one, may be old but authentic. `generation` grows with each rewrite; each
 *          SYNC group of the WAL names the one in force, so whoever recovers the WAL must compare and
 *          answer MLS_ESTALE if the group's is larger than this superblock's (a removed key put back).
 * Keys     Superblock key: HKDF(master, "superblock"); HMAC only, no nonce.
 * Source   doc/design.md 2, 3; doc/format.md 2.
 */
#ifndef MLS_DISK_SUPERBLOCK_H
#define MLS_DISK_SUPERBLOCK_H

#include "1-crypto/kdf.h"
#include "5-disk/geometry.h"
#include "format/mlsdisk_format.h"

struct mls_superblock {
	uint8_t uuid[MLS_UUID_BYTES];
	uint64_t generation;
	struct mls_geometry geo;
	struct mls_key_slot_disk slots[MLS_NR_KEY_SLOTS];
	unsigned good_copy;	/* the copy to be overwritten last: the other may be damaged */
	unsigned opened_slot;	/* the slot that the secret opened, or that was filled first */
};

/*
 * A new one, generation 1, with a random master key wrapped in slot 0. Writes nothing.
 *
 * log_n    cost of the passphrase KDF, 0: default.
 * keys     the new master key (mls_keyring_free).
 * Returns  0; MLS_EINVAL: empty secret or impossible log_n; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_superblock_new(struct mls_superblock *sb, struct mls_keyring **keys,
				      const struct mls_geometry *geo, const uint8_t uuid[MLS_UUID_BYTES],
				      const struct mls_secret *secret, unsigned log_n, const char *label);

/*
 * Read both copies and believe the newest that is authentic. A damaged copy beside a good one is
 * logged as a warning.
 *
 * Returns  0; MLS_EFORMAT: not an MlsDisk, or a version unknown to us; MLS_EKEY: no slot opens; MLS_EAUTH:
 *          damaged or forged, or the device is shorter than the disk; MLS_EIO; MLS_ENOMEM.
 *          Nothing has been written.
 */
MLS_MUST_CHECK int mls_superblock_read(struct mls_block_dev *dev, const struct mls_secret *secret,
				       struct mls_superblock *sb, struct mls_keyring **keys);

/* What can be seen without a key, from the better copy, unauthenticated. Errors as above but MLS_EKEY. */
MLS_MUST_CHECK int mls_superblock_peek(struct mls_block_dev *dev, struct mls_superblock *sb);

/*
 * Write both copies, a flush after each, the good one last: a crash leaves the old or the new one.
 * Before: ++generation, if the disk exists already. Returns 0; MLS_EIO, MLS_ENOSPC; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_superblock_write(struct mls_block_dev *dev, const struct mls_keyring *keys,
					const struct mls_superblock *sb);

/* What can be said of one copy, best last; see superblock.c. */
enum mls_copy_state {
	MLS_COPY_MISSING,	/* nothing of ours there */
	MLS_COPY_UNREADABLE,	/* the device failed */
	MLS_COPY_VERSION,	/* a version that this program doesn't know */
	MLS_COPY_DAMAGED,	/* checksum, or a number that can't be */
	MLS_COPY_LOCKED,	/* whole, as far as can be said without a key */
	MLS_COPY_FORGED,	/* the secret opens it, the MAC is wrong */
	MLS_COPY_AUTHENTIC,
};
#define MLS_NR_COPIES 2u

struct mls_superblock_copy {
	uint64_t hba;
	enum mls_copy_state state;
	struct mls_superblock sb;	/* as it stands there; zeros if MISSING, UNREADABLE or VERSION */
};

/*
 * Each copy by itself, judged as mls_superblock_read does, for fsck and dump. Logs nothing of the copies.
 *
 * secret   NULL: only what can be said without a key.
 * counts   which copy counts; -1: none is authentic (or there is no secret).
 * keys     NULL unless one counts.
 * Returns  0; MLS_EKEY: a newer copy doesn't know this secret any more; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_superblock_look(struct mls_block_dev *dev, const struct mls_secret *secret,
				       struct mls_superblock_copy copies[MLS_NR_COPIES], int *counts,
				       struct mls_keyring **keys);

/* A copy as it is on BACKING: numbers, in no way checked. For dump, fsck and tests. */
void mls_superblock_decode(struct mls_superblock *sb, const struct mls_superblock_disk *disk);

/* With checksum and MAC. */
MLS_MUST_CHECK int mls_superblock_encode(struct mls_superblock_disk *disk, const struct mls_superblock *sb,
					 const struct mls_keyring *keys);

#endif
