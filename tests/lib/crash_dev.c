/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_dev.c - a device that keeps what wasn't flushed apart; see crash_dev.h.
 *
 * Most bugs show only in images near the extremes (nearly everything kept, nearly nothing, one block
 * missing, one block too many, a prefix); independent coin tosses hardly ever produce those. So each
 * image first draws a mode.
 */
#include "tests/lib/crash_dev.h"

#include <stdlib.h>
#include <string.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "base/err.h"
#include "tests/lib/test_rand.h"

#define SECTOR_BYTES 512u
#define VERSIONS_MAX 64u		/* candidates of one block at a cut; older ones aren't considered */

enum image_mode {
	KEEP_ALL,
	KEEP_NONE,
	KEEP_MOST,
	KEEP_FEW,
	KEEP_ANY,
	KEEP_PREFIX,		/* in the order of writing, the last one torn */
	DROP_ONE,
	KEEP_ONE,
	NR_IMAGE_MODES,
};

/* ---- Pending blocks ---- */

static void add_pending(struct crash_dev *c, uint64_t hba, const void *data, bool lost)
{
	struct crash_pending *p;

	if (c->nr_pending == c->cap_pending) {
		c->cap_pending = c->cap_pending ? 2 * c->cap_pending : 256;
		c->pending = realloc(c->pending, c->cap_pending * sizeof *c->pending);
		MLS_INVARIANT(c->pending != NULL);
	}
	p = &c->pending[c->nr_pending++];
	p->hba = hba;
	p->older = c->newest[hba];
	p->lost = lost;
	p->data = mls_blocks_alloc(1);
	MLS_INVARIANT(p->data != NULL);
	if (data)
		memcpy(p->data, data, MLS_BLOCK_BYTES);
	else
		memset(p->data, 0xdd, MLS_BLOCK_BYTES);
	c->newest[hba] = c->nr_pending;
}

static void forget_pending(struct crash_dev *c)
{
	for (uint32_t i = 0; i < c->nr_pending; i++) {
		c->newest[c->pending[i].hba] = 0;
		mls_blocks_free(c->pending[i].data);
	}
	c->nr_pending = 0;
}

/* ---- The device ---- */

static int read_block(struct crash_dev *c, uint64_t hba, uint8_t *data)
{
	uint32_t newest = c->newest[hba];

	if (!newest)
		return mls_block_dev_read(c->medium, hba, 1, data);
	memcpy(data, c->pending[newest - 1].data, MLS_BLOCK_BYTES);
	return 0;
}

static int crash_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct crash_dev *c = (struct crash_dev *)dev;
	int err = 0;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < nr; i++) {
		ios[i].err = 0;
		for (uint32_t j = 0; j < ios[i].nr_blocks && !ios[i].err; j++)
			ios[i].err = read_block(c, ios[i].hba + j, mls_block_at(ios[i].data, j));
		err = err ? err : ios[i].err;
	}
	pthread_mutex_unlock(&c->lock);
	return err;
}

/* What an operation answers in this state of the power. */
static int power_err(const struct crash_dev *c, enum test_power_state state)
{
	return state == TEST_POWER_ON || c->power->swallow ? 0 : MLS_EIO;
}

static int crash_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct crash_dev *c = (struct crash_dev *)dev;
	int err = 0;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < nr; i++) {
		enum test_power_state state = test_power_op(c->power);

		for (uint32_t j = 0; j < ios[i].nr_blocks; j++)
			add_pending(c, ios[i].hba + j, mls_block_at(ios[i].data, j), state == TEST_POWER_OFF);
		ios[i].err = power_err(c, state);
		err = err ? err : ios[i].err;
	}
	pthread_mutex_unlock(&c->lock);
	return err;
}

static int write_newest(struct crash_dev *c)
{
	int err = 0;

	for (uint32_t i = 0; i < c->nr_pending && !err; i++) {
		struct crash_pending *p = &c->pending[i];

		if (c->newest[p->hba] == i + 1)
			err = mls_block_dev_write(c->medium, p->hba, 1, p->data);
	}
	if (!err)
		forget_pending(c);
	return err;
}

static int crash_flush(struct mls_block_dev *dev)
{
	struct crash_dev *c = (struct crash_dev *)dev;
	enum test_power_state state;
	int err;

	pthread_mutex_lock(&c->lock);
	state = test_power_op(c->power);
	err = state == TEST_POWER_ON ? write_newest(c) : power_err(c, state);
	c->nr_flushes++;
	pthread_mutex_unlock(&c->lock);
	return err;
}

static int crash_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct crash_dev *c = (struct crash_dev *)dev;

	pthread_mutex_lock(&c->lock);
	for (uint64_t i = 0; i < nr_blocks; i++)
		add_pending(c, hba + i, NULL, c->power && atomic_load(&c->power->off));
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/* Nothing to do: the medium has room. That it can be asked makes the disk behave as on a sparse file. */
static int crash_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	(void)dev, (void)hba, (void)nr_blocks;
	return 0;
}

static void crash_destroy(struct mls_block_dev *dev)
{
	struct crash_dev *c = (struct crash_dev *)dev;

	forget_pending(c);
	free(c->pending);
	free(c->newest);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct mls_block_dev_ops crash_ops = {
	.read = crash_read,
	.write = crash_write,
	.flush = crash_flush,
	.discard = crash_discard,
	.reserve = crash_reserve,
	.destroy = crash_destroy,
};

struct crash_dev *crash_dev_new(struct mls_block_dev *medium, struct test_power *power)
{
	struct crash_dev *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->newest = calloc(medium->nr_blocks, sizeof *c->newest);
	if (!c->newest) {
		free(c);
		return NULL;
	}
	c->base.ops = &crash_ops;
	c->base.nr_blocks = medium->nr_blocks;
	c->medium = medium;
	c->power = power;
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

/* ---- The cut ---- */

struct image {
	struct crash_dev *c;
	struct mls_block_dev *target;		/* holds what is durable; gets what was kept */
	struct test_rand rand;
	enum image_mode mode;
	uint32_t chosen;			/* a pending index, for the modes that single one out */
};

/* Does this pending version count as one that got through? */
static bool got_through(struct image *im, uint32_t index)
{
	switch (im->mode) {
	case KEEP_ALL:
		return true;
	case KEEP_NONE:
		return false;
	case KEEP_MOST:
		return test_rand_chance(&im->rand, 15, 16);
	case KEEP_FEW:
		return test_rand_chance(&im->rand, 1, 16);
	case KEEP_PREFIX:
		return index <= im->chosen;
	case DROP_ONE:
		return index != im->chosen;
	case KEEP_ONE:
		return index == im->chosen;
	default:
		return test_rand_chance(&im->rand, 1, 2);
	}
}

static bool torn(struct image *im, uint32_t index)
{
	switch (im->mode) {
	case KEEP_ALL:
	case KEEP_NONE:
		return false;
	case KEEP_PREFIX:
	case DROP_ONE:
	case KEEP_ONE:
		return index == im->chosen && test_rand_chance(&im->rand, 1, 2);
	default:
		return test_rand_chance(&im->rand, 1, 16);
	}
}

static void settle_block(struct image *im, uint32_t newest_index)
{
	struct crash_pending *pending = im->c->pending;
	uint64_t hba = pending[newest_index].hba;
	uint32_t versions[VERSIONS_MAX], nr = 0, pick;
	uint8_t *block = mls_blocks_alloc(1);

	for (uint32_t i = newest_index + 1; i && nr < VERSIONS_MAX; i = pending[i - 1].older)
		if (!pending[i - 1].lost && got_through(im, i - 1))
			versions[nr++] = i - 1;
	MLS_INVARIANT(block != NULL);
	MLS_INVARIANT(mls_block_dev_read(im->target, hba, 1, block) == 0);

	/* Which of those that got through came last isn't the order of writing; mostly it is. */
	pick = nr > 1 && im->mode == KEEP_ANY ? (uint32_t)test_rand_below(&im->rand, nr) : 0;
	if (nr && torn(im, versions[pick])) {
		for (uint32_t at = 0; at < MLS_BLOCK_BYTES; at += SECTOR_BYTES)
			if (test_rand_chance(&im->rand, 1, 2))
				memcpy(block + at, pending[versions[pick]].data + at, SECTOR_BYTES);
	} else if (nr) {
		memcpy(block, pending[versions[pick]].data, MLS_BLOCK_BYTES);
	}
	MLS_INVARIANT(mls_block_dev_write(im->target, hba, 1, block) == 0);
	mls_blocks_free(block);
}

static void make_image(struct crash_dev *c, struct mls_block_dev *target, uint64_t seed)
{
	struct image im = { .c = c, .target = target };

	test_rand_seed(&im.rand, seed);
	im.mode = (enum image_mode)test_rand_below(&im.rand, NR_IMAGE_MODES);
	im.chosen = c->nr_pending ? (uint32_t)test_rand_below(&im.rand, c->nr_pending) : 0;
	for (uint32_t i = 0; i < c->nr_pending; i++)
		if (c->newest[c->pending[i].hba] == i + 1)
			settle_block(&im, i);
}

void crash_dev_cut(struct crash_dev *c, uint64_t seed)
{
	pthread_mutex_lock(&c->lock);
	make_image(c, c->medium, seed);
	forget_pending(c);
	pthread_mutex_unlock(&c->lock);
}

void crash_dev_drop(struct crash_dev *c)
{
	pthread_mutex_lock(&c->lock);
	forget_pending(c);
	pthread_mutex_unlock(&c->lock);
}

struct mls_block_dev *crash_dev_image(struct crash_dev *c, uint64_t seed)
{
	static const uint8_t zero[MLS_BLOCK_BYTES];
	struct mls_block_dev *image;
	uint8_t *block = mls_blocks_alloc(1);

	if (!block || mls_block_dev_mem_new(&image, c->base.nr_blocks)) {
		mls_blocks_free(block);
		return NULL;
	}
	pthread_mutex_lock(&c->lock);
	for (uint64_t hba = 0; hba < c->base.nr_blocks; hba++) {
		MLS_INVARIANT(mls_block_dev_read(c->medium, hba, 1, block) == 0);
		if (memcmp(block, zero, sizeof zero) != 0)
			MLS_INVARIANT(mls_block_dev_write(image, hba, 1, block) == 0);
	}
	make_image(c, image, seed);
	pthread_mutex_unlock(&c->lock);
	mls_blocks_free(block);
	return image;
}
