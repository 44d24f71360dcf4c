/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_meter.c - a device that counts, and stops writing when a flush has failed; see block_meter.h.
 *
 * After a failed flush the host may have dropped what it couldn't write and say at the next flush that all is
 * well. Whoever wrote before (a sync, a compaction, a resize) and flushes later would believe that. So the one
 * place that all writing goes through remembers: no write, no flush gets through any more, whoever asks.
 */
#include "0-bio/block_meter.h"

static void count(atomic_uint_fast64_t *counter, const struct mls_io *ios, unsigned nr)
{
	uint64_t blocks = 0;

	for (unsigned i = 0; i < nr; i++)
		blocks += ios[i].nr_blocks;
	atomic_fetch_add_explicit(counter, blocks, memory_order_relaxed);
}

static int meter_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct mls_block_meter *meter = (struct mls_block_meter *)dev;

	count(&meter->read_blocks, ios, nr);
	return mls_block_dev_readv(meter->inner, ios, nr);
}

/* Has a flush failed? Then none of these is written. */
static bool refuse(struct mls_block_meter *meter, struct mls_io *ios, unsigned nr)
{
	if (!atomic_load_explicit(&meter->flush_failed, memory_order_relaxed))
		return false;
	for (unsigned i = 0; i < nr; i++)
		ios[i].err = MLS_EPOISONED;
	return true;
}

static int meter_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct mls_block_meter *meter = (struct mls_block_meter *)dev;

	if (refuse(meter, ios, nr))
		return MLS_EPOISONED;
	count(&meter->written_blocks, ios, nr);
	return mls_block_dev_writev(meter->inner, ios, nr);
}

static int meter_flush(struct mls_block_dev *dev)
{
	struct mls_block_meter *meter = (struct mls_block_meter *)dev;
	int err;

	if (atomic_load(&meter->flush_failed))
		return MLS_EPOISONED;
	atomic_fetch_add_explicit(&meter->flushes, 1, memory_order_relaxed);
	err = mls_block_dev_flush(meter->inner);
	if (err)
		atomic_store(&meter->flush_failed, true);
	return err;
}

static int meter_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct mls_block_meter *meter = (struct mls_block_meter *)dev;

	if (atomic_load(&meter->flush_failed))
		return 0;	/* a hint */
	atomic_fetch_add_explicit(&meter->discarded_blocks, nr_blocks, memory_order_relaxed);
	return mls_block_dev_discard(meter->inner, hba, nr_blocks);
}

static int meter_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	int err = mls_block_dev_measure(((struct mls_block_meter *)dev)->inner, nr_blocks);

	if (!err)
		__atomic_store_n(&dev->nr_blocks, *nr_blocks, __ATOMIC_RELAXED);
	return err;
}

static int meter_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	return mls_block_dev_reserve(((struct mls_block_meter *)dev)->inner, hba, nr_blocks);
}

static void meter_destroy(struct mls_block_dev *dev)
{
	(void)dev;	/* lives in its user */
}

static const struct mls_block_dev_ops meter_ops = {
	.read = meter_read,
	.write = meter_write,
	.flush = meter_flush,
	.discard = meter_discard,
	.destroy = meter_destroy,
	.measure = meter_measure,
	.reserve = meter_reserve,
};

void mls_block_meter_init(struct mls_block_meter *meter, struct mls_block_dev *inner)
{
	meter->base = (struct mls_block_dev){ &meter_ops, inner->nr_blocks };
	meter->inner = inner;
	atomic_init(&meter->read_blocks, 0);
	atomic_init(&meter->written_blocks, 0);
	atomic_init(&meter->discarded_blocks, 0);
	atomic_init(&meter->flushes, 0);
	atomic_init(&meter->flush_failed, false);
}
