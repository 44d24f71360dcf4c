/* SPDX-License-Identifier: MPL-2.0 */
/*
 * superblock.c - the root: geometry, key slots, both copies of it; see superblock.h.
 *
 * What can be said of one copy, best last; the answer for the disk is the best of both:
 *
 *   MISSING     nothing of ours there                        MLS_EFORMAT
 *   UNREADABLE  the device failed                            MLS_EIO
 *   VERSION     one that this program doesn't know           MLS_EFORMAT
 *   DAMAGED     checksum or a number that can't be           MLS_EAUTH
 *   LOCKED      whole, but the secret opens no slot          MLS_EKEY
 *   FORGED      the secret opens it, the MAC is wrong        MLS_EAUTH
 *   AUTHENTIC
 *
 * The checksum needs no key, so it only tells damage from a wrong key; the MAC is what is believed.
 *
 * The two copies differ after a crash between their writes, or if one was damaged or put back. Once one
 * is authentic its key judges the other, too: if that is authentic and newer, it counts, and the
 * secret must open it. So a secret that was removed isn't served by an old copy beside a new one; a
 * forged "newer" copy doesn't stand in the way of a good one.
 */
#include "5-disk/superblock.h"

#include <inttypes.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "1-crypto/secret.h"
#include "5-disk/key_slot.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"

#define NR_COPIES MLS_NR_COPIES
#define LABEL "superblock"
#define CHECKSUM_AT offsetof(struct mls_superblock_disk, checksum)
#define MAC_AT offsetof(struct mls_superblock_disk, mac)
_Static_assert(CHECKSUM_AT == 4032 && MAC_AT == 4064, "as doc/format.md says");

static const uint64_t copy_hba[NR_COPIES] = { MLS_SUPERBLOCK_HBA_0, MLS_SUPERBLOCK_HBA_1 };

static const int copy_err[] = {
	[MLS_COPY_MISSING] = MLS_EFORMAT, [MLS_COPY_UNREADABLE] = MLS_EIO, [MLS_COPY_VERSION] = MLS_EFORMAT,
	[MLS_COPY_DAMAGED] = MLS_EAUTH,    [MLS_COPY_LOCKED] = MLS_EKEY,    [MLS_COPY_FORGED] = MLS_EAUTH,
	[MLS_COPY_AUTHENTIC] = MLS_OK,
};

static const char *const copy_text[] = {
	[MLS_COPY_MISSING] = "isn't there",
	[MLS_COPY_UNREADABLE] = "can't be read",
	[MLS_COPY_VERSION] = "has a version that this program doesn't know",
	[MLS_COPY_DAMAGED] = "is damaged",
	[MLS_COPY_LOCKED] = "doesn't open with this key",
	[MLS_COPY_FORGED] = "is forged: its MAC is wrong",
	[MLS_COPY_AUTHENTIC] = "is authentic",
};

struct copy {
	enum mls_copy_state state;
	struct mls_superblock_disk *disk;
	struct mls_superblock sb;
};

/* ---- One copy as bytes ---- */

void mls_superblock_decode(struct mls_superblock *sb, const struct mls_superblock_disk *disk)
{
	memset(sb, 0, sizeof *sb);
	memcpy(sb->uuid, disk->uuid, sizeof sb->uuid);
	sb->generation = mls_get_le64(disk->generation);
	sb->geo.run_blocks = mls_get_le32(disk->run_blocks);
	sb->geo.disk_blocks = mls_get_le64(disk->disk_blocks);
	sb->geo.journal_area_blocks = mls_get_le64(disk->journal_area_blocks);
	sb->geo.wal_blocks = mls_get_le64(disk->wal_blocks);
	sb->geo.nr_runs = mls_get_le64(disk->nr_runs);
	memcpy(sb->slots, disk->slots, sizeof sb->slots);
}

static int mac_of(const struct mls_superblock_disk *disk, const struct mls_keyring *keys, uint8_t mac[32])
{
	uint8_t key[MLS_KEY_BYTES];
	int err = mls_key_derive(keys, LABEL, NULL, key);

	if (!err)
		err = mls_hmac_sha256(key, disk, MAC_AT, mac);
	mls_wipe(key, sizeof key);
	return err;
}

int mls_superblock_encode(struct mls_superblock_disk *disk, const struct mls_superblock *sb,
			  const struct mls_keyring *keys)
{
	int err;

	MLS_INVARIANT(mls_geometry_possible(&sb->geo));
	MLS_INVARIANT(memcmp(sb->uuid, mls_keyring_uuid(keys), sizeof sb->uuid) == 0);
	memset(disk, 0, sizeof *disk);
	memcpy(disk->magic, MLS_SUPERBLOCK_MAGIC, sizeof disk->magic);
	mls_put_le32(disk->version, MLS_FORMAT_VERSION);
	mls_put_le32(disk->run_blocks, sb->geo.run_blocks);
	memcpy(disk->uuid, sb->uuid, sizeof disk->uuid);
	mls_put_le64(disk->generation, sb->generation);
	mls_put_le64(disk->disk_blocks, sb->geo.disk_blocks);
	mls_put_le64(disk->journal_area_blocks, sb->geo.journal_area_blocks);
	mls_put_le64(disk->wal_blocks, sb->geo.wal_blocks);
	mls_put_le64(disk->nr_runs, sb->geo.nr_runs);
	memcpy(disk->slots, sb->slots, sizeof disk->slots);
	err = mls_sha256(disk, CHECKSUM_AT, disk->checksum);
	if (!err)
		err = mac_of(disk, keys, disk->mac);
	return err;
}

/* ---- Judging one copy ---- */

/* MISSING, VERSION, DAMAGED, or LOCKED: all that can be said without a key. */
static int judge_without_key(struct copy *copy)
{
	uint8_t checksum[32];
	int err;

	copy->state = MLS_COPY_MISSING;
	if (memcmp(copy->disk->magic, MLS_SUPERBLOCK_MAGIC, sizeof copy->disk->magic) != 0)
		return 0;
	copy->state = MLS_COPY_VERSION;
	if (mls_get_le32(copy->disk->version) != MLS_FORMAT_VERSION)
		return 0;
	mls_superblock_decode(&copy->sb, copy->disk);
	err = mls_sha256(copy->disk, CHECKSUM_AT, checksum);
	if (err)
		return err;
	copy->state = mls_geometry_possible(&copy->sb.geo) &&
				      memcmp(checksum, copy->disk->checksum, sizeof checksum) == 0 ?
			      MLS_COPY_LOCKED : MLS_COPY_DAMAGED;
	return 0;
}

static int judge_mac(struct copy *copy, const struct mls_keyring *keys)
{
	uint8_t mac[32];
	int err = mac_of(copy->disk, keys, mac);

	if (!err)
		copy->state = mls_equal_const_time(mac, copy->disk->mac, sizeof mac) ? MLS_COPY_AUTHENTIC : MLS_COPY_FORGED;
	return err;
}

/* Try the secret on all slots, those with the cheap KDF first. *keys stays NULL if none opens. */
static int try_slots(struct mls_superblock *sb, const struct mls_secret *secret, struct mls_keyring **keys)
{
	static const uint8_t kdfs[] = { MLS_SLOT_KDF_HKDF, MLS_SLOT_KDF_SCRYPT };

	for (size_t k = 0; k < sizeof kdfs; k++) {
		for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++) {
			int err;

			if (sb->slots[i].kdf != kdfs[k])
				continue;
			err = mls_key_slot_open(&sb->slots[i], sb->uuid, secret, keys);
			if (err == MLS_EKEY)
				continue;
			sb->opened_slot = i;
			return err;
		}
	}
	return 0;
}

/* A LOCKED copy becomes AUTHENTIC, with keys, or FORGED, or stays. */
static int unlock(struct copy *copy, const struct mls_secret *secret, struct mls_keyring **keys)
{
	struct mls_keyring *opened = NULL;
	int err = try_slots(&copy->sb, secret, &opened);

	if (!err && opened)
		err = judge_mac(copy, opened);
	if (!err && copy->state == MLS_COPY_AUTHENTIC) {
		*keys = opened;
		return 0;
	}
	mls_keyring_free(opened);
	return err;
}

/* ---- Both copies ---- */

/* The only reading of the host's bytes: judged and believed is what was copied here. */
static int load_copies(struct mls_block_dev *dev, struct copy copies[NR_COPIES])
{
	for (unsigned i = 0; i < NR_COPIES; i++) {
		int err;

		copies[i].state = MLS_COPY_MISSING;
		if (copy_hba[i] >= dev->nr_blocks)
			continue;
		if (mls_block_dev_read(dev, copy_hba[i], 1, copies[i].disk)) {
			copies[i].state = MLS_COPY_UNREADABLE;
			continue;
		}
		err = judge_without_key(&copies[i]);
		if (err)
			return err;
	}
	return 0;
}

/*
 * The newest authentic copy, by the rules at the top of this file.
 *
 * found    the copy; NULL: none is authentic.
 */
static int choose(struct copy copies[NR_COPIES], const struct mls_secret *secret, struct mls_keyring **keys,
		  struct copy **found)
{
	struct copy *newer = &copies[0], *older = &copies[1], *other;
	bool twins = memcmp(copies[0].disk, copies[1].disk, sizeof *copies[0].disk) == 0;
	int err = 0;

	*found = NULL;
	if (newer->state != MLS_COPY_LOCKED ||
	    (older->state == MLS_COPY_LOCKED && older->sb.generation > newer->sb.generation)) {
		newer = &copies[1];
		older = &copies[0];
	}
	if (newer->state == MLS_COPY_LOCKED)
		err = unlock(newer, secret, keys);
	if (!err && !*keys && older->state == MLS_COPY_LOCKED && !twins)
		err = unlock(older, secret, keys);
	if (err || !*keys)
		return err;

	*found = newer->state == MLS_COPY_AUTHENTIC ? newer : older;
	other = *found == newer ? older : newer;
	if (other->state != MLS_COPY_LOCKED)
		return 0;
	err = judge_mac(other, *keys);
	if (!err && other->state == MLS_COPY_AUTHENTIC && other->sb.generation > (*found)->sb.generation) {
		mls_error("superblock: this key was removed by a later change of keys (generation %" PRIu64
			  ", found in an old copy of generation %" PRIu64 ")",
			  other->sb.generation, (*found)->sb.generation);
		err = MLS_EKEY;
	}
	return err;
}

static int refuse(const struct copy copies[NR_COPIES])
{
	enum mls_copy_state best = copies[0].state > copies[1].state ? copies[0].state : copies[1].state;

	if (best == MLS_COPY_MISSING)
		mls_error("superblock: not an MlsDisk");
	else if (best == MLS_COPY_LOCKED)
		mls_error("superblock: no key slot opens with this key");
	else
		mls_error("superblock: copy 0 (HBA %" PRIu64 ") %s; copy 1 (HBA %" PRIu64 ") %s", copy_hba[0],
			  copy_text[copies[0].state], copy_hba[1], copy_text[copies[1].state]);
	return copy_err[best];
}

/* Authentic, but is the device the one it was made for? */
static int check_device(const struct mls_superblock *sb, const struct mls_block_dev *dev)
{
	uint64_t end = mls_geometry_end(&sb->geo);

	if (end <= dev->nr_blocks)
		return 0;
	mls_error("superblock: the device is shorter than the disk: expected %" PRIu64 " blocks, found %" PRIu64,
		  end, dev->nr_blocks);
	return MLS_EAUTH;
}

static int read_into(struct mls_block_dev *dev, const struct mls_secret *secret, struct copy copies[NR_COPIES],
		     struct mls_superblock *sb, struct mls_keyring **keys)
{
	struct mls_keyring *opened = NULL;
	struct copy *found = NULL, *other;
	int err;

	err = load_copies(dev, copies);
	if (!err)
		err = choose(copies, secret, &opened, &found);
	if (!err && !found)
		err = refuse(copies);
	if (!err)
		err = check_device(&found->sb, dev);
	if (err) {
		mls_keyring_free(opened);
		return err;
	}

	other = found == &copies[0] ? &copies[1] : &copies[0];
	if (other->state != MLS_COPY_AUTHENTIC)
		mls_warn("superblock: copy %u (HBA %" PRIu64 ") %s; the other one counts",
			 (unsigned)(other - copies), copy_hba[other - copies], copy_text[other->state]);
	found->sb.good_copy = other->state == MLS_COPY_AUTHENTIC && other->sb.generation == found->sb.generation ?
				      1 : (unsigned)(found - copies);
	*sb = found->sb;
	*keys = opened;
	return 0;
}

/* Room for both copies as bytes; NULL: no memory. */
static struct mls_superblock_disk *copies_init(struct copy copies[NR_COPIES])
{
	struct mls_superblock_disk *blocks = mls_blocks_zalloc(NR_COPIES);

	memset(copies, 0, NR_COPIES * sizeof copies[0]);
	for (unsigned i = 0; i < NR_COPIES && blocks; i++)
		copies[i].disk = &blocks[i];
	return blocks;
}

int mls_superblock_read(struct mls_block_dev *dev, const struct mls_secret *secret, struct mls_superblock *sb,
			struct mls_keyring **keys)
{
	struct copy copies[NR_COPIES];
	struct mls_superblock_disk *blocks = copies_init(copies);
	int err;

	if (!blocks)
		return MLS_ENOMEM;
	err = secret->bytes == 0 ? MLS_EINVAL : read_into(dev, secret, copies, sb, keys);
	mls_blocks_free(blocks);
	return err;
}

int mls_superblock_look(struct mls_block_dev *dev, const struct mls_secret *secret,
			struct mls_superblock_copy out[MLS_NR_COPIES], int *counts, struct mls_keyring **keys)
{
	struct copy copies[NR_COPIES], *found = NULL;
	struct mls_superblock_disk *blocks = copies_init(copies);
	struct mls_keyring *opened = NULL;
	int err;

	if (!blocks)
		return MLS_ENOMEM;
	err = load_copies(dev, copies);
	if (!err && secret)
		err = choose(copies, secret, &opened, &found);
	if (err)
		mls_keyring_free(opened);
	for (unsigned i = 0; i < NR_COPIES && !err; i++)
		out[i] = (struct mls_superblock_copy){ copy_hba[i], copies[i].state, copies[i].sb };
	mls_blocks_free(blocks);
	if (err)
		return err;
	*counts = found ? (int)(found - copies) : -1;
	*keys = opened;
	return 0;
}

/* The copy of which the most can be said without a key; of two such the newer one. */
static const struct copy *better_copy(const struct copy copies[NR_COPIES])
{
	if (copies[0].state != copies[1].state)
		return copies[0].state > copies[1].state ? &copies[0] : &copies[1];
	return copies[0].sb.generation >= copies[1].sb.generation ? &copies[0] : &copies[1];
}

int mls_superblock_peek(struct mls_block_dev *dev, struct mls_superblock *sb)
{
	struct copy copies[NR_COPIES];
	struct mls_superblock_disk *blocks = copies_init(copies);
	const struct copy *better;
	int err;

	if (!blocks)
		return MLS_ENOMEM;
	err = load_copies(dev, copies);
	better = better_copy(copies);
	if (!err && better->state < MLS_COPY_LOCKED)
		err = refuse(copies);
	if (!err)
		*sb = better->sb;
	mls_blocks_free(blocks);
	return err;
}

int mls_probe(struct mls_block_dev *dev, struct mls_probe *probe)
{
	struct copy copies[NR_COPIES];
	struct mls_superblock_disk *blocks = copies_init(copies);
	struct mls_probe result = { 0 };
	const struct copy *better;
	int err;

	if (!blocks)
		return MLS_ENOMEM;
	err = load_copies(dev, copies);
	better = better_copy(copies);
	if (!err && better->state == MLS_COPY_UNREADABLE)
		err = MLS_EIO;
	result.is_mlsdisk = better->state != MLS_COPY_MISSING;
	if (better->state >= MLS_COPY_DAMAGED) {
		memcpy(result.uuid, better->sb.uuid, sizeof result.uuid);
		if (!mls_mul_u64(better->sb.geo.disk_blocks, MLS_BLOCK_BYTES, &result.disk_bytes))
			result.disk_bytes = UINT64_MAX;
		for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++)
			result.nr_slots_used += mls_key_slot_used(&better->sb.slots[i]);
	}
	mls_blocks_free(blocks);
	if (!err)
		*probe = result;
	return err;
}

int mls_superblock_write(struct mls_block_dev *dev, const struct mls_keyring *keys, const struct mls_superblock *sb)
{
	struct mls_superblock_disk *block = mls_blocks_alloc(1);
	unsigned order[NR_COPIES] = { !sb->good_copy, !!sb->good_copy };
	int err;

	if (!block)
		return MLS_ENOMEM;
	err = mls_superblock_encode(block, sb, keys);
	for (unsigned i = 0; i < NR_COPIES && !err; i++) {
		err = mls_block_dev_write(dev, copy_hba[order[i]], 1, block);
		if (!err)
			err = mls_block_dev_flush(dev);
	}
	mls_blocks_free(block);
	return err;
}

int mls_superblock_new(struct mls_superblock *sb, struct mls_keyring **keys, const struct mls_geometry *geo,
		       const uint8_t uuid[MLS_UUID_BYTES], const struct mls_secret *secret, unsigned log_n,
		       const char *label)
{
	struct mls_superblock made = { .generation = 1, .geo = *geo, .good_copy = 1 };
	struct mls_keyring *ring = NULL;
	uint8_t *master = mls_secret_alloc(MLS_KEY_BYTES);
	int err;

	if (!master)
		return MLS_ENOMEM;
	memcpy(made.uuid, uuid, sizeof made.uuid);
	err = mls_rand_bytes(master, MLS_KEY_BYTES);
	if (!err)
		err = mls_keyring_new(&ring, master, uuid);
	mls_secret_free(master, MLS_KEY_BYTES);
	if (!err)
		err = mls_key_slot_fill(&made.slots[0], ring, secret, log_n, label);
	if (err) {
		mls_keyring_free(ring);
		return err;
	}
	*sb = made;
	*keys = ring;
	return 0;
}
