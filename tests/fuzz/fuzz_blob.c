/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_blob.c - a blob's header and bytes, and what a cleaner reads from a segment summary.
 *
 * Input    a byte: bit 0: edit the sealed blob (else: raw bytes are the blob); then the bytes.
 */
#include <string.h>

#include "1-crypto/crypto_blob.h"
#include "tests/fuzz/fuzz.h"

#define NR_BLOCKS 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t blob[NR_BLOCKS * MLS_BLOCK_BYTES];
	static uint8_t payload[NR_BLOCKS * MLS_BLOCK_BYTES];
	struct fuzz_input in = { data, size };
	uint64_t version;
	size_t bytes;

	memset(blob, 0, sizeof blob);
	if (fuzz_take(&in, 1) & 1) {
		bytes = fuzz_take(&in, 2) % (mls_blob_room(NR_BLOCKS) + 1);
		fuzz_must(mls_blob_seal(fuzz_keys(), "summary", 3, payload, bytes, blob, NR_BLOCKS));
		fuzz_edit(&in, blob, sizeof blob);
	} else {
		memcpy(blob, in.data, in.left < sizeof blob ? in.left : sizeof blob);
	}
	(void)!mls_blob_open(fuzz_keys(), "summary", blob, NR_BLOCKS, payload, &bytes, &version);
	memset(payload, 0, sizeof payload);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	static const uint8_t edits[][12] = { { 1, 200, 5 }, { 1, 0, 0, 48, 0, 255 }, { 1, 255, 31, 51, 0, 127 },
					     { 0, 'M', 'l', 's', 'B', 'l', 'o', 'b', '1', 9 } };

	(void)room;
	if (i >= sizeof edits / sizeof *edits)
		return 0;
	memcpy(out, edits[i], sizeof edits[i]);
	return sizeof edits[i];
}
