/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_node.c - the nodes of a log's Merkle tree, sealed well, with any content.
 *
 * Input    a byte: data blocks - 1 (one node at the top); le16: number of data blocks that the root tells;
 *          then edits of a right node.
 */
#include <string.h>

#include "1-crypto/crypto_log.h"
#include "1-crypto/crypto_log_layout.h"
#include "1-crypto/crypto_log_seal.h"
#include "base/buf.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"

#define DEV_BLOCKS 64u
#define NR_MAX 20u

static const uint8_t salt[MLS_SALT_BYTES] = { 4 };
static struct mls_block_dev *dev;
static struct mls_aead *aead;
static uint8_t tags[NR_MAX][MLS_TAG_BYTES];

/* The data blocks are the same for all inputs. */
static void prepare(void)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];

	if (dev)
		return;
	dev = fuzz_dev_new(DEV_BLOCKS);
	fuzz_must(mls_key_derive_aead(fuzz_keys(), MLS_LOG_KEY_LABEL, salt, &aead));
	for (uint64_t i = 0; i < NR_MAX; i++) {
		struct mls_log_place place = { .kind = 0, .index = i, .pos = i };

		memset(block, (int)i, sizeof block);
		fuzz_must(mls_log_seal(aead, &place, block, block, tags[i]));
		fuzz_must(mls_block_dev_write(dev, i, 1, block));
	}
	fuzz_dev_keep(dev);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES], node[MLS_BLOCK_BYTES];
	struct mls_mht_node_disk *head = (void *)node;
	struct mls_log_root root = { .nr_data_blocks = 0 };
	struct fuzz_input in = { data, size };
	uint64_t hba = 0, nr = fuzz_take(&in, 1) % NR_MAX + 1, told = fuzz_take(&in, 2);
	struct mls_log_place top = { .kind = 1, .index = 0, .pos = nr };
	struct mls_block_log raw;
	struct mls_crypto_log *log;

	prepare();
	fuzz_dev_reset(dev);
	memcpy(root.salt, salt, sizeof salt);
	memset(node, 0, sizeof node);
	mls_put_le16(head->nr_children, (uint16_t)nr);
	memcpy(head->child_tag, tags, nr * sizeof *tags);
	fuzz_edit(&in, node, sizeof node);
	fuzz_must(mls_log_seal(aead, &top, node, node, root.tag));
	fuzz_must(mls_block_dev_write(dev, nr, 1, node));
	root.nr_data_blocks = told ? told : nr;
	fuzz_must(mls_block_log_init_existing(&raw, dev, DEV_BLOCKS, &hba, 1, nr + 1));
	if (mls_crypto_log_open(&log, &raw, fuzz_keys(), &root) == 0) {
		for (uint64_t i = 0; i < nr + 1; i++)
			(void)!mls_crypto_log_read(log, i, 1, block);
		mls_crypto_log_close(log);
	}
	mls_block_log_release(&raw);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t seeds[][9] = { { 0 }, { 9, 0, 0, 2, 0, 11 }, { 19, 21, 0, 0, 0, 1, 16, 0, 1 },
					    { 5, 255, 255 } };

	(void)room;
	if (i >= sizeof seeds / sizeof *seeds)
		return 0;
	memcpy(out, seeds[i], sizeof seeds[i]);
	return sizeof seeds[i];
}
