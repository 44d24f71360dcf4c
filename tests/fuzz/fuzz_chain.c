/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_chain.c - chain blocks with any header, sealed well.
 *
 * Input    per block: flags, le16 payload bytes, a byte: bit 0: seq jumps by the high bits, bit 1: wrong
 *          predecessor, bit 2: tag broken.
 */
#include <string.h>

#include "1-crypto/crypto_chain.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"

#define RING_BLOCKS 24u

static void write_block(const struct mls_block_ring *ring, struct mls_aead *aead, const uint8_t *salt,
			struct fuzz_input *in, struct mls_chain_pos *pos)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];
	struct mls_chain_hdr_disk *hdr = (void *)block;
	uint8_t nonce[MLS_NONCE_BYTES], how;

	memset(block, 0x33, sizeof block);
	memset(hdr, 0, sizeof *hdr);
	memcpy(hdr->salt, salt, sizeof hdr->salt);
	hdr->flags = (uint8_t)fuzz_take(in, 1);
	mls_put_le16(hdr->payload_bytes, (uint16_t)fuzz_take(in, 2));
	how = (uint8_t)fuzz_take(in, 1);
	if (how & 1)
		pos->seq += how >> 3;
	mls_put_le64(hdr->seq, pos->seq);
	memcpy(hdr->prev_tag, pos->tag, sizeof hdr->prev_tag);
	hdr->prev_tag[3] ^= how & 2;
	mls_nonce_make(nonce, 0, pos->seq);
	fuzz_must(mls_aead_seal(aead, nonce, hdr, offsetof(struct mls_chain_hdr_disk, tag), block + sizeof *hdr,
				MLS_CHAIN_ROOM_BYTES, block + sizeof *hdr, hdr->tag));
	memcpy(pos->tag, hdr->tag, sizeof pos->tag);
	hdr->tag[0] ^= how & 4;
	fuzz_must(mls_block_ring_write(ring, pos->seq++, 1, block));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t salt[MLS_SALT_BYTES] = { 9 };
	struct mls_chain_pos start = { .seq = 5 }, pos = start;
	struct fuzz_input in = { data, size };
	struct mls_chain_reader *reader;
	struct mls_block_ring ring;
	static struct mls_block_dev *dev;
	static struct mls_aead *aead;
	const uint8_t *bytes;
	size_t nr_bytes;

	if (!dev) {
		dev = fuzz_dev_new(RING_BLOCKS);
		fuzz_must(mls_key_derive_aead(fuzz_keys(), "fuzz", salt, &aead));
	}
	fuzz_dev_reset(dev);
	fuzz_must(mls_block_ring_init(&ring, dev, 0, RING_BLOCKS));
	for (unsigned n = 0; in.left > 0 && n < 2 * RING_BLOCKS; n++)
		write_block(&ring, aead, salt, &in, &pos);
	fuzz_must(mls_chain_reader_new(&reader, &ring, fuzz_keys(), "fuzz", &start));
	while (mls_chain_reader_next(reader, &bytes, &nr_bytes) == 0)
		if (nr_bytes > RING_BLOCKS * MLS_BLOCK_BYTES)
			fuzz_must(1);
	(void)mls_chain_reader_more_behind(reader);
	mls_chain_reader_free(reader);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t whole[] = { 1, 0xb0, 0x0f, 0 }, end[] = { 2, 9, 0, 0 }, one[] = { 3, 77, 0, 0 };
	size_t n = 0;

	(void)room;
	if (i >= 4)
		return 0;
	for (unsigned k = 0; k < 3 + 8 * i; k++, n += 4)
		memcpy(out + n, k % 3 == 0 ? one : k % 3 == 1 ? whole : end, 4);
	return n;
}
