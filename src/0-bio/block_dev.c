/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_dev.c - the checked calls: range and shape are looked at here, once, for every device.
 *
 * A range may come from the host (a number in a block that hasn't been authenticated yet), so one
 * outside the device is an error and no invariant. The alignment of data is our own promise.
 */
#include "0-bio/block_dev.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

/* It may grow while others work with it. */
static uint64_t size_of(const struct mls_block_dev *dev)
{
	return __atomic_load_n(&dev->nr_blocks, __ATOMIC_RELAXED);
}

static int check_ios(const struct mls_block_dev *dev, const char *verb, const struct mls_io *ios, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (ios[i].nr_blocks == 0 ||
		    !mls_range_within(ios[i].hba, ios[i].nr_blocks, size_of(dev))) {
			mls_error("bio: %s of %u blocks at HBA %llu: outside the device of %llu blocks", verb,
				  ios[i].nr_blocks, (unsigned long long)ios[i].hba,
				  (unsigned long long)size_of(dev));
			return MLS_EINVAL;
		}
		MLS_INVARIANT(((uintptr_t)ios[i].data & (MLS_BLOCK_BYTES - 1)) == 0);
		MLS_INVARIANT(ios[i].data != NULL);
	}
	return 0;
}

int mls_block_dev_readv(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	int err = check_ios(dev, "read", ios, nr);

	if (err || nr == 0)
		return err;
	return dev->ops->read(dev, ios, nr);
}

int mls_block_dev_writev(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	int err = check_ios(dev, "write", ios, nr);

	if (err || nr == 0)
		return err;
	return dev->ops->write(dev, ios, nr);
}

int mls_block_dev_read(struct mls_block_dev *dev, uint64_t hba, uint32_t nr_blocks, void *data)
{
	struct mls_io io = { .hba = hba, .nr_blocks = nr_blocks, .data = data };

	return mls_block_dev_readv(dev, &io, 1);
}

int mls_block_dev_write(struct mls_block_dev *dev, uint64_t hba, uint32_t nr_blocks, const void *data)
{
	struct mls_io io = { .hba = hba, .nr_blocks = nr_blocks, .data = (void *)(uintptr_t)data };

	return mls_block_dev_writev(dev, &io, 1);
}

int mls_block_dev_flush(struct mls_block_dev *dev)
{
	return dev->ops->flush(dev);
}

static int check_range(const struct mls_block_dev *dev, const char *verb, uint64_t hba, uint64_t nr_blocks)
{
	if (mls_range_within(hba, nr_blocks, size_of(dev)))
		return 0;
	mls_error("bio: %s of %llu blocks at HBA %llu: outside the device of %llu blocks", verb,
		  (unsigned long long)nr_blocks, (unsigned long long)hba, (unsigned long long)size_of(dev));
	return MLS_EINVAL;
}

int mls_block_dev_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	int err = check_range(dev, "discard", hba, nr_blocks);

	if (err || nr_blocks == 0 || !dev->ops->discard)
		return err;
	return dev->ops->discard(dev, hba, nr_blocks);
}

int mls_block_dev_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	int err = check_range(dev, "reserve", hba, nr_blocks);

	if (err || nr_blocks == 0 || !dev->ops->reserve)
		return err;
	return dev->ops->reserve(dev, hba, nr_blocks);
}

void mls_block_dev_destroy(struct mls_block_dev *dev)
{
	if (dev)
		dev->ops->destroy(dev);
}

int mls_block_dev_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	if (dev->ops->measure)
		return dev->ops->measure(dev, nr_blocks);
	*nr_blocks = size_of(dev);
	return 0;
}
