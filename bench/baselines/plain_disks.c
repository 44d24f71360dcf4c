/* SPDX-License-Identifier: MPL-2.0 */
/*
 * plain_disks.c - the two disks without protection: one that does nothing, which shows what the transport
 * can carry, and one that hands everything on, which shows what transport and host can do together.
 */
#include <stdlib.h>

#include "0-bio/block_dev.h"
#include "bench/baselines/baseline.h"

struct plain_disk {
	struct baseline base;
	struct mls_block_dev *dev;	/* borrowed */
};

static int plain_destroy(struct baseline *disk)
{
	struct plain_disk *p = (struct plain_disk *)disk;
	int err = disk->ops->flush(disk);

	free(p);
	return err;
}

static int plain_new(struct baseline **disk, struct mls_block_dev *dev, const struct baseline_ops *ops)
{
	struct plain_disk *p = calloc(1, sizeof *p);

	if (!p)
		return MLS_ENOMEM;
	p->base.ops = ops;
	p->base.nr_blocks = dev->nr_blocks;
	p->dev = dev;
	*disk = &p->base;
	return 0;
}

/* ---- Nothing ---- */

static int null_read(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, void *data)
{
	(void)disk, (void)lba, (void)nr_blocks, (void)data;
	return 0;
}

static int null_write(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, const void *data)
{
	(void)disk, (void)lba, (void)nr_blocks, (void)data;
	return 0;
}

static int null_flush(struct baseline *disk)
{
	(void)disk;
	return 0;
}

int null_disk_new(struct baseline **disk, struct mls_block_dev *dev)
{
	static const struct baseline_ops ops = {
		.read = null_read, .write = null_write, .flush = null_flush, .destroy = plain_destroy};

	return plain_new(disk, dev, &ops);
}

/* ---- Pass-through ---- */

static int pass_read(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, void *data)
{
	return mls_block_dev_read(((struct plain_disk *)disk)->dev, lba, nr_blocks, data);
}

static int pass_write(struct baseline *disk, uint64_t lba, uint32_t nr_blocks, const void *data)
{
	return mls_block_dev_write(((struct plain_disk *)disk)->dev, lba, nr_blocks, data);
}

static int pass_flush(struct baseline *disk)
{
	return mls_block_dev_flush(((struct plain_disk *)disk)->dev);
}

int pass_disk_new(struct baseline **disk, struct mls_block_dev *dev)
{
	static const struct baseline_ops ops = {
		.read = pass_read, .write = pass_write, .flush = pass_flush, .destroy = plain_destroy};

	return plain_new(disk, dev, &ops);
}
