/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nth_model.c - see nth_model.h.
 *
 * A block's content doesn't say after how many changes it was read, only within which stretches of the
 * history it was the LBA's content. So each LBA votes for its stretches; a state that all LBAs vote for is
 * what the disk holds.
 */
#include "tests/nth/nth_model.h"

#include <stdio.h>
#include <string.h>

#include "tests/unit/5-disk/disk_fixture.h"

void nth_model_change(struct nth_model *model, uint64_t lba, uint64_t version)
{
	if (model->nr == NTH_CHANGES_MAX)
		abort();
	model->changes[model->nr++] = (struct nth_change){ lba, version };
}

void nth_model_settle(struct nth_model *model)
{
	for (size_t i = 0; i < model->nr; i++)
		model->base[model->changes[i].lba] = model->changes[i].version;
	model->nr = model->nr_sure = model->nr_synced = 0;
}

bool nth_model_version_of(const uint8_t *block, uint64_t lba, uint64_t *version)
{
	uint8_t expected[MLS_BLOCK_BYTES];

	memcpy(version, block + sizeof *version, sizeof *version);	/* the second word of block_fill */
	block_fill(expected, lba, *version);
	if (memcmp(block, expected, sizeof expected) == 0)
		return true;
	memset(expected + NTH_PART_BYTES, 0, sizeof expected - NTH_PART_BYTES);
	*version |= NTH_PART;
	return memcmp(block, expected, sizeof expected) == 0;
}

/* votes[k] += 1 for each k at which lba had this version; votes are kept as differences. */
static void vote(const struct nth_model *model, uint64_t lba, uint64_t version, int *votes)
{
	uint64_t now = model->base[lba];
	size_t since = 0;

	for (size_t i = 0; i <= model->nr; i++) {
		if (i < model->nr && model->changes[i].lba != lba)
			continue;
		if (now == version) {
			votes[since]++;
			votes[i + 1]--;
		}
		if (i < model->nr) {
			now = model->changes[i].version;
			since = i + 1;
		}
	}
}

const char *nth_model_check(const struct nth_model *model, struct mls_disk *disk, size_t low, size_t high,
			    uint8_t *buf)
{
	static int votes[NTH_CHANGES_MAX + 2];
	static char why[128];
	int sum = 0, best = 0;

	memset(votes, 0, sizeof votes);
	for (uint64_t lba = 0; lba < NTH_NR_BLOCKS; lba++) {
		int err = mls_disk_read(disk, lba * MLS_BLOCK_BYTES, buf, MLS_BLOCK_BYTES);
		uint64_t version;

		if (err || !nth_model_version_of(buf, lba, &version)) {
			snprintf(why, sizeof why, "LBA %llu: %s", (unsigned long long)lba,
				 err ? mls_strerror(err) : "holds what nobody wrote");
			return why;
		}
		vote(model, lba, version, votes);
	}
	for (size_t k = 0; k <= high; k++) {
		sum += votes[k];
		if (k >= low && sum == (int)NTH_NR_BLOCKS)
			return NULL;
		best = k >= low && sum > best ? sum : best;
	}
	snprintf(why, sizeof why, "holds no state after %zu to %zu of %zu changes (at best %d of %d blocks fit)", low,
		 high, model->nr, best, (int)NTH_NR_BLOCKS);
	return why;
}
