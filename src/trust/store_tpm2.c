/* SPDX-License-Identifier: MPL-2.0 */
/*
 * store_tpm2.c - the trusted register in an NV index of a TPM 2.0.
 *
 * The index belongs to one disk: its label names the disk to everybody, and its authorization value is
 * derived from the disk's master key, so that no other disk can write it, even if a program with a
 * fault tried. It holds the two slots of the file store, packed, written in turn: an NV write that the
 * power's loss cuts off leaves the other slot, whatever the TPM's maker promises about atomic writes.
 *
 * States   as of trust_slots.h. EMPTY: the index isn't defined; or it is, and the first write, which
 *          writes both slots at once, never came.
 *
 * Two processes with two copies of one disk would both be right about the index. As with the file
 * store's lock, the second is kept out: by an abstract socket named after the disk, which ends with its
 * process. (Two machines, or network namespaces, that share a TPM aren't kept out. Both advance the
 * same slots then, and the next open of either copy finds the other's value: a mismatch.)
 */
#include "trust/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "1-crypto/secret.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "trust/tpm2_nv.h"
#include "trust/trust_slots.h"

#define SLOT_BYTES sizeof(struct mls_trust_slot_disk)
#define PACKED_BYTES sizeof(struct mls_trust_nv_slot_disk)
#define NV_BYTES (MLS_NR_TRUST_SLOTS * PACKED_BYTES)

struct store_tpm2 {
	struct mls_trusted_store base;		/* first */
	struct mls_tpm2_nv *nv;
	int lock_fd;
	bool defined;
	uint8_t bytes[MLS_NR_TRUST_SLOTS * SLOT_BYTES];
	struct mls_trust_slots slots;		/* over bytes */
};

static struct store_tpm2 *store_tpm2(struct mls_trusted_store *store)
{
	return (struct store_tpm2 *)store;
}

/* ---- The index ---- */

static void make_label(uint8_t label[MLS_TPM2_LABEL_BYTES], const uint8_t uuid[MLS_UUID_BYTES])
{
	struct mls_trust_nv_label_disk disk = { .reserved = { 0 } };

	_Static_assert(sizeof disk == MLS_TPM2_LABEL_BYTES, "the label fills the policy field");
	memcpy(disk.magic, MLS_TRUST_MAGIC, sizeof disk.magic);
	mls_put_le32(disk.version, MLS_TRUST_VERSION);
	memcpy(disk.uuid, uuid, sizeof disk.uuid);
	memcpy(label, &disk, sizeof disk);
}

static int refuse_label(const struct store_tpm2 *s, const uint8_t label[MLS_TPM2_LABEL_BYTES])
{
	const struct mls_trust_nv_label_disk *disk = (const void *)label;
	char ours[MLS_UUID_TEXT_BYTES], found[MLS_UUID_TEXT_BYTES];

	mls_uuid_format(ours, s->slots.uuid);
	mls_uuid_format(found, disk->uuid);
	if (memcmp(disk->magic, MLS_TRUST_MAGIC, sizeof disk->magic) != 0)
		mls_error("trusted store %s: the index is there, but isn't a trusted store, so it is left alone; choose "
			  "another index",
			  mls_tpm2_nv_name(s->nv));
	else if (memcmp(disk->uuid, s->slots.uuid, sizeof disk->uuid) != 0)
		mls_error("trusted store %s: expected the one of disk %s, found that of disk %s; give each disk an index "
			  "of its own (if that disk is gone: tpm2_nvundefine %s)",
			  mls_tpm2_nv_name(s->nv), ours, found, strchr(mls_tpm2_nv_name(s->nv), ':') + 1);
	else
		mls_error("trusted store %s: of another version than this program's", mls_tpm2_nv_name(s->nv));
	return MLS_ESTALE;
}

/* Is the index there, and ours? Sets `defined`. */
static int look(struct store_tpm2 *s)
{
	uint8_t label[MLS_TPM2_LABEL_BYTES], ours[MLS_TPM2_LABEL_BYTES];
	int err = mls_tpm2_nv_look(s->nv, NV_BYTES, label);

	s->defined = false;
	if (err == MLS_ENOENT)
		return 0;
	if (err)
		return err;
	make_label(ours, s->slots.uuid);
	if (memcmp(label, ours, sizeof ours) != 0)
		return refuse_label(s, label);
	s->defined = true;
	return 0;
}

static void pack(const struct store_tpm2 *s, unsigned slot, struct mls_trust_nv_slot_disk *packed)
{
	const struct mls_trust_slot_disk *disk = mls_trust_slot_at(&s->slots, slot);

	memcpy(packed->head, disk, sizeof packed->head);
	memcpy(packed->mac, disk->mac, sizeof packed->mac);
}

static void unpack(struct store_tpm2 *s, unsigned slot, const struct mls_trust_nv_slot_disk *packed)
{
	struct mls_trust_slot_disk *disk = mls_trust_slot_at(&s->slots, slot);

	memset(disk, 0, sizeof *disk);
	memcpy(disk, packed->head, sizeof packed->head);
	memcpy(disk->mac, packed->mac, sizeof packed->mac);
}

static int load(struct store_tpm2 *s)
{
	struct mls_trust_nv_slot_disk packed[MLS_NR_TRUST_SLOTS];
	int err = look(s);

	s->slots.state = MLS_TRUST_UNKNOWN;
	if (!err && s->defined)
		err = mls_tpm2_nv_read(s->nv, packed, sizeof packed);
	if (err == MLS_ENOENT || (!err && !s->defined)) {
		s->slots.state = MLS_TRUST_EMPTY;
		return 0;
	}
	if (err)
		return err;
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++)
		unpack(s, i, &packed[i]);
	return mls_trust_slots_judge(&s->slots, mls_tpm2_nv_name(s->nv));
}

/* The first value, with a free slot beside it, in one write. */
static int write_first(struct store_tpm2 *s, const struct mls_trust *trust)
{
	struct mls_trust_nv_slot_disk packed[MLS_NR_TRUST_SLOTS];
	uint8_t label[MLS_TPM2_LABEL_BYTES];
	int err = 0;

	memset(s->bytes, 0, sizeof s->bytes);
	s->slots.next_slot = 0;
	s->slots.counter = 0;
	make_label(label, s->slots.uuid);
	if (!s->defined)
		err = mls_tpm2_nv_define(s->nv, NV_BYTES, label);
	if (err)
		return err;
	s->defined = true;
	err = mls_trust_slots_encode(&s->slots, trust);
	if (err)
		return err;
	for (unsigned i = 0; i < MLS_NR_TRUST_SLOTS; i++)
		pack(s, i, &packed[i]);
	err = mls_tpm2_nv_write(s->nv, 0, packed, sizeof packed);
	/* The first write changes the index's name, which sessions are bound to: look at it anew. */
	return err ? err : look(s);
}

static int write_next(struct store_tpm2 *s, const struct mls_trust *trust)
{
	struct mls_trust_nv_slot_disk packed;
	unsigned slot = s->slots.next_slot;
	int err = mls_trust_slots_encode(&s->slots, trust);

	if (err)
		return err;
	pack(s, slot, &packed);
	return mls_tpm2_nv_write(s->nv, (uint16_t)(slot * PACKED_BYTES), &packed, sizeof packed);
}

/* ---- The contract ---- */

/* An index that isn't to be opened with our value isn't ours, whatever its label says. */
static int not_ours(const struct store_tpm2 *s, int err)
{
	if (err != MLS_EAUTH)
		return err;
	mls_error("trusted store %s: not the one that this disk made. If that one is lost: tpm2_nvundefine %s, then open "
		  "the disk once with --accept-rollback",
		  mls_tpm2_nv_name(s->nv), strchr(mls_tpm2_nv_name(s->nv), ':') + 1);
	return MLS_ESTALE;
}

static int tpm2_set_key(struct mls_trusted_store *store, const uint8_t key[32])
{
	struct store_tpm2 *s = store_tpm2(store);
	uint8_t auth[MLS_TPM2_AUTH_BYTES];
	int err = mls_hkdf_sha256(key, MLS_KEY_BYTES, s->slots.uuid, sizeof s->slots.uuid, "tpm2 authorization", auth);

	if (err)
		return err;
	auth[MLS_TPM2_AUTH_BYTES - 1] |= 1;	/* a TPM drops zeros at the end; a length is a length */
	mls_tpm2_nv_set_auth(s->nv, auth);
	mls_wipe(auth, sizeof auth);
	mls_trust_slots_set_key(&s->slots, key);
	return 0;
}

static int tpm2_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	struct store_tpm2 *s = store_tpm2(store);
	const char *name = mls_tpm2_nv_name(s->nv);
	int err;

	if (!s->slots.has_key)
		return MLS_EINVAL;
	err = not_ours(s, load(s));
	if (err)
		return err;
	switch (s->slots.state) {
	case MLS_TRUST_EMPTY:
		mls_info("trusted store %s: the index %s", name, s->defined ? "was never written" : "isn't defined");
		return MLS_ENOENT;
	case MLS_TRUST_VALID:
		mls_trust_slots_value(&s->slots, trust);
		return 0;
	default:
		mls_error("trusted store %s: damaged", name);
		return MLS_EAUTH;
	}
}

static int tpm2_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	struct store_tpm2 *s = store_tpm2(store);
	int err = 0;

	if (!s->slots.has_key)
		return MLS_EINVAL;
	if (memcmp(trust->uuid, s->slots.uuid, sizeof s->slots.uuid) != 0) {
		mls_error("trusted store %s: opened for another disk", mls_tpm2_nv_name(s->nv));
		return MLS_ESTALE;
	}
	if (s->slots.state == MLS_TRUST_UNKNOWN)
		err = load(s);
	if (!err && s->slots.state == MLS_TRUST_DAMAGED)
		mls_warn("trusted store %s: was damaged; it begins anew", mls_tpm2_nv_name(s->nv));
	if (!err)
		err = s->slots.state == MLS_TRUST_VALID ? write_next(s, trust) : write_first(s, trust);
	if (!err)
		mls_trust_slots_written(&s->slots);
	return not_ours(s, err);
}

static unsigned tpm2_nr_damaged(struct mls_trusted_store *store)
{
	const struct store_tpm2 *s = store_tpm2(store);

	return s->slots.state == MLS_TRUST_VALID ? s->slots.nr_damaged : 0;
}

static void tpm2_destroy(struct mls_trusted_store *store)
{
	struct store_tpm2 *s = store_tpm2(store);

	mls_tpm2_nv_close(s->nv);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	mls_secret_free(s, sizeof *s);
}

static const struct mls_trusted_store_ops tpm2_ops = {
	.set_key = tpm2_set_key,
	.read = tpm2_read,
	.advance = tpm2_advance,
	.destroy = tpm2_destroy,
	.nr_damaged = tpm2_nr_damaged,
};

/* ---- Opening ---- */

static int take_lock(struct store_tpm2 *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char uuid[MLS_UUID_TEXT_BYTES];
	int n;

	mls_uuid_format(uuid, s->slots.uuid);
	n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "mlsdisk-tpm2-%s", uuid);
	s->lock_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s->lock_fd >= 0 && bind(s->lock_fd, (struct sockaddr *)&address,
				    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0)
		return 0;
	if (errno == EADDRINUSE) {
		mls_error("trusted store tpm2: of disk %s: in use by another process", uuid);
		return MLS_EBUSY;
	}
	mls_error("trusted store tpm2: lock: %s", strerror(errno));
	return MLS_EIO;
}

int mls_store_tpm2_open(struct mls_trusted_store **store, uint32_t index, const uint8_t uuid[MLS_UUID_BYTES])
{
	struct store_tpm2 *s = mls_secret_alloc(sizeof *s);
	int err;

	if (!s)
		return MLS_ENOMEM;
	s->base.ops = &tpm2_ops;
	s->lock_fd = -1;
	s->slots.bytes = s->bytes;
	s->slots.slot_bytes = SLOT_BYTES;
	memcpy(s->slots.uuid, uuid, sizeof s->slots.uuid);
	err = take_lock(s);
	if (!err)
		err = mls_tpm2_nv_open(&s->nv, index);
	if (!err)
		err = look(s);
	if (err) {
		tpm2_destroy(&s->base);
		return err;
	}
	*store = &s->base;
	return 0;
}
