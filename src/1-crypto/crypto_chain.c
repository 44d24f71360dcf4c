/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_chain.c - linked records on a ring; see crypto_chain.h, struct mls_chain_hdr_disk.
 *
 * A block is a header of 80 bytes (bytes 0..63 are its AAD, then its tag) and 4016 bytes of
 * ciphertext. All blocks of a group but the last are full; a group of no bytes is one block.
 *
 * Writer   idle --begin--> in group --end--> idle
 *              any error --> poisoned, for good
 * Reader   At pos it accepts one block only: right seq, prev_tag equal to the tag it holds, a tag
 *          that opens it, then the right flags. Whatever else lies there is "no further group".
 *
 * Key      Born in writer_new from a random salt, so never in two writers; its nonce is seq, which
 *          only grows in one writer; and a writer whose write failed never seals again. The
 *          reader only opens.
 *
 * Invariants (fsck can check them): the blocks of a group are one after the other; the first, and
 * only the first, has FIRST; the last, and only the last, has LAST; all others are full.
 */
#include "1-crypto/crypto_chain.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"
#include "format/mlsdisk_format.h"

#define WRITE_BLOCKS 64u
#define READ_BLOCKS_FIRST 64u
#define READ_BLOCKS 256u
#define HDR_BYTES sizeof(struct mls_chain_hdr_disk)
#define AAD_BYTES offsetof(struct mls_chain_hdr_disk, tag)

_Static_assert(HDR_BYTES + MLS_CHAIN_ROOM_BYTES == MLS_BLOCK_BYTES, "header and room fill a block");
_Static_assert(AAD_BYTES == 64, "the header is authenticated up to its tag");

uint64_t mls_chain_blocks(uint64_t group_bytes)
{
	return group_bytes ? mls_div_round_up(group_bytes, MLS_CHAIN_ROOM_BYTES) : 1;
}

/* ---- Writer ---- */

enum writer_state { WRITER_IDLE, WRITER_IN_GROUP, WRITER_POISONED };

struct mls_chain_writer {
	struct mls_block_ring ring;
	struct mls_aead *aead;
	uint8_t salt[MLS_SALT_BYTES];
	enum writer_state state;
	struct mls_chain_pos pos;	/* behind the last whole group */
	struct mls_chain_pos next;	/* of the block that is being filled */
	uint8_t *blocks;		/* sealed, waiting; then the one being filled */
	uint32_t cap_blocks, nr_sealed;
	uint32_t fill_bytes;		/* payload in the one being filled */
	bool first;			/* it is the group's first */
};

int mls_chain_writer_new(struct mls_chain_writer **writer, const struct mls_block_ring *ring,
			 const struct mls_keyring *keys, const char *label, const struct mls_chain_pos *pos)
{
	struct mls_chain_writer *w = calloc(1, sizeof *w);
	int err;

	if (!w)
		return MLS_ENOMEM;
	w->ring = *ring;
	w->pos = *pos;
	w->cap_blocks = (uint32_t)mls_min_u64(WRITE_BLOCKS, ring->nr_blocks);
	w->blocks = mls_blocks_alloc(w->cap_blocks);
	err = w->blocks ? mls_rand_bytes(w->salt, sizeof w->salt) : MLS_ENOMEM;
	if (!err)
		err = mls_key_derive_aead(keys, label, w->salt, &w->aead);
	if (err) {
		mls_chain_writer_free(w);
		return err;
	}
	*writer = w;
	return 0;
}

void mls_chain_writer_free(struct mls_chain_writer *writer)
{
	if (!writer)
		return;
	if (writer->blocks)
		mls_wipe(writer->blocks, (size_t)writer->cap_blocks * MLS_BLOCK_BYTES);
	mls_blocks_free(writer->blocks);
	mls_aead_free(writer->aead);
	free(writer);
}

const struct mls_chain_pos *mls_chain_writer_pos(const struct mls_chain_writer *writer)
{
	return &writer->pos;
}

static uint8_t *filling_payload(struct mls_chain_writer *w)
{
	return mls_block_at(w->blocks, w->nr_sealed) + HDR_BYTES;
}

/* Seal the block being filled, in place. */
static int seal_block(struct mls_chain_writer *w, bool last)
{
	struct mls_chain_hdr_disk *hdr = (void *)mls_block_at(w->blocks, w->nr_sealed);
	uint8_t *payload = filling_payload(w), nonce[MLS_NONCE_BYTES];
	int err;

	MLS_INVARIANT(w->nr_sealed < w->cap_blocks && w->fill_bytes <= MLS_CHAIN_ROOM_BYTES);
	MLS_INVARIANT(last || w->fill_bytes == MLS_CHAIN_ROOM_BYTES);
	memset(hdr, 0, sizeof *hdr);
	memcpy(hdr->salt, w->salt, sizeof hdr->salt);
	mls_put_le64(hdr->seq, w->next.seq);
	memcpy(hdr->prev_tag, w->next.tag, sizeof hdr->prev_tag);
	mls_put_le16(hdr->payload_bytes, (uint16_t)w->fill_bytes);
	hdr->flags = (w->first ? MLS_CHAIN_FLAG_FIRST : 0) | (last ? MLS_CHAIN_FLAG_LAST : 0);
	memset(payload + w->fill_bytes, 0, MLS_CHAIN_ROOM_BYTES - w->fill_bytes);

	mls_nonce_make(nonce, 0, w->next.seq);
	err = mls_aead_seal(w->aead, nonce, hdr, AAD_BYTES, payload, MLS_CHAIN_ROOM_BYTES, payload, hdr->tag);
	if (err)
		return err;
	memcpy(w->next.tag, hdr->tag, sizeof w->next.tag);
	w->next.seq++;
	w->nr_sealed++;
	w->fill_bytes = 0;
	w->first = false;
	return 0;
}

static int write_sealed(struct mls_chain_writer *w, struct mls_io *along, unsigned nr_along)
{
	uint64_t seq = w->next.seq - w->nr_sealed;
	int err = mls_block_ring_write_along(&w->ring, seq, w->nr_sealed, w->blocks, along, nr_along);

	if (err)
		mls_error("chain: writing %u blocks at seq %llu of the ring at HBA %llu failed", w->nr_sealed,
			  (unsigned long long)seq, (unsigned long long)w->ring.hba);
	w->nr_sealed = 0;
	return err;
}

static int poison(struct mls_chain_writer *w, int err)
{
	w->state = WRITER_POISONED;
	return err;
}

int mls_chain_begin(struct mls_chain_writer *writer)
{
	if (writer->state == WRITER_POISONED)
		return MLS_EPOISONED;
	MLS_INVARIANT(writer->state == WRITER_IDLE);
	writer->state = WRITER_IN_GROUP;
	writer->next = writer->pos;
	writer->nr_sealed = 0;
	writer->fill_bytes = 0;
	writer->first = true;
	return 0;
}

/* Finish a full block that isn't the group's last. */
static int next_block(struct mls_chain_writer *w)
{
	int err = seal_block(w, false);

	if (!err && w->next.seq - w->pos.seq >= w->ring.nr_blocks) {
		mls_error("chain: a group is longer than its ring of %llu blocks",
			  (unsigned long long)w->ring.nr_blocks);
		err = MLS_ENOSPC;
	}
	if (!err && w->nr_sealed == w->cap_blocks)
		err = write_sealed(w, NULL, 0);
	return err;
}

int mls_chain_put(struct mls_chain_writer *writer, const void *bytes, size_t nr_bytes)
{
	const uint8_t *from = bytes;

	if (writer->state == WRITER_POISONED)
		return MLS_EPOISONED;
	MLS_INVARIANT(writer->state == WRITER_IN_GROUP);
	while (nr_bytes > 0) {
		size_t n;

		/* Only now, when more follows, is it known that the full block isn't the last. */
		if (writer->fill_bytes == MLS_CHAIN_ROOM_BYTES) {
			int err = next_block(writer);

			if (err)
				return poison(writer, err);
		}
		n = mls_min_u64(nr_bytes, MLS_CHAIN_ROOM_BYTES - writer->fill_bytes);
		memcpy(filling_payload(writer) + writer->fill_bytes, from, n);
		writer->fill_bytes += (uint32_t)n;
		from += n;
		nr_bytes -= n;
	}
	return 0;
}

int mls_chain_end(struct mls_chain_writer *writer)
{
	return mls_chain_end_along(writer, NULL, 0);
}

int mls_chain_end_along(struct mls_chain_writer *writer, struct mls_io *along, unsigned nr_along)
{
	int err;

	if (writer->state == WRITER_POISONED)
		return MLS_EPOISONED;
	MLS_INVARIANT(writer->state == WRITER_IN_GROUP);
	err = seal_block(writer, true);
	if (!err)
		err = write_sealed(writer, along, nr_along);
	if (err)
		return poison(writer, err);
	MLS_INVARIANT(writer->next.seq - writer->pos.seq <= writer->ring.nr_blocks);
	writer->pos = writer->next;
	writer->state = WRITER_IDLE;
	return 0;
}

/* ---- Reader ---- */

struct mls_chain_reader {
	struct mls_block_ring ring;
	const struct mls_keyring *keys;
	const char *label;
	struct mls_chain_pos pos;	/* behind the last whole group given out */
	uint64_t end_seq;		/* start + ring: from there on the ring would come round */

	struct mls_aead *aead;		/* of the salt met last; NULL: none yet */
	uint8_t salt[MLS_SALT_BYTES];

	uint8_t *window;		/* blocks read ahead */
	uint32_t cap_window, nr_window, read_blocks;
	uint64_t window_seq;

	uint8_t *group;
	size_t group_bytes, cap_group;
};

int mls_chain_reader_new(struct mls_chain_reader **reader, const struct mls_block_ring *ring,
			 const struct mls_keyring *keys, const char *label, const struct mls_chain_pos *pos)
{
	struct mls_chain_reader *r = calloc(1, sizeof *r);

	if (!r)
		return MLS_ENOMEM;
	r->ring = *ring;
	r->keys = keys;
	r->label = label;
	r->pos = *pos;
	if (!mls_add_u64(pos->seq, ring->nr_blocks, &r->end_seq))
		r->end_seq = UINT64_MAX;
	r->cap_window = (uint32_t)mls_min_u64(READ_BLOCKS, ring->nr_blocks);
	r->read_blocks = READ_BLOCKS_FIRST;
	r->window = mls_blocks_alloc(r->cap_window);
	if (!r->window) {
		mls_chain_reader_free(r);
		return MLS_ENOMEM;
	}
	*reader = r;
	return 0;
}

void mls_chain_reader_free(struct mls_chain_reader *reader)
{
	if (!reader)
		return;
	mls_aead_free(reader->aead);
	mls_blocks_free(reader->window);
	if (reader->group)
		mls_wipe(reader->group, reader->cap_group);
	free(reader->group);
	free(reader);
}

const struct mls_chain_pos *mls_chain_reader_pos(const struct mls_chain_reader *reader)
{
	return &reader->pos;
}

/* The block of seq, out of the window, which is moved there if need be. seq < end_seq. */
static int window_block(struct mls_chain_reader *r, uint64_t seq, uint8_t **block)
{
	uint32_t n;
	int err;

	if (seq >= r->window_seq && seq - r->window_seq < r->nr_window) {
		*block = mls_block_at(r->window, seq - r->window_seq);
		return 0;
	}
	n = (uint32_t)mls_min_u64(mls_min_u64(r->read_blocks, r->cap_window), r->end_seq - seq);
	r->read_blocks = READ_BLOCKS;
	r->nr_window = 0;
	err = mls_block_ring_read(&r->ring, seq, n, r->window);
	if (err && n > 1) {
		/* Behind the chain's end there may be a bad sector, which is none of our business. */
		n = 1;
		err = mls_block_ring_read(&r->ring, seq, n, r->window);
	}
	if (err) {
		mls_error("chain: reading block seq %llu of the ring at HBA %llu failed",
			  (unsigned long long)seq, (unsigned long long)r->ring.hba);
		return err;
	}
	r->window_seq = seq;
	r->nr_window = n;
	*block = r->window;
	return 0;
}

static int aead_for_salt(struct mls_chain_reader *r, const uint8_t salt[MLS_SALT_BYTES])
{
	struct mls_aead *aead;
	int err;

	if (r->aead && memcmp(r->salt, salt, MLS_SALT_BYTES) == 0)
		return 0;
	err = mls_key_derive_aead(r->keys, r->label, salt, &aead);
	if (err)
		return err;
	mls_aead_free(r->aead);
	r->aead = aead;
	memcpy(r->salt, salt, MLS_SALT_BYTES);
	return 0;
}

/* Authenticate and decrypt to payload, by what the block says of itself. block stays as it is. */
static int open_block(struct mls_chain_reader *r, const uint8_t *block, uint8_t *payload)
{
	const struct mls_chain_hdr_disk *hdr = (const void *)block;
	uint8_t nonce[MLS_NONCE_BYTES];
	int err = aead_for_salt(r, hdr->salt);

	if (err)
		return err;
	mls_nonce_make(nonce, 0, mls_get_le64(hdr->seq));
	return mls_aead_open(r->aead, nonce, hdr, AAD_BYTES, block + HDR_BYTES, MLS_CHAIN_ROOM_BYTES, payload,
			     hdr->tag);
}

/* Room for one more block's payload behind group_bytes. */
static int group_grow(struct mls_chain_reader *r)
{
	size_t cap = r->cap_group ? r->cap_group * 2 : 4 * (size_t)MLS_CHAIN_ROOM_BYTES;
	uint8_t *group;

	if (r->cap_group - r->group_bytes >= MLS_CHAIN_ROOM_BYTES)
		return 0;
	group = malloc(cap);
	if (!group)
		return MLS_ENOMEM;
	if (r->group) {
		memcpy(group, r->group, r->group_bytes);
		mls_wipe(r->group, r->cap_group);
		free(r->group);
	}
	r->group = group;
	r->cap_group = cap;
	return 0;
}

/* The block at next, appended to group. MLS_ENOENT: what lies there doesn't go on with the chain. */
static int read_block(struct mls_chain_reader *r, struct mls_chain_pos *next, bool first, bool *last)
{
	const struct mls_chain_hdr_disk *hdr;
	uint32_t payload_bytes;
	uint8_t *block;
	int err;

	if (next->seq >= r->end_seq)
		return MLS_ENOENT;
	err = window_block(r, next->seq, &block);
	if (!err)
		err = group_grow(r);
	if (err)
		return err;

	/* The host's bytes: does it even claim to be the one? Saves a key for what is garbage. */
	hdr = (const void *)block;
	payload_bytes = mls_get_le16(hdr->payload_bytes);
	if (payload_bytes > MLS_CHAIN_ROOM_BYTES || mls_get_le64(hdr->seq) != next->seq ||
	    memcmp(hdr->prev_tag, next->tag, MLS_TAG_BYTES) != 0)
		return MLS_ENOENT;
	err = open_block(r, block, r->group + r->group_bytes);
	if (err)
		return err == MLS_EAUTH ? MLS_ENOENT : err;

	/* Authentic: now its fields mean something. */
	*last = hdr->flags & MLS_CHAIN_FLAG_LAST;
	if (!!(hdr->flags & MLS_CHAIN_FLAG_FIRST) != first ||
	    (hdr->flags & ~(MLS_CHAIN_FLAG_FIRST | MLS_CHAIN_FLAG_LAST)) != 0 ||
	    (!*last && payload_bytes != MLS_CHAIN_ROOM_BYTES)) {
		mls_error("chain: block seq %llu is authentic, but its flags %u can't be",
			  (unsigned long long)next->seq, hdr->flags);
		return MLS_ENOENT;
	}
	r->group_bytes += payload_bytes;
	memcpy(next->tag, hdr->tag, MLS_TAG_BYTES);
	next->seq++;
	return 0;
}

int mls_chain_reader_next(struct mls_chain_reader *reader, const uint8_t **bytes, size_t *nr_bytes)
{
	struct mls_chain_pos next = reader->pos;
	bool first = true, last = false;
	int err;

	reader->group_bytes = 0;
	while (!last) {
		err = read_block(reader, &next, first, &last);
		if (err) {
			reader->nr_window = 0;	/* who asks again wants to see what lies there then */
			return err;
		}
		first = false;
	}
	reader->pos = next;
	*bytes = reader->group;
	*nr_bytes = reader->group_bytes;
	return 0;
}

bool mls_chain_reader_more_behind(struct mls_chain_reader *reader)
{
	uint8_t payload[MLS_CHAIN_ROOM_BYTES];
	const struct mls_chain_hdr_disk *hdr;
	bool found = false;
	uint8_t *block;
	uint64_t seq;

	if (reader->pos.seq >= reader->end_seq)		/* and so + 1 doesn't wrap */
		return false;
	for (seq = reader->pos.seq + 1; seq < reader->end_seq && !found; seq++) {
		if (window_block(reader, seq, &block) != 0)
			continue;
		hdr = (const void *)block;
		if (mls_get_le64(hdr->seq) == seq)
			found = open_block(reader, block, payload) == 0;
	}
	reader->nr_window = 0;
	mls_wipe(payload, sizeof payload);
	return found;
}
