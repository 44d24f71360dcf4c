/* SPDX-License-Identifier: MPL-2.0 */
/* fuzz.c - see fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "tests/lib/test_rand.h"

#define STACK_DISK_BYTES (256u * MLS_BLOCK_BYTES)

static struct test_rand random_numbers;

static int same_numbers(void *arg, void *out, size_t bytes)
{
	(void)arg;
	test_rand_fill(&random_numbers, out, bytes);
	return 0;
}

static void quiet(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	(void)message;
}

void fuzz_must(int err)
{
	if (err)
		abort();
}

const struct mls_keyring *fuzz_keys(void)
{
	static const uint8_t master[MLS_KEY_BYTES] = { 1 }, uuid[MLS_UUID_BYTES] = { 2 };
	static struct mls_keyring *keys;

	if (!keys) {
		test_rand_seed(&random_numbers, 1);
		mls_rand_set_source(same_numbers, NULL);
		mls_set_logger(quiet, NULL);
		fuzz_must(mls_keyring_new(&keys, master, uuid));
	}
	return keys;
}

uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < bytes && in->left > 0; i++, in->left--)
		n |= (uint64_t)*in->data++ << 8 * i;
	return n;
}

void fuzz_edit(struct fuzz_input *in, uint8_t *buf, size_t bytes)
{
	while (in->left >= 3) {
		size_t at = fuzz_take(in, 2) % bytes;

		buf[at] = (uint8_t)fuzz_take(in, 1);
	}
}

void fuzz_stack_init(struct fuzz_stack *stack, bool read_only)
{
	static const uint8_t master[MLS_KEY_BYTES] = { 1 };
	struct mls_format_opts opts = { .disk_bytes = STACK_DISK_BYTES };
	struct mls_disk *disk = &stack->disk;

	memset(stack, 0, sizeof *stack);
	fuzz_must(mls_block_dev_mem_new(&stack->mem, mls_backing_bytes(STACK_DISK_BYTES) / MLS_BLOCK_BYTES));
	mls_block_meter_init(&disk->meter, stack->mem);
	disk->dev = &disk->meter.base;
	disk->opts.inline_work = true;
	disk->opts.read_only = read_only;
	disk->opts.cache_bytes = 1 << 20;
	fuzz_must(mls_geometry_init(&disk->sb.geo, &opts, stack->mem->nr_blocks));
	fuzz_must(mls_keyring_new(&disk->keys, master, mls_keyring_uuid(fuzz_keys())));
	fuzz_must(mls_disk_stack_new(disk));
}

void fuzz_stack_release(struct fuzz_stack *stack)
{
	mls_disk_stack_free(&stack->disk);
	mls_block_dev_destroy(stack->mem);
}
