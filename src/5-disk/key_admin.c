/* SPDX-License-Identifier: MPL-2.0 */
/*
 * key_admin.c - add, remove and replace secrets of a disk that isn't open (mlsdisk.h, "Key slots").
 *
 * Each change is one rewrite of the superblock with the next generation. The data isn't touched: the
 * master key stays, only its wrapping changes.
 *
 * Invariant: a disk has at least one used slot, and after each change a secret that opens it is known
 * to whoever made the change: the old one, or the new one.
 */
#include <inttypes.h>
#include <string.h>

#include "5-disk/disk.h"
#include "5-disk/key_slot.h"
#include "5-disk/superblock.h"
#include "base/err.h"
#include "base/log.h"

struct admin {
	struct mls_block_dev *dev;
	struct mls_superblock sb;
	struct mls_keyring *keys;
};

static int admin_open(struct admin *admin, struct mls_block_dev *dev, const struct mls_secret *secret, int slot)
{
	*admin = (struct admin){ .dev = dev };
	if (slot != MLS_KEY_SLOT_ANY && (slot < 0 || slot >= (int)MLS_NR_KEY_SLOTS)) {
		mls_error("key slot %d: expected 0 to %u", slot, MLS_NR_KEY_SLOTS - 1);
		return MLS_EINVAL;
	}
	return mls_superblock_read(dev, secret, &admin->sb, &admin->keys);
}

static int admin_commit(struct admin *admin)
{
	admin->sb.generation++;
	return mls_superblock_write(admin->dev, admin->keys, &admin->sb);
}

static void admin_close(struct admin *admin, int err, unsigned slot, unsigned *changed)
{
	mls_keyring_free(admin->keys);
	if (!err && changed)
		*changed = slot;
}

/* A session of the disk whose groups name the new superblock: so the store refuses older ones. It takes no
 * secret, which may open nothing any more, but the keys that it gave. */
static int tell_store(struct admin *admin, struct mls_trusted_store *store)
{
	const struct mls_open_opts opts = { .no_discard = true, .no_defrag = true };
	struct mls_disk *disk;
	int err = mls_disk_open_unlocked(&disk, admin->dev, store, &admin->sb, admin->keys, &opts);

	admin->keys = NULL;
	return err ? err : mls_disk_close(disk);
}

/* Refill a slot; the cost of its KDF never falls. */
static int refill(struct admin *admin, unsigned slot, const struct mls_secret *new_secret, const char *label)
{
	unsigned log_n = admin->sb.slots[slot].scrypt_log_n;

	if (log_n < MLS_SCRYPT_LOG_N_DEFAULT)
		log_n = MLS_SCRYPT_LOG_N_DEFAULT;
	return mls_key_slot_fill(&admin->sb.slots[slot], admin->keys, new_secret, log_n, label);
}

static int used_slot(const struct admin *admin, int slot, unsigned *chosen)
{
	*chosen = slot == MLS_KEY_SLOT_ANY ? admin->sb.opened_slot : (unsigned)slot;
	if (mls_key_slot_used(&admin->sb.slots[*chosen]))
		return 0;
	mls_error("key slot %u is free", *chosen);
	return MLS_ENOENT;
}

static int free_slot(const struct admin *admin, int slot, unsigned *chosen)
{
	if (slot != MLS_KEY_SLOT_ANY) {
		*chosen = (unsigned)slot;
		if (!mls_key_slot_used(&admin->sb.slots[slot]))
			return 0;
		mls_error("key slot %d is used already", slot);
		return MLS_EEXIST;
	}
	for (*chosen = 0; *chosen < MLS_NR_KEY_SLOTS; ++*chosen)
		if (!mls_key_slot_used(&admin->sb.slots[*chosen]))
			return 0;
	mls_error("all %u key slots are used; remove one first", MLS_NR_KEY_SLOTS);
	return MLS_ENOSPC;
}

/*
 * A new secret in the slot that pick chooses.
 *
 * slot   what the caller asked for
 * pick   used_slot or free_slot
 */
static int set_secret(struct mls_block_dev *dev, struct mls_trusted_store *store, const struct mls_secret *secret,
		      const struct mls_secret *new_secret, int slot, const char *label, unsigned *changed, int *told,
		      int (*pick)(const struct admin *admin, int slot, unsigned *chosen))
{
	struct admin admin;
	unsigned chosen = 0;
	int err;

	err = admin_open(&admin, dev, secret, slot);
	if (!err)
		err = pick(&admin, slot, &chosen);
	if (!err)
		err = refill(&admin, chosen, new_secret, label);
	if (!err)
		err = admin_commit(&admin);
	if (!err && store)
		*told = tell_store(&admin, store);
	admin_close(&admin, err, chosen, changed);
	return err;
}

int mls_key_add(struct mls_block_dev *dev, const struct mls_secret *secret, const struct mls_secret *new_secret,
		int slot, const char *label, unsigned *changed)
{
	return set_secret(dev, NULL, secret, new_secret, slot, label, changed, NULL, free_slot);
}

int mls_key_change(struct mls_block_dev *dev, const struct mls_secret *secret, const struct mls_secret *new_secret,
		   int slot, const char *label, unsigned *changed)
{
	return set_secret(dev, NULL, secret, new_secret, slot, label, changed, NULL, used_slot);
}

int mls_key_change_told(struct mls_block_dev *dev, struct mls_trusted_store *store, const struct mls_secret *secret,
			const struct mls_secret *new_secret, int slot, const char *label, unsigned *changed, int *told)
{
	return set_secret(dev, store, secret, new_secret, slot, label, changed, told, used_slot);
}

int mls_key_remove_told(struct mls_block_dev *dev, struct mls_trusted_store *store, const struct mls_secret *secret,
			int slot, unsigned *changed, int *told)
{
	struct admin admin;
	unsigned chosen = 0, nr_used = 0;
	int err;

	err = admin_open(&admin, dev, secret, slot);
	if (!err)
		err = used_slot(&admin, slot, &chosen);
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++)
		nr_used += mls_key_slot_used(&admin.sb.slots[i]);
	if (!err && nr_used == 1) {
		mls_error("key slot %u is the last one: without it nobody could open the disk", chosen);
		err = MLS_EINVAL;
	}
	if (!err) {
		mls_key_slot_clear(&admin.sb.slots[chosen]);
		err = admin_commit(&admin);
	}
	if (!err && store)
		*told = tell_store(&admin, store);
	admin_close(&admin, err, chosen, changed);
	return err;
}

int mls_key_remove(struct mls_block_dev *dev, const struct mls_secret *secret, int slot, unsigned *changed)
{
	return mls_key_remove_told(dev, NULL, secret, slot, changed, NULL);
}

int mls_key_list(struct mls_block_dev *dev, struct mls_key_info info[MLS_NR_KEY_SLOTS])
{
	struct mls_superblock sb;
	int err = mls_superblock_peek(dev, &sb);

	if (err)
		return err;
	memset(info, 0, sizeof info[0] * MLS_NR_KEY_SLOTS);
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++) {
		const struct mls_key_slot_disk *slot = &sb.slots[i];

		if (!mls_key_slot_used(slot))
			continue;
		info[i].used = true;
		info[i].passphrase = slot->kdf == MLS_SLOT_KDF_SCRYPT;
		info[i].scrypt_log_n = slot->scrypt_log_n;
		memcpy(info[i].label, slot->label, sizeof info[i].label - 1);
	}
	return 0;
}
