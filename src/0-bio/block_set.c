/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_set.c - a range of a device, itself a device.
 *
 * The checked calls have seen that a transfer lies within the set, and the set within inner; so
 * moving the addresses, in the caller's own array and back, is all there is to do.
 */
#include "0-bio/block_set.h"

#include <stdlib.h>

#include "base/checked.h"

struct block_set {
	struct mls_block_dev base;
	struct mls_block_dev *inner;	/* borrowed */
	uint64_t hba;			/* of block 0, on inner */
};

static int set_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct block_set *s = (struct block_set *)dev;
	int err;

	for (unsigned i = 0; i < nr; i++)
		ios[i].hba += s->hba;
	err = mls_block_dev_readv(s->inner, ios, nr);
	for (unsigned i = 0; i < nr; i++)
		ios[i].hba -= s->hba;
	return err;
}

static int set_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct block_set *s = (struct block_set *)dev;
	int err;

	for (unsigned i = 0; i < nr; i++)
		ios[i].hba += s->hba;
	err = mls_block_dev_writev(s->inner, ios, nr);
	for (unsigned i = 0; i < nr; i++)
		ios[i].hba -= s->hba;
	return err;
}

static int set_flush(struct mls_block_dev *dev)
{
	struct block_set *s = (struct block_set *)dev;

	return mls_block_dev_flush(s->inner);
}

static int set_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct block_set *s = (struct block_set *)dev;

	return mls_block_dev_discard(s->inner, s->hba + hba, nr_blocks);
}

static void set_destroy(struct mls_block_dev *dev)
{
	free(dev);
}

static const struct mls_block_dev_ops set_ops = {
	.read = set_read,
	.write = set_write,
	.flush = set_flush,
	.discard = set_discard,
	.destroy = set_destroy,
};

int mls_block_set_new(struct mls_block_dev **set, struct mls_block_dev *inner, uint64_t hba, uint64_t nr_blocks)
{
	struct block_set *s;

	if (nr_blocks == 0 || !mls_range_within(hba, nr_blocks, inner->nr_blocks))
		return MLS_EINVAL;
	s = calloc(1, sizeof *s);
	if (!s)
		return MLS_ENOMEM;
	s->base.ops = &set_ops;
	s->base.nr_blocks = nr_blocks;
	s->inner = inner;
	s->hba = hba;
	*set = &s->base;
	return 0;
}
