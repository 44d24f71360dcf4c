/* SPDX-License-Identifier: MPL-2.0 */
/* fuzz.c - see fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/asan.h"
#include "base/buf.h"
#include "base/rand.h"
#include "tests/lib/test_log.h"
#include "tests/lib/test_rand.h"

#if MLS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define STACK_DISK_BYTES (256u * MLS_BLOCK_BYTES)

static struct test_rand random_numbers;

static int same_numbers(void *arg, void *out, size_t bytes)
{
	(void)arg;
	test_rand_fill(&random_numbers, out, bytes);
	return 0;
}

/* ASan: freed memory is held back, to catch its use, but not so much that each input meets memory that no cache has:
 * with 16 MiB an execution of fuzz_image takes two fifths longer. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=4:thread_local_quarantine_size_kb=64:max_malloc_fill_size=0:malloc_context_size=1";
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
		mallopt(M_MMAP_THRESHOLD, 1 << 28);	/* freed memory stays ours: fresh pages cost more than the decoders */
		mallopt(M_TRIM_THRESHOLD, 1 << 28);
		test_rand_seed(&random_numbers, 1);
		mls_rand_set_source(same_numbers, NULL);
		mls_set_logger(test_log_quiet, NULL);
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

/* ---- Memory for blocks ---- */

/*
 * ASan maps each large allocation anew and unmaps it when it's freed: the fresh pages cost more than the decoders.
 * So the linker gives these three in place of base/buf.c's. What is freed stays ours, poisoned, until one of the
 * same size is asked for; a poisoned block lies before and behind each. What leaks is in no list of ours, so
 * LeakSanitizer sees it.
 */
struct fuzz_blocks {
	struct fuzz_blocks *next;	/* free ones of this size */
	uint64_t nr_blocks;
};

#define POOL_BLOCKS_MAX 1024u

static struct fuzz_blocks *pool[POOL_BLOCKS_MAX + 1];

void *__wrap_mls_blocks_alloc(uint64_t nr_blocks);
void *__wrap_mls_blocks_zalloc(uint64_t nr_blocks);
void __wrap_mls_blocks_free(void *blocks);

static size_t pool_slot(uint64_t nr_blocks)
{
	return nr_blocks < POOL_BLOCKS_MAX ? (size_t)nr_blocks : POOL_BLOCKS_MAX;
}

static struct fuzz_blocks *pool_take(uint64_t nr_blocks)
{
	struct fuzz_blocks **head = &pool[pool_slot(nr_blocks)], *b = *head;
	uint64_t bytes = (nr_blocks + 2) * MLS_BLOCK_BYTES;
	void *at;

	if (b && b->nr_blocks == nr_blocks) {
		*head = b->next;
		return b;
	}
	if (nr_blocks > SIZE_MAX / 2 / MLS_BLOCK_BYTES || posix_memalign(&at, MLS_BLOCK_BYTES, bytes))
		return NULL;
	ASAN_POISON_MEMORY_REGION((uint8_t *)at + MLS_BLOCK_BYTES - 64, bytes - MLS_BLOCK_BYTES + 64);
	b = at;
	b->nr_blocks = nr_blocks;
	return b;
}

void *__wrap_mls_blocks_alloc(uint64_t nr_blocks)
{
	struct fuzz_blocks *b = pool_take(nr_blocks ? nr_blocks : 1);
	uint8_t *blocks;

	if (!b)
		return NULL;
	blocks = (uint8_t *)b + MLS_BLOCK_BYTES;
	ASAN_UNPOISON_MEMORY_REGION(blocks, b->nr_blocks * MLS_BLOCK_BYTES);
	return blocks;
}

void *__wrap_mls_blocks_zalloc(uint64_t nr_blocks)
{
	void *blocks = __wrap_mls_blocks_alloc(nr_blocks);

	if (blocks)
		memset(blocks, 0, nr_blocks * MLS_BLOCK_BYTES);
	return blocks;
}

void __wrap_mls_blocks_free(void *blocks)
{
	struct fuzz_blocks *b;

	if (!blocks)
		return;
	b = (struct fuzz_blocks *)((uint8_t *)blocks - MLS_BLOCK_BYTES);
	ASAN_POISON_MEMORY_REGION(blocks, b->nr_blocks * MLS_BLOCK_BYTES);
	b->next = pool[pool_slot(b->nr_blocks)];
	pool[pool_slot(b->nr_blocks)] = b;
}

/* ---- A device ---- */

struct fuzz_dev {
	struct mls_block_dev base;
	uint8_t *bytes, *kept;		/* kept NULL: zeros */
	uint64_t *dirty;		/* blocks written since the last reset, nr_dirty of them */
	bool *is_dirty;
	size_t nr_dirty;
};

static int dev_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct fuzz_dev *d = (struct fuzz_dev *)dev;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(ios[i].data, d->bytes + ios[i].hba * MLS_BLOCK_BYTES, (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES);
		ios[i].err = 0;
	}
	return 0;
}

static int dev_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct fuzz_dev *d = (struct fuzz_dev *)dev;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(d->bytes + ios[i].hba * MLS_BLOCK_BYTES, ios[i].data, (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES);
		for (uint64_t at = ios[i].hba; at < ios[i].hba + ios[i].nr_blocks; at++) {
			if (!d->is_dirty[at])
				d->dirty[d->nr_dirty++] = at;
			d->is_dirty[at] = true;
		}
		ios[i].err = 0;
	}
	return 0;
}

static int dev_flush(struct mls_block_dev *dev)
{
	(void)dev;
	return 0;
}

static void dev_destroy(struct mls_block_dev *dev)
{
	struct fuzz_dev *d = (struct fuzz_dev *)dev;

	free(d->bytes);
	free(d->kept);
	free(d->dirty);
	free(d->is_dirty);
	free(d);
}

struct mls_block_dev *fuzz_dev_new(uint64_t nr_blocks)
{
	static const struct mls_block_dev_ops ops = { .read = dev_read, .write = dev_write, .flush = dev_flush,
						      .destroy = dev_destroy };
	struct fuzz_dev *d = calloc(1, sizeof *d);

	fuzz_must(!d);
	d->base = (struct mls_block_dev){ &ops, nr_blocks };
	d->bytes = calloc(nr_blocks, MLS_BLOCK_BYTES);
	d->dirty = calloc(nr_blocks, sizeof *d->dirty);
	d->is_dirty = calloc(nr_blocks, sizeof *d->is_dirty);
	fuzz_must(!d->bytes || !d->dirty || !d->is_dirty);
	return &d->base;
}

void fuzz_dev_keep(struct mls_block_dev *dev)
{
	struct fuzz_dev *d = (struct fuzz_dev *)dev;

	d->kept = malloc(dev->nr_blocks * MLS_BLOCK_BYTES);
	fuzz_must(!d->kept);
	memcpy(d->kept, d->bytes, dev->nr_blocks * MLS_BLOCK_BYTES);
	fuzz_dev_reset(dev);
}

void fuzz_dev_reset(struct mls_block_dev *dev)
{
	struct fuzz_dev *d = (struct fuzz_dev *)dev;

	while (d->nr_dirty > 0) {
		uint64_t at = d->dirty[--d->nr_dirty];

		d->is_dirty[at] = false;
		if (d->kept)
			memcpy(d->bytes + at * MLS_BLOCK_BYTES, d->kept + at * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
		else
			memset(d->bytes + at * MLS_BLOCK_BYTES, 0, MLS_BLOCK_BYTES);
	}
}

/* ---- All layers ---- */

void fuzz_stack_init(struct fuzz_stack *stack, bool read_only)
{
	static const uint8_t master[MLS_KEY_BYTES] = { 1 };
	struct mls_format_opts opts = { .disk_bytes = STACK_DISK_BYTES };
	struct mls_disk *disk = &stack->disk;

	memset(disk, 0, sizeof *disk);
	if (!stack->mem)
		stack->mem = fuzz_dev_new(mls_backing_bytes(STACK_DISK_BYTES) / MLS_BLOCK_BYTES);
	fuzz_dev_reset(stack->mem);
	mls_block_meter_init(&disk->meter, stack->mem);
	disk->dev = &disk->meter.base;
	disk->opts.inline_work = true;
	disk->opts.read_only = read_only;
	disk->opts.cache_bytes = 1 << 16;
	disk->opts.memtable_records = 64;
	fuzz_must(mls_geometry_init(&disk->sb.geo, &opts, stack->mem->nr_blocks));
	fuzz_must(mls_keyring_new(&disk->keys, master, mls_keyring_uuid(fuzz_keys())));
	fuzz_must(mls_disk_stack_new(disk));
}

void fuzz_stack_release(struct fuzz_stack *stack)
{
	mls_disk_stack_free(&stack->disk);
}
