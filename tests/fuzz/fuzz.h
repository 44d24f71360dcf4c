/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz.h - what all fuzz targets share.
 *
 * Role     A target is one decoder: LLVMFuzzerTestOneInput feeds it bytes, sealed with a known key where
 *          the decoder stands behind a tag (an adversary can't make those, a bug of ours could). Nothing
 *          may crash, hang, leak or break an invariant; what it answers doesn't matter.
 * Builds   configure --enable-fuzzing (clang) links libFuzzer; else replay.c drives the same target over its
 *          seeds, mutations of them, and the files of its corpus, in make check.
 */
#ifndef MLS_TEST_FUZZ_H
#define MLS_TEST_FUZZ_H

#include "1-crypto/kdf.h"
#include "5-disk/disk.h"

#define FUZZ_BYTES_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The i-th seed: an input that the decoder likes. 0: there are no more. room is FUZZ_BYTES_MAX. */
size_t fuzz_seed(unsigned i, uint8_t *out, size_t room);

/* The same key and random numbers in every run, no messages. */
const struct mls_keyring *fuzz_keys(void);

/* Bytes from the front of an input; zeros behind its end. */
struct fuzz_input {
	const uint8_t *data;
	size_t left;
};
uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes);

/* (le16 offset, byte) at a time: change buf until the input ends or a lone byte is left. */
void fuzz_edit(struct fuzz_input *in, uint8_t *buf, size_t bytes);

/*
 * A device in memory that is quickly as it was: only what was written since is put back. reset: as at keep, or
 * zeros if there was none.
 */
struct fuzz_dev;
struct mls_block_dev *fuzz_dev_new(uint64_t nr_blocks);
void fuzz_dev_keep(struct mls_block_dev *dev);
void fuzz_dev_reset(struct mls_block_dev *dev);

/* All layers over a device in memory, as a reader opens them. */
struct fuzz_stack {
	struct mls_block_dev *mem;	/* kept for the next input */
	struct mls_disk disk;
};
void fuzz_stack_init(struct fuzz_stack *stack, bool read_only);
void fuzz_stack_release(struct fuzz_stack *stack);

/* Stops the target if its own preparation fails. */
void fuzz_must(int err);

#endif
