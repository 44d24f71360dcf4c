/* SPDX-License-Identifier: MPL-2.0 */
/* crash_trace.c - a device and a store that record what is done to them; see crash_trace.h. */
#include "tests/crash/crash_trace.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

static void *must(void *memory)
{
	MLS_INVARIANT(memory != NULL);
	return memory;
}

/* ---- The recording ---- */

void crash_trace_clear(struct crash_trace *trace)
{
	trace->nr = 0;
	trace->nr_blocks = 0;
}

void crash_trace_release(struct crash_trace *trace)
{
	free(trace->events);
	free(trace->bytes);
	*trace = (struct crash_trace){ .events = NULL };
}

const uint8_t *crash_trace_block(const struct crash_trace *trace, const struct crash_event *event, uint32_t block)
{
	MLS_INVARIANT(event->kind == CRASH_WRITE && block < event->nr_blocks);
	return trace->bytes + (event->first + block) * MLS_BLOCK_BYTES;
}

static struct crash_event *add_event(struct crash_trace *trace, enum crash_event_kind kind)
{
	struct crash_event *event;

	if (trace->nr == trace->cap) {
		trace->cap = trace->cap ? 2 * trace->cap : 64;
		trace->events = must(realloc(trace->events, trace->cap * sizeof *trace->events));
	}
	event = &trace->events[trace->nr++];
	*event = (struct crash_event){ .kind = kind };
	return event;
}

static void record_blocks(struct crash_trace *trace, enum crash_event_kind kind, uint64_t hba, uint64_t nr_blocks,
			  const void *data)
{
	struct crash_event *event;

	if (!trace)
		return;
	event = add_event(trace, kind);
	event->hba = hba;
	event->nr_blocks = (uint32_t)nr_blocks;
	event->first = trace->nr_blocks;
	if (!data)
		return;
	if (trace->nr_blocks + nr_blocks > trace->cap_blocks) {
		trace->cap_blocks = 2 * (trace->nr_blocks + nr_blocks);
		trace->bytes = must(realloc(trace->bytes, trace->cap_blocks * MLS_BLOCK_BYTES));
	}
	memcpy(trace->bytes + trace->nr_blocks * MLS_BLOCK_BYTES, data, nr_blocks * MLS_BLOCK_BYTES);
	trace->nr_blocks += nr_blocks;
}

/* ---- The medium ---- */

/* Not against an adversary: two images that differ by chance must differ here. */
static uint64_t digest_of(uint64_t hba, const uint8_t *block)
{
	uint64_t lanes[4] = { hba, ~hba, hba << 32, UINT64_C(0x9e3779b97f4a7c15) };
	uint64_t word, digest = 0;

	for (unsigned at = 0; at < MLS_BLOCK_BYTES; at += sizeof lanes)
		for (unsigned i = 0; i < 4; i++) {
			memcpy(&word, block + at + i * sizeof word, sizeof word);
			lanes[i] = (lanes[i] ^ word) * UINT64_C(0xff51afd7ed558ccd);
			lanes[i] ^= lanes[i] >> 32;
		}
	for (unsigned i = 0; i < 4; i++) {
		digest = (digest ^ lanes[i]) * UINT64_C(0xc4ceb9fe1a85ec53);
		digest ^= digest >> 29;
	}
	return digest;
}

static uint8_t *block_at(struct crash_medium *m, uint64_t hba)
{
	return m->bytes + (size_t)hba * MLS_BLOCK_BYTES;
}

static void remember(struct crash_medium *m, uint64_t hba)
{
	if (m->nr_undo == m->cap_undo) {
		m->cap_undo = m->cap_undo ? 2 * m->cap_undo : 256;
		m->undo = must(realloc(m->undo, m->cap_undo * sizeof *m->undo));
		m->undo_bytes = must(realloc(m->undo_bytes, m->cap_undo * MLS_BLOCK_BYTES));
	}
	m->undo[m->nr_undo] = (struct crash_undo){ hba, m->digests[hba] };
	memcpy(m->undo_bytes + m->nr_undo * MLS_BLOCK_BYTES, block_at(m, hba), MLS_BLOCK_BYTES);
	m->nr_undo++;
}

static void set_digest(struct crash_medium *m, uint64_t hba, uint64_t digest)
{
	m->state ^= m->digests[hba] ^ digest;
	m->digests[hba] = digest;
}

void crash_medium_put(struct crash_medium *m, uint64_t hba, const uint8_t *block)
{
	MLS_INVARIANT(hba < m->base.nr_blocks);
	remember(m, hba);
	memcpy(block_at(m, hba), block, MLS_BLOCK_BYTES);
	set_digest(m, hba, digest_of(hba, block));
}

void crash_medium_spoil(struct crash_medium *m, uint64_t hba, uint64_t nr_blocks)
{
	uint8_t garbage[MLS_BLOCK_BYTES];

	memset(garbage, 0xdd, sizeof garbage);
	for (uint64_t i = 0; i < nr_blocks; i++)
		crash_medium_put(m, hba + i, garbage);
}

size_t crash_medium_mark(const struct crash_medium *m)
{
	return m->nr_undo;
}

void crash_medium_revert(struct crash_medium *m, size_t mark)
{
	while (m->nr_undo > mark) {
		const struct crash_undo *undo = &m->undo[--m->nr_undo];

		memcpy(block_at(m, undo->hba), m->undo_bytes + m->nr_undo * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES);
		set_digest(m, undo->hba, undo->digest);
	}
}

void crash_medium_load(struct crash_medium *m, const uint8_t *bytes)
{
	memcpy(m->bytes, bytes, (size_t)m->base.nr_blocks * MLS_BLOCK_BYTES);
	for (uint64_t hba = 0; hba < m->base.nr_blocks; hba++)
		set_digest(m, hba, digest_of(hba, block_at(m, hba)));
	m->nr_undo = 0;
}

/* ---- The medium as a device ---- */

static int medium_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct crash_medium *m = (struct crash_medium *)dev;

	for (unsigned i = 0; i < nr; i++) {
		memcpy(ios[i].data, block_at(m, ios[i].hba), (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES);
		ios[i].err = 0;
	}
	return 0;
}

static int medium_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct crash_medium *m = (struct crash_medium *)dev;

	for (unsigned i = 0; i < nr; i++) {
		const uint8_t *data = ios[i].data;

		ios[i].err = 0;
		if (m->frozen)
			continue;
		record_blocks(m->trace, CRASH_WRITE, ios[i].hba, ios[i].nr_blocks, data);
		for (uint32_t j = 0; j < ios[i].nr_blocks; j++)
			crash_medium_put(m, ios[i].hba + j, data + (size_t)j * MLS_BLOCK_BYTES);
	}
	return 0;
}

static int medium_flush(struct mls_block_dev *dev)
{
	struct crash_medium *m = (struct crash_medium *)dev;

	if (!m->frozen && m->trace)
		add_event(m->trace, CRASH_FLUSH);
	return 0;
}

static int medium_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct crash_medium *m = (struct crash_medium *)dev;

	if (m->frozen)
		return 0;
	record_blocks(m->trace, CRASH_DISCARD, hba, nr_blocks, NULL);
	crash_medium_spoil(m, hba, nr_blocks);
	return 0;
}

static void medium_destroy(struct mls_block_dev *dev)
{
	(void)dev;			/* the owner releases it */
}

static const struct mls_block_dev_ops medium_ops = {
	.read = medium_read,
	.write = medium_write,
	.flush = medium_flush,
	.discard = medium_discard,
	.destroy = medium_destroy,
};

void crash_medium_init(struct crash_medium *m, uint64_t nr_blocks)
{
	*m = (struct crash_medium){ .base = { &medium_ops, nr_blocks } };
	m->bytes = must(mls_blocks_zalloc(nr_blocks));
	m->digests = must(calloc(nr_blocks, sizeof *m->digests));
	for (uint64_t hba = 0; hba < nr_blocks; hba++)
		set_digest(m, hba, digest_of(hba, block_at(m, hba)));
}

void crash_medium_release(struct crash_medium *m)
{
	mls_blocks_free(m->bytes);
	free(m->digests);
	free(m->undo);
	free(m->undo_bytes);
}

/* ---- The store ---- */

static int store_read(struct mls_trusted_store *base, struct mls_trust *trust)
{
	struct crash_store *store = (struct crash_store *)base;

	if (!store->held)
		return MLS_ENOENT;
	*trust = store->trust;
	return 0;
}

static int store_advance(struct mls_trusted_store *base, const struct mls_trust *trust)
{
	struct crash_store *store = (struct crash_store *)base;

	if (store->medium->frozen)
		return 0;
	if (store->medium->trace)
		add_event(store->medium->trace, CRASH_ADVANCE)->trust = *trust;
	store->trust = *trust;
	store->held = true;
	if (store->advanced)
		store->advanced(store->arg, trust);
	return 0;
}

static void store_destroy(struct mls_trusted_store *base)
{
	(void)base;
}

static const struct mls_trusted_store_ops store_ops = {
	.read = store_read,
	.advance = store_advance,
	.destroy = store_destroy,
};

void crash_store_init(struct crash_store *store, struct crash_medium *medium)
{
	*store = (struct crash_store){ .base = { &store_ops }, .medium = medium };
}
