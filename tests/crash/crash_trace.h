/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_trace.h - what a run did to its device and to its trusted store, in order, to be cut anywhere.
 *
 * Role     crash_dev loses writes at one cut of one run. To look at every cut, the run is recorded once:
 *          each transfer, flush and advance of the store is an event, with its bytes. A crash leaves what
 *          the flushes before it made durable, and any part of what came after them (crash_cut.h); so all
 *          images of all cuts come from one recording, and recovery, recorded in its turn, is cut the
 *          same way.
 * Medium   Blocks in memory that remember what each change overwrote: going back to a mark costs the
 *          blocks changed since. `state` is a digest of all bytes, kept with each change: it tells whether
 *          an image has been seen before.
 * Threads  One writes. Others may read while nobody writes (fsck does).
 */
#ifndef MLS_TEST_CRASH_TRACE_H
#define MLS_TEST_CRASH_TRACE_H

#include "mlsdisk/mlsdisk.h"

enum crash_event_kind { CRASH_WRITE, CRASH_DISCARD, CRASH_FLUSH, CRASH_ADVANCE };

struct crash_event {
	enum crash_event_kind kind;
	uint32_t nr_blocks;		/* WRITE, DISCARD */
	uint64_t hba;
	size_t first;			/* WRITE: its blocks in the trace's bytes, counted in blocks */
	struct mls_trust trust;		/* ADVANCE: the new value */
};

struct crash_trace {
	struct crash_event *events;
	uint32_t nr, cap;
	uint8_t *bytes;
	size_t nr_blocks, cap_blocks;
};

void crash_trace_clear(struct crash_trace *trace);		/* keeps the memory */
void crash_trace_release(struct crash_trace *trace);
const uint8_t *crash_trace_block(const struct crash_trace *trace, const struct crash_event *event, uint32_t block);

struct crash_undo {
	uint64_t hba, digest;
};

struct crash_medium {
	struct mls_block_dev base;	/* first */
	uint8_t *bytes;
	uint64_t *digests;		/* per block */
	uint64_t state;			/* digest of all */
	struct crash_undo *undo;
	uint8_t *undo_bytes;
	size_t nr_undo, cap_undo;
	struct crash_trace *trace;	/* borrowed; NULL: nothing is recorded */
	bool frozen;			/* the power is off: changes are answered with 0 and lost */
};

void crash_medium_init(struct crash_medium *m, uint64_t nr_blocks);
void crash_medium_release(struct crash_medium *m);
void crash_medium_load(struct crash_medium *m, const uint8_t *bytes);	/* all of it; nothing to undo */

size_t crash_medium_mark(const struct crash_medium *m);
void crash_medium_revert(struct crash_medium *m, size_t mark);
void crash_medium_put(struct crash_medium *m, uint64_t hba, const uint8_t *block);
/* What a discard leaves: who reads it, notices. */
void crash_medium_spoil(struct crash_medium *m, uint64_t hba, uint64_t nr_blocks);

/* The register beside it. */
struct crash_store {
	struct mls_trusted_store base;	/* first */
	struct crash_medium *medium;	/* borrowed: records advances too, and says when the power is off */
	bool held;
	struct mls_trust trust;
	void (*advanced)(void *arg, const struct mls_trust *trust);	/* may be NULL */
	void *arg;
};

void crash_store_init(struct crash_store *store, struct crash_medium *medium);

#endif
