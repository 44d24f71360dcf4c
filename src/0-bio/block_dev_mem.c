/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_dev_mem.c - blocks in memory, for tests and examples.
 *
 * One private mapping: pages that were never written cost nothing and read as zeros, so a large
 * device is as cheap as a sparse file. Each call is atomic against the others (a lock for many
 * readers or one writer): a reader that comes too late for a run that is being written again sees
 * old or new blocks, as on a disk, and not a data race.
 */
#include "0-bio/block_dev.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"

struct mem_dev {
	struct mls_block_dev base;
	pthread_rwlock_t lock;		/* of bytes; the last in the order of locks */
	uint8_t *bytes;
};

static size_t bytes_of(uint64_t nr_blocks)
{
	return (size_t)nr_blocks * MLS_BLOCK_BYTES;
}

static int mem_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct mem_dev *m = (struct mem_dev *)dev;

	pthread_rwlock_rdlock(&m->lock);
	for (unsigned i = 0; i < nr; i++) {
		memcpy(ios[i].data, m->bytes + bytes_of(ios[i].hba), bytes_of(ios[i].nr_blocks));
		ios[i].err = 0;
	}
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static int mem_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct mem_dev *m = (struct mem_dev *)dev;

	pthread_rwlock_wrlock(&m->lock);
	for (unsigned i = 0; i < nr; i++) {
		memcpy(m->bytes + bytes_of(ios[i].hba), ios[i].data, bytes_of(ios[i].nr_blocks));
		ios[i].err = 0;
	}
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static int mem_flush(struct mls_block_dev *dev)
{
	(void)dev;
	return 0;
}

static int mem_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct mem_dev *m = (struct mem_dev *)dev;

	pthread_rwlock_wrlock(&m->lock);
	madvise(m->bytes + bytes_of(hba), bytes_of(nr_blocks), MADV_DONTNEED);
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static void mem_destroy(struct mls_block_dev *dev)
{
	struct mem_dev *m = (struct mem_dev *)dev;

	munmap(m->bytes, bytes_of(dev->nr_blocks));
	pthread_rwlock_destroy(&m->lock);
	free(m);
}

static const struct mls_block_dev_ops mem_ops = {
	.read = mem_read,
	.write = mem_write,
	.flush = mem_flush,
	.discard = mem_discard,
	.destroy = mem_destroy,
};

int mls_block_dev_mem_new(struct mls_block_dev **dev, uint64_t nr_blocks)
{
	struct mem_dev *m;
	uint64_t bytes;

	if (nr_blocks == 0 || !mls_mul_u64(nr_blocks, MLS_BLOCK_BYTES, &bytes) || bytes > SIZE_MAX)
		return MLS_EINVAL;
	m = calloc(1, sizeof *m);
	if (!m)
		return MLS_ENOMEM;
	m->bytes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->bytes == MAP_FAILED) {
		free(m);
		return MLS_ENOMEM;
	}
	pthread_rwlock_init(&m->lock, NULL);
	m->base.ops = &mem_ops;
	m->base.nr_blocks = nr_blocks;
	*dev = &m->base;
	return 0;
}
