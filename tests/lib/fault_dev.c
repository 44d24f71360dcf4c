/* SPDX-License-Identifier: MPL-2.0 */
/* fault_dev.c - a device whose Nth operation fails; see fault_dev.h. */
#include "tests/lib/fault_dev.h"

#include <stdlib.h>

#include "0-bio/block_dev.h"

static bool fault_due(struct fault_dev *f, unsigned kind)
{
	if (!(f->kinds & kind))
		return false;
	f->op_count++;
	if (f->fail_at == 0 || f->op_count < f->fail_at || (f->op_count > f->fail_at && !f->sticky))
		return false;
	f->fired = true;
	return true;
}

static int one_transfer(struct fault_dev *f, struct mls_io *io, unsigned kind)
{
	if (!fault_due(f, kind)) {
		if (kind == FAULT_READ)
			return mls_block_dev_read(f->inner, io->hba, io->nr_blocks, io->data);
		return mls_block_dev_write(f->inner, io->hba, io->nr_blocks, io->data);
	}
	if (kind == FAULT_WRITE && io->nr_blocks > 1 &&
	    mls_block_dev_write(f->inner, io->hba, io->nr_blocks / 2, io->data))
		return MLS_EIO;
	return f->err;
}

static int all_transfers(struct fault_dev *f, struct mls_io *ios, unsigned nr, unsigned kind)
{
	int err = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < nr; i++) {
		ios[i].err = one_transfer(f, &ios[i], kind);
		if (ios[i].err && !err)
			err = ios[i].err;
	}
	pthread_mutex_unlock(&f->lock);
	return err;
}

static int fault_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return all_transfers((struct fault_dev *)dev, ios, nr, FAULT_READ);
}

static int fault_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return all_transfers((struct fault_dev *)dev, ios, nr, FAULT_WRITE);
}

static int fault_flush(struct mls_block_dev *dev)
{
	struct fault_dev *f = (struct fault_dev *)dev;
	int err;

	pthread_mutex_lock(&f->lock);
	err = fault_due(f, FAULT_FLUSH) ? f->err : mls_block_dev_flush(f->inner);
	pthread_mutex_unlock(&f->lock);
	return err;
}

static int fault_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct fault_dev *f = (struct fault_dev *)dev;
	int err;

	pthread_mutex_lock(&f->lock);
	err = fault_due(f, FAULT_DISCARD) ? f->err : mls_block_dev_discard(f->inner, hba, nr_blocks);
	pthread_mutex_unlock(&f->lock);
	return err;
}

static void fault_destroy(struct mls_block_dev *dev)
{
	struct fault_dev *f = (struct fault_dev *)dev;

	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct mls_block_dev_ops fault_ops = {
	.read = fault_read,
	.write = fault_write,
	.flush = fault_flush,
	.discard = fault_discard,
	.destroy = fault_destroy,
};

struct fault_dev *fault_dev_new(struct mls_block_dev *inner, unsigned kinds)
{
	struct fault_dev *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->base.ops = &fault_ops;
	f->base.nr_blocks = inner->nr_blocks;
	f->inner = inner;
	f->kinds = kinds;
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

void fault_dev_arm(struct fault_dev *f, uint64_t fail_at, int err, bool sticky)
{
	pthread_mutex_lock(&f->lock);
	f->op_count = 0;
	f->fail_at = fail_at;
	f->err = err;
	f->sticky = sticky;
	f->fired = false;
	pthread_mutex_unlock(&f->lock);
}
