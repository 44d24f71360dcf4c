/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crypto_log_layout.h - layer 1, private: where the blocks of a crypto log lie.
 *
 * Let F = MLS_MHT_FANOUT and D = the number of data blocks. Level 0 nodes hold the tags of data
 * blocks, level k nodes those of level k - 1 nodes. With / rounding down:
 *
 *	nodes of level k	n(k) = ceil(D / F^(k+1)); the top is the first level with n = 1
 *	data block i		i + sum over k of i / F^(k+1)
 *	node j of level k	full (all F children, D >= (j+1) F^(k+1)), last data block
 *				e = (j+1) F^(k+1) - 1:	position of data block e, + 1 + k
 *				unfilled (j = n(k) - 1): D + sum over m of D / F^(m+1)
 *				+ the number of unfilled levels below k
 *	all			D + n(0) + ... + n(top)
 *
 * Example with F = 3, D = 7 (N: nodes of level 0, P: of level 1)
 *
 *	d0 d1 d2 N0 d3 d4 d5 N1 d6 N2 P0		N2 has one child, P0 three
 */
#ifndef MLS_CRYPTO_LOG_LAYOUT_H
#define MLS_CRYPTO_LOG_LAYOUT_H

#include "1-crypto/crypto_log.h"

#define MLS_MHT_LEVELS 7u	/* 255^7 blocks are more than 2^55 */
#define MLS_MHT_DATA_BLOCKS_MAX ((uint64_t)1 << 55)

uint64_t mls_mht_nr_nodes(uint64_t nr_data, unsigned level);
unsigned mls_mht_top_level(uint64_t nr_data);
uint32_t mls_mht_nr_children(uint64_t nr_data, unsigned level, uint64_t index);
uint64_t mls_mht_data_pos(uint64_t index);
uint64_t mls_mht_node_pos(uint64_t nr_data, unsigned level, uint64_t index);

#endif
