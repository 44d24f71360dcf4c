/* SPDX-License-Identifier: MPL-2.0 */
/* thin_dev.c - a device on a host that may run out of space; see thin_dev.h. */
#include "tests/lib/thin_dev.h"

#include <stdlib.h>

#include "0-bio/block_dev.h"

static int thin_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return mls_block_dev_readv(((struct thin_dev *)dev)->inner, ios, nr);
}

/* How many blocks of the transfer there is space for. */
static uint32_t take(struct thin_dev *t, const struct mls_io *io)
{
	for (uint32_t i = 0; i < io->nr_blocks; i++) {
		bool *taken = &t->taken[io->hba + i];

		if (*taken)
			continue;
		if (t->limit && t->count.nr_taken >= t->limit)
			return i;
		*taken = true;
		if (++t->count.nr_taken > t->count.max_taken)
			t->count.max_taken = t->count.nr_taken;
	}
	return io->nr_blocks;
}

static int thin_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct thin_dev *t = (struct thin_dev *)dev;
	int err = 0;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < nr; i++) {
		uint32_t room = take(t, &ios[i]);

		ios[i].err = room ? mls_block_dev_write(t->inner, ios[i].hba, room, ios[i].data) : 0;
		if (room < ios[i].nr_blocks) {
			ios[i].err = MLS_ENOSPC;
			t->count.nr_refused++;
		}
		err = err ? err : ios[i].err;
	}
	pthread_mutex_unlock(&t->lock);
	return err;
}

static int thin_flush(struct mls_block_dev *dev)
{
	return mls_block_dev_flush(((struct thin_dev *)dev)->inner);
}

static int thin_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct thin_dev *t = (struct thin_dev *)dev;
	int err;

	pthread_mutex_lock(&t->lock);
	err = mls_block_dev_discard(t->inner, hba, nr_blocks);
	for (uint64_t i = 0; i < nr_blocks; i++) {
		t->count.nr_taken -= t->taken[hba + i];
		t->taken[hba + i] = false;
	}
	pthread_mutex_unlock(&t->lock);
	return err;
}

/* All or, when there isn't enough, what there is: a file system does the same. */
static int thin_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct thin_dev *t = (struct thin_dev *)dev;
	struct mls_io io = { .hba = hba, .nr_blocks = (uint32_t)nr_blocks };
	uint32_t room;

	pthread_mutex_lock(&t->lock);
	t->count.nr_held += t->holds;
	while (t->holds)
		pthread_cond_wait(&t->let_go, &t->lock);
	room = take(t, &io);
	t->count.nr_not_reserved += room < nr_blocks;
	pthread_mutex_unlock(&t->lock);
	return room < nr_blocks ? MLS_ENOSPC : 0;
}

static int thin_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	struct thin_dev *t = (struct thin_dev *)dev;

	*nr_blocks = t->nr_shown;
	__atomic_store_n(&dev->nr_blocks, t->nr_shown, __ATOMIC_RELAXED);
	return 0;
}

static void thin_destroy(struct mls_block_dev *dev)
{
	struct thin_dev *t = (struct thin_dev *)dev;

	pthread_cond_destroy(&t->let_go);
	pthread_mutex_destroy(&t->lock);
	free(t->taken);
	free(t);
}

static const struct mls_block_dev_ops thin_ops = {
	.read = thin_read,
	.write = thin_write,
	.flush = thin_flush,
	.discard = thin_discard,
	.destroy = thin_destroy,
	.measure = thin_measure,
	.reserve = thin_reserve,
};

struct thin_dev *thin_dev_new(struct mls_block_dev *inner)
{
	struct thin_dev *t = calloc(1, sizeof *t);

	if (!t)
		return NULL;
	t->base = (struct mls_block_dev){ &thin_ops, inner->nr_blocks };
	t->inner = inner;
	t->nr_shown = inner->nr_blocks;
	t->taken = calloc(inner->nr_blocks, sizeof *t->taken);
	if (!t->taken) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->let_go, NULL);
	return t;
}

struct thin_counts thin_dev_counts(struct thin_dev *t)
{
	struct thin_counts count;

	pthread_mutex_lock(&t->lock);
	count = t->count;
	pthread_mutex_unlock(&t->lock);
	return count;
}

uint64_t thin_dev_taken(struct thin_dev *t)
{
	return thin_dev_counts(t).nr_taken;
}

void thin_dev_limit(struct thin_dev *t, uint64_t limit)
{
	pthread_mutex_lock(&t->lock);
	t->limit = limit;
	pthread_mutex_unlock(&t->lock);
}

void thin_dev_hold_reserves(struct thin_dev *t, bool hold)
{
	pthread_mutex_lock(&t->lock);
	t->holds = hold;
	if (!hold)
		t->count.nr_held = 0;
	pthread_cond_broadcast(&t->let_go);
	pthread_mutex_unlock(&t->lock);
}

void thin_dev_show(struct thin_dev *t, uint64_t nr_blocks)
{
	t->nr_shown = nr_blocks;
	if (nr_blocks < t->base.nr_blocks)
		t->base.nr_blocks = nr_blocks;
}
