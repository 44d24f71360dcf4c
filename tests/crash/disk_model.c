/* SPDX-License-Identifier: MPL-2.0 */
/* disk_model.c - what a disk may contain after a crash; see disk_model.h. */
#include "tests/crash/disk_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/checked.h"
#include "base/err.h"

static void *must(void *memory)
{
	MLS_INVARIANT(memory != NULL);
	return memory;
}

static uint8_t *at(uint8_t *bytes, uint64_t lba)
{
	return bytes + (size_t)lba * MLS_BLOCK_BYTES;
}

static bool same_block(const uint8_t *a, const uint8_t *b, uint64_t lba)
{
	size_t from = (size_t)lba * MLS_BLOCK_BYTES;

	return memcmp(a + from, b + from, MLS_BLOCK_BYTES) == 0;
}

void model_init(struct disk_model *m, uint64_t nr_blocks)
{
	memset(m, 0, sizeof *m);
	m->nr_blocks = nr_blocks;
	m->now = must(mls_blocks_zalloc(nr_blocks));
	m->synced = must(mls_blocks_zalloc(nr_blocks));
	m->dirty = must(calloc(nr_blocks, sizeof *m->dirty));
	m->dirty_list = must(calloc(nr_blocks, sizeof *m->dirty_list));
	m->call.bytes = must(mls_blocks_zalloc(nr_blocks));
	m->open.bytes = must(mls_blocks_zalloc(nr_blocks));
}

void model_release(struct disk_model *m)
{
	mls_blocks_free(m->now);
	mls_blocks_free(m->synced);
	mls_blocks_free(m->call.bytes);
	mls_blocks_free(m->open.bytes);
	free(m->dirty);
	free(m->dirty_list);
}

/* ---- Spans: their bytes lie at the block's own place, so lookups need no arithmetic ---- */

static bool span_has(const struct model_span *span, uint64_t lba)
{
	return lba - span->lba < span->nr_blocks;
}

static void span_take(struct model_span *span, uint64_t lba, uint64_t nr_blocks, uint8_t *from)
{
	span->lba = lba;
	span->nr_blocks = nr_blocks;
	memcpy(at(span->bytes, lba), at(from, lba), (size_t)nr_blocks * MLS_BLOCK_BYTES);
}

/* ---- Calls and syncs ---- */

void model_begin(struct disk_model *m, uint64_t offset, uint64_t bytes)
{
	uint64_t lba = offset / MLS_BLOCK_BYTES, end = mls_div_round_up(offset + bytes, MLS_BLOCK_BYTES);

	span_take(&m->call, lba, end - lba, m->now);
	for (; lba < end; lba++) {
		if (!m->dirty[lba])
			m->dirty_list[m->nr_dirty++] = lba;
		m->dirty[lba] = true;
	}
}

void model_end(struct disk_model *m)
{
	m->call.nr_blocks = 0;
}

/* synced := now, but old content for the blocks of the running call. */
static void catch_up(struct disk_model *m)
{
	for (uint64_t i = 0; i < m->nr_dirty; i++) {
		uint64_t lba = m->dirty_list[i];
		uint8_t *from = span_has(&m->call, lba) ? m->call.bytes : m->now;

		memcpy(at(m->synced, lba), at(from, lba), MLS_BLOCK_BYTES);
		m->dirty[lba] = false;
	}
	m->nr_dirty = 0;
	m->open.nr_blocks = 0;
}

void model_synced(struct disk_model *m)
{
	MLS_INVARIANT(m->call.nr_blocks == 0);
	catch_up(m);
}

void model_synced_within_call(struct disk_model *m)
{
	catch_up(m);
	span_take(&m->open, m->call.lba, m->call.nr_blocks, m->now);
	for (uint64_t i = 0; i < m->call.nr_blocks; i++) {	/* the sync may have missed any of them */
		uint64_t lba = m->call.lba + i;

		m->dirty[lba] = true;
		m->dirty_list[m->nr_dirty++] = lba;
	}
}

bool model_settle(struct disk_model *m, const uint8_t *content, uint64_t *bad_lba)
{
	for (uint64_t i = 0; i < m->call.nr_blocks; i++) {
		uint64_t lba = m->call.lba + i;

		if (same_block(content, m->now, lba))
			continue;
		*bad_lba = lba;
		if (!same_block(content, m->call.bytes, lba))
			return false;
		memcpy(at(m->now, lba), at(m->call.bytes, lba), MLS_BLOCK_BYTES);
	}
	model_end(m);
	return true;
}

/* ---- After a crash ---- */

static bool matches(const uint8_t *content, const uint8_t *state, const struct model_span *either, uint64_t lba)
{
	return same_block(content, state, lba) || (span_has(either, lba) && same_block(content, either->bytes, lba));
}

unsigned model_match(const struct disk_model *m, const uint8_t *content, uint64_t *not_synced_lba,
		     uint64_t *not_now_lba)
{
	unsigned match = MODEL_SYNCED | MODEL_NOW;

	for (uint64_t lba = 0; lba < m->nr_blocks && match; lba++) {
		if ((match & MODEL_SYNCED) && !matches(content, m->synced, &m->open, lba)) {
			match &= ~(unsigned)MODEL_SYNCED;
			if (not_synced_lba)
				*not_synced_lba = lba;
		}
		if ((match & MODEL_NOW) && !matches(content, m->now, &m->call, lba)) {
			match &= ~(unsigned)MODEL_NOW;
			if (not_now_lba)
				*not_now_lba = lba;
		}
	}
	return match;
}

void model_restart(struct disk_model *m, const uint8_t *content)
{
	memcpy(m->now, content, (size_t)m->nr_blocks * MLS_BLOCK_BYTES);
	memcpy(m->synced, content, (size_t)m->nr_blocks * MLS_BLOCK_BYTES);
	memset(m->dirty, 0, m->nr_blocks * sizeof *m->dirty);
	m->nr_dirty = 0;
	m->call.nr_blocks = m->open.nr_blocks = 0;
}
