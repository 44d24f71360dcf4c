/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_cut.h - the images that a crash may leave, at one event of a trace.
 *
 * Role     The event is in flight: it and all transfers since the last flush before it are pending. Each
 *          pending block is kept, dropped or torn (512-byte sectors old or new), a pending discard kept
 *          or dropped. Of two versions of a block any one may be left; so this is every reordering, too.
 * Choices  Numbered, from 0: all kept; none; one torn; prefixes; all but one; only one; then every subset,
 *          if there are few blocks, or random ones with random tears. A number is always the same image.
 */
#ifndef MLS_TEST_CRASH_CUT_H
#define MLS_TEST_CRASH_CUT_H

#include "tests/crash/crash_trace.h"

#define CRASH_PIECES_MAX 1024u

struct crash_piece {			/* a block of a write, or a whole discard */
	uint32_t event, block;
};

struct crash_cut {
	const struct crash_trace *trace;
	uint32_t at;			/* trace->nr: behind the last event */
	uint32_t nr;
	struct crash_piece pieces[CRASH_PIECES_MAX];
};

/* Is there a cut at this event? A discard alone isn't one: the next event's has it pending. */
bool crash_cut_is_at(const struct crash_trace *trace, uint32_t at);
/* durable: the first event that no flush before `at` covers. */
void crash_cut_init(struct crash_cut *cut, const struct crash_trace *trace, uint32_t durable, uint32_t at);

/* Is the in-flight event an advance of the store? Then the register holds the old or the new value, too. */
bool crash_cut_in_advance(const struct crash_cut *cut);

uint64_t crash_cut_nr_choices(const struct crash_cut *cut);
/* The medium has what is durable; it gets what the choice keeps. */
void crash_cut_apply(const struct crash_cut *cut, uint64_t choice, struct crash_medium *medium);

/* The transfers in [from, to) of the trace, all of them. */
void crash_trace_apply(const struct crash_trace *trace, uint32_t from, uint32_t to, struct crash_medium *medium);

#endif
