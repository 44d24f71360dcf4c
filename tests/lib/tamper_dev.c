/* SPDX-License-Identifier: MPL-2.0 */
/* tamper_dev.c - a device in memory whose owner is the adversary; see tamper_dev.h. */
#include "tests/lib/tamper_dev.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/err.h"

static void *must(void *memory)
{
	MLS_INVARIANT(memory != NULL && memory != MAP_FAILED);
	return memory;
}

static uint8_t *at(const struct tamper_dev *d, uint64_t hba)
{
	return d->bytes + (size_t)hba * MLS_BLOCK_BYTES;
}

static void grow_saved(struct tamper_dev *d)
{
	uint32_t cap = d->cap_saved ? 2 * d->cap_saved : 256;
	uint8_t *saved = must(mls_blocks_alloc(cap));

	if (d->nr_saved)
		memcpy(saved, d->saved, (size_t)d->nr_saved * MLS_BLOCK_BYTES);
	mls_blocks_free(d->saved);
	d->saved = saved;
	d->saved_hba = must(realloc(d->saved_hba, cap * sizeof *d->saved_hba));
	d->cap_saved = cap;
}

static void save(struct tamper_dev *d, uint64_t hba)
{
	MLS_INVARIANT(hba < d->capacity);
	if (!d->saving || d->saved_as[hba])
		return;
	if (d->nr_saved == d->cap_saved)
		grow_saved(d);
	memcpy(mls_block_at(d->saved, d->nr_saved), at(d, hba), MLS_BLOCK_BYTES);
	d->saved_hba[d->nr_saved] = hba;
	d->saved_as[hba] = ++d->nr_saved;
}

static int tamper_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct tamper_dev *d = (struct tamper_dev *)dev;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(ios[i].data, at(d, ios[i].hba), (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES);
		memset(d->seen + ios[i].hba, true, ios[i].nr_blocks);
		for (uint32_t j = 0; d->answer && j < ios[i].nr_blocks; j++)
			d->answer(d->arg, ios[i].hba + j, mls_block_at(ios[i].data, j));
		ios[i].err = 0;
	}
	return 0;
}

static int write_block(struct tamper_dev *d, uint64_t hba, const uint8_t *data)
{
	_Alignas(16) uint8_t old[MLS_BLOCK_BYTES];

	save(d, hba);
	if (d->written)
		memcpy(old, at(d, hba), sizeof old);
	memcpy(at(d, hba), data, MLS_BLOCK_BYTES);
	return d->written ? d->written(d->arg, hba, old) : 0;
}

static int tamper_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct tamper_dev *d = (struct tamper_dev *)dev;
	int err = 0;

	for (unsigned i = 0; i < nr; i++) {
		d->nr_writes++;
		ios[i].err = 0;
		for (uint32_t j = 0; j < ios[i].nr_blocks && !ios[i].err; j++)
			ios[i].err = write_block(d, ios[i].hba + j, mls_block_at(ios[i].data, j));
		err = err ? err : ios[i].err;
	}
	return err;
}

static int tamper_flush(struct mls_block_dev *dev)
{
	struct tamper_dev *d = (struct tamper_dev *)dev;

	return d->flushed ? d->flushed(d->arg) : 0;
}

/* Nothing is forgotten: the adversary keeps what the disk gives away. */
static int tamper_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	(void)dev, (void)hba, (void)nr_blocks;
	return 0;
}

static int tamper_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	*nr_blocks = dev->nr_blocks;
	return 0;
}

static void tamper_destroy(struct mls_block_dev *dev)
{
	struct tamper_dev *d = (struct tamper_dev *)dev;

	munmap(d->bytes, (size_t)d->capacity * MLS_BLOCK_BYTES);
	mls_blocks_free(d->saved);
	free(d->saved_hba);
	free(d->saved_as);
	free(d->seen);
	free(d);
}

static const struct mls_block_dev_ops tamper_ops = {
	.read = tamper_read,
	.write = tamper_write,
	.flush = tamper_flush,
	.discard = tamper_discard,
	.measure = tamper_measure,
	.destroy = tamper_destroy,
};

struct tamper_dev *tamper_dev_new(uint64_t nr_blocks, uint64_t capacity)
{
	struct tamper_dev *d = must(calloc(1, sizeof *d));

	MLS_INVARIANT(nr_blocks > 0 && nr_blocks <= capacity);
	d->base.ops = &tamper_ops;
	d->base.nr_blocks = nr_blocks;
	d->capacity = capacity;
	d->bytes = must(mmap(NULL, (size_t)capacity * MLS_BLOCK_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	d->saved_as = must(calloc(capacity, sizeof *d->saved_as));
	d->seen = must(calloc(capacity, sizeof *d->seen));
	return d;
}

const uint8_t *tamper_dev_at(const struct tamper_dev *d, uint64_t hba)
{
	MLS_INVARIANT(hba < d->capacity);
	return at(d, hba);
}

uint8_t *tamper_dev_touch(struct tamper_dev *d, uint64_t hba)
{
	save(d, hba);
	return at(d, hba);
}

bool tamper_dev_put(struct tamper_dev *d, uint64_t hba, const uint8_t *block)
{
	if (memcmp(at(d, hba), block, MLS_BLOCK_BYTES) == 0)
		return false;
	memcpy(tamper_dev_touch(d, hba), block, MLS_BLOCK_BYTES);
	return true;
}

void tamper_dev_swap(struct tamper_dev *d, uint64_t hba_a, uint64_t hba_b)
{
	uint8_t *a = tamper_dev_touch(d, hba_a), *b = tamper_dev_touch(d, hba_b);
	uint8_t block[MLS_BLOCK_BYTES];

	memcpy(block, a, sizeof block);
	memcpy(a, b, sizeof block);
	memcpy(b, block, sizeof block);
}

bool tamper_dev_is_zero(const struct tamper_dev *d, uint64_t hba)
{
	static const uint8_t zero[MLS_BLOCK_BYTES];

	return memcmp(at(d, hba), zero, sizeof zero) == 0;
}

void tamper_dev_begin(struct tamper_dev *d)
{
	MLS_INVARIANT(!d->saving);
	d->saving = true;
	d->nr_blocks_then = d->base.nr_blocks;
}

void tamper_dev_undo(struct tamper_dev *d)
{
	MLS_INVARIANT(d->saving);
	for (uint32_t i = 0; i < d->nr_saved; i++) {
		memcpy(at(d, d->saved_hba[i]), mls_block_at(d->saved, i), MLS_BLOCK_BYTES);
		d->saved_as[d->saved_hba[i]] = 0;
	}
	d->nr_saved = 0;
	d->base.nr_blocks = d->nr_blocks_then;
	d->saving = false;
}
