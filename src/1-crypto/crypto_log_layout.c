/* SPDX-License-Identifier: MPL-2.0 */
/* crypto_log_layout.c - the arithmetic of crypto_log_layout.h. */
#include "1-crypto/crypto_log_layout.h"

#include "base/checked.h"
#include "base/err.h"

/* F^(level+1): data blocks under a full node. */
static uint64_t data_under(unsigned level)
{
	uint64_t n = MLS_MHT_FANOUT;

	MLS_INVARIANT(level < MLS_MHT_LEVELS);
	while (level-- > 0)
		n *= MLS_MHT_FANOUT;
	return n;
}

/* Data blocks 0 ... nr_data - 1 and all full nodes over them. */
static uint64_t full_blocks(uint64_t nr_data)
{
	uint64_t sum = nr_data, n = nr_data;

	while (n >= MLS_MHT_FANOUT) {
		n /= MLS_MHT_FANOUT;
		sum += n;
	}
	return sum;
}

uint64_t mls_mht_nr_nodes(uint64_t nr_data, unsigned level)
{
	return mls_div_round_up(nr_data, data_under(level));
}

unsigned mls_mht_top_level(uint64_t nr_data)
{
	unsigned level = 0;

	MLS_INVARIANT(nr_data > 0 && nr_data <= MLS_MHT_DATA_BLOCKS_MAX);
	while (mls_mht_nr_nodes(nr_data, level) > 1)
		level++;
	return level;
}

uint32_t mls_mht_nr_children(uint64_t nr_data, unsigned level, uint64_t index)
{
	uint64_t nr_below = level == 0 ? nr_data : mls_mht_nr_nodes(nr_data, level - 1);

	MLS_INVARIANT(index < mls_mht_nr_nodes(nr_data, level));
	return (uint32_t)mls_min_u64(MLS_MHT_FANOUT, nr_below - index * MLS_MHT_FANOUT);
}

uint64_t mls_mht_data_pos(uint64_t index)
{
	return full_blocks(index);
}

uint64_t mls_mht_node_pos(uint64_t nr_data, unsigned level, uint64_t index)
{
	uint64_t under = data_under(level), pos;
	unsigned k;

	MLS_INVARIANT(index < mls_mht_nr_nodes(nr_data, level));
	if (index < nr_data / under)
		return mls_mht_data_pos((index + 1) * under - 1) + 1 + level;
	pos = full_blocks(nr_data);
	for (k = 0; k < level; k++)
		pos += nr_data % data_under(k) != 0;
	return pos;
}

uint64_t mls_crypto_log_total_blocks(uint64_t nr_data_blocks)
{
	uint64_t total = nr_data_blocks;
	unsigned level, top;

	if (nr_data_blocks == 0)
		return 0;
	top = mls_mht_top_level(nr_data_blocks);
	for (level = 0; level <= top; level++)
		total += mls_mht_nr_nodes(nr_data_blocks, level);
	return total;
}
