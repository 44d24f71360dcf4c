/* SPDX-License-Identifier: MPL-2.0 */
/*
 * chunk_alloc.c - layer 3: who has which run.
 *
 * A bitmap: 512 KiB for 16 TiB in runs of 4 MiB. It is never stored, so it can't contradict the
 * owners, from whose edits it is rebuilt at open.
 *
 *   bit   means                   becomes
 *   0     free                    1 by take (a new owner), mark (an owner that was loaded) or borrow
 *   1     has exactly one owner   0 by give or return; all 0 by reset
 *
 * A second bitmap tells which free runs the host may have space for: set by give and reset, cleared when a
 * borrowed run comes back punched.
 *
 * A third one tells which runs are backed; see track_backing. It stays as it is while a run is used: what was
 * backed when it was taken is backed when it is given. Nobody knows after an open, so then none is. Of the
 * backed runs as many are left to the index and the cleaner as they need to free others: with little data
 * that is little, so that a new disk doesn't take much of the host.
 *
 * Why the lowest free run and not one after the other in a circle: a thin disk's file then takes the
 * space of its fullest moment, not of its whole address range; what is free lies in few long ranges at
 * the end, which are punched by few calls. The order in which runs are taken doesn't matter to the
 * speed: a run is a transfer of its own wherever it lies.
 *
 * Invariants: nr_free is the number of 0 bits; no word below first_word has one; nr_stale counts runs that
 * are free and stale, nr_backed those that are free and backed; bits behind the last run are 1 for ever, so that a search needn't know where the
 * runs end. nr_runs only grows, and is read without the lock.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "3-log/chunk_alloc.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define WORD_BITS 64u
#define BACKED_MIN 4u		/* runs to be left backed for cleaning, and as many for the index */
#define BACKED_PART 16u		/* the index needs a run more for so many that are used */
#define SOON_PART 32u		/* few are left for user data: one for so many that are used, ... */
#define SOON_MAX 32u		/* ... at most: 128 MiB */

struct mls_chunk_alloc {
	pthread_mutex_t lock;		/* of all below the line; no I/O, nothing else is taken under it */
	uint64_t base_hba;
	atomic_uint_fast64_t nr_runs;
	uint32_t run_blocks;
	/* ---- */
	uint64_t nr_words;
	uint64_t nr_free, nr_stale, nr_backed;
	bool tracks_backing, host_full;
	bool resting;			/* space was given back, and no run taken since */
	uint64_t nr_given;
	uint64_t user_reserve, index_reserve;
	uint64_t nr_held;		/* beyond these, for the index */
	uint64_t first_word;		/* the search begins here */
	uint64_t *used, *stale, *backed;	/* nr_words each */
	/* ---- What each write asks for, without the lock: as of the last change. */
	atomic_uint_fast64_t room;
	_Atomic enum mls_backing_want wants_backing;
};

static bool bit_is_set(const uint64_t *bits, uint64_t run)
{
	return bits[run / WORD_BITS] >> (run % WORD_BITS) & 1;
}

static bool run_used(const struct mls_chunk_alloc *alloc, uint64_t run)
{
	return bit_is_set(alloc->used, run);
}

static void run_set_used(struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(!run_used(alloc, run) && alloc->nr_free > 0);
	alloc->used[run / WORD_BITS] |= UINT64_C(1) << (run % WORD_BITS);
	alloc->nr_free--;
	alloc->nr_stale -= bit_is_set(alloc->stale, run);
	alloc->nr_backed -= bit_is_set(alloc->backed, run);
}

static void bit_put(uint64_t *bits, uint64_t run, bool on)
{
	uint64_t bit = UINT64_C(1) << (run % WORD_BITS);

	bits[run / WORD_BITS] = on ? bits[run / WORD_BITS] | bit : bits[run / WORD_BITS] & ~bit;
}

/* stale and backed are as their bits say. */
static void run_set_free(struct mls_chunk_alloc *alloc, uint64_t run)
{
	uint64_t word = run / WORD_BITS;

	MLS_INVARIANT(run_used(alloc, run) && alloc->nr_free < alloc->nr_runs);
	bit_put(alloc->used, run, false);
	alloc->first_word = mls_min_u64(alloc->first_word, word);
	alloc->nr_free++;
	alloc->nr_stale += bit_is_set(alloc->stale, run);
	alloc->nr_backed += bit_is_set(alloc->backed, run);
}

/* The bits behind the last run. */
static uint64_t tail_bits(uint64_t nr_runs)
{
	return nr_runs % WORD_BITS ? ~UINT64_C(0) << (nr_runs % WORD_BITS) : 0;
}

static void reset_locked(struct mls_chunk_alloc *alloc)
{
	memset(alloc->used, 0, alloc->nr_words * sizeof *alloc->used);
	memset(alloc->stale, 0xff, alloc->nr_words * sizeof *alloc->stale);
	memset(alloc->backed, alloc->tracks_backing ? 0 : 0xff, alloc->nr_words * sizeof *alloc->backed);
	alloc->used[alloc->nr_words - 1] = tail_bits(alloc->nr_runs);
	alloc->nr_free = alloc->nr_stale = alloc->nr_runs;
	alloc->nr_backed = alloc->tracks_backing ? 0 : alloc->nr_runs;
	alloc->first_word = 0;
}

static uint64_t reserve_against(const struct mls_chunk_alloc *alloc, enum mls_run_class class)
{
	switch (class) {
	case MLS_RUN_USER:
		return alloc->user_reserve + alloc->nr_held;
	case MLS_RUN_CLEAN:
		return alloc->index_reserve + alloc->nr_held;
	case MLS_RUN_INDEX:
		break;
	}
	return 0;
}

/* Backed runs that must be left by class. */
static uint64_t backed_reserve_against(const struct mls_chunk_alloc *alloc, enum mls_run_class class)
{
	uint64_t used = alloc->nr_runs - alloc->nr_free;
	uint64_t index = mls_min_u64(2 * alloc->index_reserve, BACKED_MIN + used / BACKED_PART);
	uint64_t user = mls_min_u64(alloc->user_reserve, BACKED_MIN + index);

	if (!alloc->tracks_backing || class == MLS_RUN_INDEX)
		return 0;
	return alloc->nr_held + (class == MLS_RUN_USER ? user : user / 2);
}

static uint64_t room_locked(const struct mls_chunk_alloc *alloc)
{
	uint64_t reserve = reserve_against(alloc, MLS_RUN_USER), room, backed;

	room = alloc->nr_free > reserve ? alloc->nr_free - reserve : 0;
	reserve = backed_reserve_against(alloc, MLS_RUN_USER);
	backed = alloc->nr_backed > reserve ? alloc->nr_backed - reserve : 0;
	return alloc->host_full ? mls_min_u64(room, backed) : room;
}

static enum mls_backing_want want_locked(const struct mls_chunk_alloc *alloc)
{
	uint64_t reserve = backed_reserve_against(alloc, MLS_RUN_USER);
	uint64_t few = mls_min_u64((alloc->nr_runs - alloc->nr_free) / SOON_PART, SOON_MAX);

	if (alloc->nr_backed >= alloc->nr_free)
		return MLS_BACKING_ENOUGH;
	if (alloc->nr_backed <= reserve)
		return MLS_BACKING_NOW;
	if (alloc->host_full || alloc->resting || alloc->nr_backed > reserve + few)
		return MLS_BACKING_ENOUGH;
	return MLS_BACKING_SOON;
}

/* The end of whatever changes anything of it. */
static void unlock_changed(struct mls_chunk_alloc *alloc)
{
	atomic_store_explicit(&alloc->room, room_locked(alloc), memory_order_relaxed);
	atomic_store_explicit(&alloc->wants_backing, want_locked(alloc), memory_order_relaxed);
	pthread_mutex_unlock(&alloc->lock);
}

int mls_chunk_alloc_new(struct mls_chunk_alloc **alloc, uint64_t base_hba, uint32_t run_blocks,
			uint64_t nr_runs)
{
	struct mls_chunk_alloc *new;
	uint64_t nr_blocks, end;

	if (run_blocks == 0 || nr_runs == 0 || !mls_mul_u64(nr_runs, run_blocks, &nr_blocks) ||
	    !mls_add_u64(base_hba, nr_blocks, &end))
		return MLS_EINVAL;

	new = calloc(1, sizeof *new);
	if (!new)
		return MLS_ENOMEM;
	new->base_hba = base_hba;
	new->run_blocks = run_blocks;
	atomic_init(&new->nr_runs, nr_runs);
	new->nr_words = mls_div_round_up(nr_runs, WORD_BITS);
	new->used = calloc(new->nr_words, sizeof *new->used);
	new->stale = calloc(new->nr_words, sizeof *new->stale);
	new->backed = calloc(new->nr_words, sizeof *new->backed);
	pthread_mutex_init(&new->lock, NULL);
	if (!new->used || !new->stale || !new->backed) {
		mls_chunk_alloc_free(new);
		return MLS_ENOMEM;
	}
	mls_chunk_alloc_reset(new);
	*alloc = new;
	return 0;
}

void mls_chunk_alloc_free(struct mls_chunk_alloc *alloc)
{
	if (!alloc)
		return;
	pthread_mutex_destroy(&alloc->lock);
	free(alloc->used);
	free(alloc->stale);
	free(alloc->backed);
	free(alloc);
}

void mls_chunk_alloc_track_backing(struct mls_chunk_alloc *alloc)
{
	pthread_mutex_lock(&alloc->lock);
	alloc->tracks_backing = true;
	memset(alloc->backed, 0, alloc->nr_words * sizeof *alloc->backed);
	alloc->nr_backed = 0;
	unlock_changed(alloc);
}

void mls_chunk_alloc_reset(struct mls_chunk_alloc *alloc)
{
	pthread_mutex_lock(&alloc->lock);
	reset_locked(alloc);
	unlock_changed(alloc);
}

void mls_chunk_alloc_set_reserve(struct mls_chunk_alloc *alloc, uint64_t user_reserve, uint64_t index_reserve)
{
	MLS_INVARIANT(index_reserve <= user_reserve);
	pthread_mutex_lock(&alloc->lock);
	alloc->user_reserve = user_reserve;
	alloc->index_reserve = index_reserve;
	unlock_changed(alloc);
}

bool mls_chunk_alloc_hold(struct mls_chunk_alloc *alloc, uint64_t nr_held)
{
	bool held;

	pthread_mutex_lock(&alloc->lock);
	held = nr_held <= alloc->nr_held || nr_held - alloc->nr_held <= room_locked(alloc);
	if (held)
		alloc->nr_held = nr_held;
	unlock_changed(alloc);
	return held;
}

/* The lowest run that is free, and backed if it must be. There is one. */
static uint64_t find_free(struct mls_chunk_alloc *alloc, bool backed)
{
	uint64_t word = alloc->first_word, found;

	while (~alloc->used[word] == 0) {
		word++;
		MLS_INVARIANT(word < alloc->nr_words);
	}
	alloc->first_word = word;
	while ((found = ~alloc->used[word] & (backed ? alloc->backed[word] : ~UINT64_C(0))) == 0) {
		word++;
		MLS_INVARIANT(word < alloc->nr_words);
	}
	return word * WORD_BITS + (unsigned)__builtin_ctzll(found);
}

/* The index may try its luck with a run that the host has promised nothing for; a flush can fail. */
int mls_chunk_alloc_take(struct mls_chunk_alloc *alloc, enum mls_run_class class, uint64_t *run)
{
	int err = MLS_ENOSPC;

	pthread_mutex_lock(&alloc->lock);
	if (alloc->nr_free > reserve_against(alloc, class) &&
	    (class == MLS_RUN_INDEX || alloc->nr_backed > backed_reserve_against(alloc, class))) {
		*run = find_free(alloc, alloc->nr_backed > 0);
		MLS_INVARIANT(*run < alloc->nr_runs);
		run_set_used(alloc, *run);
		alloc->resting = false;
		err = 0;
	}
	unlock_changed(alloc);
	return err;
}

void mls_chunk_alloc_give(struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(run < alloc->nr_runs);
	pthread_mutex_lock(&alloc->lock);
	bit_put(alloc->stale, run, true);
	run_set_free(alloc, run);
	alloc->nr_given++;
	unlock_changed(alloc);
}

/* ---- Stale runs ---- */

/* May another run be borrowed for its space, if it is a backed one? */
static bool backed_to_spare(const struct mls_chunk_alloc *alloc)
{
	return !alloc->tracks_backing || alloc->nr_backed > backed_reserve_against(alloc, MLS_RUN_USER) + 1;
}

/* Those of a word that may be borrowed for their space. */
static uint64_t spare_bits(const struct mls_chunk_alloc *alloc, uint64_t word)
{
	uint64_t bits = ~alloc->used[word] & alloc->stale[word];

	return backed_to_spare(alloc) ? bits : bits & ~alloc->backed[word];
}

static bool run_is_spare(const struct mls_chunk_alloc *alloc, uint64_t run)
{
	return spare_bits(alloc, run / WORD_BITS) >> (run % WORD_BITS) & 1;
}

/* The highest such run. */
static bool find_spare(const struct mls_chunk_alloc *alloc, uint64_t *run)
{
	for (uint64_t word = alloc->nr_words; word-- > 0;) {
		uint64_t bits = spare_bits(alloc, word);

		if (bits) {
			*run = word * WORD_BITS + WORD_BITS - 1 - (unsigned)__builtin_clzll(bits);
			return true;
		}
	}
	return false;
}

bool mls_chunk_alloc_borrow_stale(struct mls_chunk_alloc *alloc, uint64_t max, uint64_t min_free, uint64_t keep,
				  uint64_t *run, uint64_t *nr)
{
	uint64_t first;
	bool found;

	pthread_mutex_lock(&alloc->lock);
	max = mls_min_u64(max, alloc->nr_free > min_free ? alloc->nr_free - min_free : 0);
	max = mls_min_u64(max, alloc->nr_stale > keep ? alloc->nr_stale - keep : 0);
	found = max > 0 && find_spare(alloc, &first);
	if (found) {
		run_set_used(alloc, first);
		for (*nr = 1; *nr < max && first > 0 && run_is_spare(alloc, first - 1); ++*nr)
			run_set_used(alloc, --first);
		*run = first;
	}
	unlock_changed(alloc);
	return found;
}

void mls_chunk_alloc_return(struct mls_chunk_alloc *alloc, uint64_t run, uint64_t nr, bool punched)
{
	pthread_mutex_lock(&alloc->lock);
	for (uint64_t i = 0; i < nr; i++) {
		bit_put(alloc->stale, run + i, !punched);
		if (punched && alloc->tracks_backing)
			bit_put(alloc->backed, run + i, false);
		run_set_free(alloc, run + i);
	}
	alloc->nr_given += punched;
	alloc->resting |= punched;
	unlock_changed(alloc);
}

/* ---- Backing ---- */

enum mls_backing_want mls_chunk_alloc_wants_backing(struct mls_chunk_alloc *alloc)
{
	return atomic_load_explicit(&alloc->wants_backing, memory_order_relaxed);
}

/* Those of a word that aren't backed; stale: only those for which the host may have space already. */
static uint64_t unbacked_bits(const struct mls_chunk_alloc *alloc, uint64_t word, bool stale)
{
	return ~alloc->used[word] & ~alloc->backed[word] & (stale ? alloc->stale[word] : ~UINT64_C(0));
}

/* The first such run from `from` on; nr_runs: none. */
static uint64_t find_unbacked(const struct mls_chunk_alloc *alloc, uint64_t from, bool stale)
{
	for (uint64_t word = from / WORD_BITS; word < alloc->nr_words; word++) {
		uint64_t bits = unbacked_bits(alloc, word, stale);

		if (word == from / WORD_BITS)
			bits &= ~UINT64_C(0) << (from % WORD_BITS);
		if (bits)
			return word * WORD_BITS + (unsigned)__builtin_ctzll(bits);
	}
	return alloc->nr_runs;
}

static bool run_is_unbacked(const struct mls_chunk_alloc *alloc, uint64_t run)
{
	return unbacked_bits(alloc, run / WORD_BITS, false) >> (run % WORD_BITS) & 1;
}

bool mls_chunk_alloc_borrow_unbacked(struct mls_chunk_alloc *alloc, uint64_t from, uint64_t max, uint64_t *run,
				     uint64_t *nr)
{
	uint64_t first;
	bool found;

	pthread_mutex_lock(&alloc->lock);
	first = find_unbacked(alloc, from, true);
	if (first >= alloc->nr_runs)
		first = find_unbacked(alloc, from, false);
	found = first < alloc->nr_runs && max > 0;
	if (found) {
		*run = first;
		for (*nr = 0; *nr < max && first < alloc->nr_runs && run_is_unbacked(alloc, first); ++*nr)
			run_set_used(alloc, first++);
	}
	unlock_changed(alloc);
	return found;
}

void mls_chunk_alloc_return_backed(struct mls_chunk_alloc *alloc, uint64_t run, uint64_t nr, bool backed, bool stale)
{
	pthread_mutex_lock(&alloc->lock);
	for (uint64_t i = 0; i < nr; i++) {
		bit_put(alloc->stale, run + i, backed || stale);
		bit_put(alloc->backed, run + i, backed);
		run_set_free(alloc, run + i);
	}
	alloc->host_full = !backed;
	unlock_changed(alloc);
}

uint64_t mls_chunk_alloc_nr_given(struct mls_chunk_alloc *alloc)
{
	uint64_t nr_given;

	pthread_mutex_lock(&alloc->lock);
	nr_given = alloc->nr_given;
	pthread_mutex_unlock(&alloc->lock);
	return nr_given;
}

uint64_t mls_chunk_alloc_nr_backed(struct mls_chunk_alloc *alloc)
{
	uint64_t nr_backed;

	pthread_mutex_lock(&alloc->lock);
	nr_backed = alloc->nr_backed;
	pthread_mutex_unlock(&alloc->lock);
	return nr_backed;
}

uint64_t mls_chunk_alloc_room(struct mls_chunk_alloc *alloc)
{
	return atomic_load_explicit(&alloc->room, memory_order_relaxed);
}

uint64_t mls_chunk_alloc_nr_stale(struct mls_chunk_alloc *alloc)
{
	uint64_t nr_stale;

	pthread_mutex_lock(&alloc->lock);
	nr_stale = alloc->nr_stale;
	pthread_mutex_unlock(&alloc->lock);
	return nr_stale;
}

/* ---- More runs ---- */

static int bits_grow(uint64_t **bits, uint64_t nr_old, uint64_t nr_new)
{
	uint64_t *grown = realloc(*bits, nr_new * sizeof *grown);

	if (!grown)
		return MLS_ENOMEM;
	memset(grown + nr_old, 0, (nr_new - nr_old) * sizeof *grown);
	*bits = grown;
	return 0;
}

/* The new runs are free, and the host has nothing for them yet. */
static int grow_locked(struct mls_chunk_alloc *alloc, uint64_t nr_runs)
{
	uint64_t nr_words = mls_div_round_up(nr_runs, WORD_BITS), old = alloc->nr_runs;
	int err = bits_grow(&alloc->used, alloc->nr_words, nr_words);

	if (!err)
		err = bits_grow(&alloc->stale, alloc->nr_words, nr_words);
	if (!err)
		err = bits_grow(&alloc->backed, alloc->nr_words, nr_words);
	if (err)
		return err;
	alloc->used[alloc->nr_words - 1] &= ~tail_bits(old);
	if (tail_bits(old))
		alloc->stale[alloc->nr_words - 1] &= ~tail_bits(old);
	alloc->used[nr_words - 1] |= tail_bits(nr_runs);
	alloc->first_word = mls_min_u64(alloc->first_word, old / WORD_BITS);
	alloc->nr_words = nr_words;
	alloc->nr_free += nr_runs - old;
	if (!alloc->tracks_backing)
		for (uint64_t run = old; run < nr_runs; run++)
			bit_put(alloc->backed, run, true);
	alloc->nr_backed += alloc->tracks_backing ? 0 : nr_runs - old;
	atomic_store(&alloc->nr_runs, nr_runs);
	return 0;
}

int mls_chunk_alloc_grow(struct mls_chunk_alloc *alloc, uint64_t nr_runs)
{
	uint64_t nr_blocks, end;
	int err;

	if (nr_runs < alloc->nr_runs || !mls_mul_u64(nr_runs, alloc->run_blocks, &nr_blocks) ||
	    !mls_add_u64(alloc->base_hba, nr_blocks, &end))
		return MLS_EINVAL;
	pthread_mutex_lock(&alloc->lock);
	err = grow_locked(alloc, nr_runs);
	unlock_changed(alloc);
	return err;
}

int mls_chunk_alloc_mark(struct mls_chunk_alloc *alloc, uint64_t run)
{
	int err = 0;

	if (run >= alloc->nr_runs) {
		mls_error("chunk_alloc: run %llu of %llu has an owner", (unsigned long long)run,
			  (unsigned long long)alloc->nr_runs);
		return MLS_EFORMAT;
	}
	pthread_mutex_lock(&alloc->lock);
	if (run_used(alloc, run))
		err = MLS_EFORMAT;
	else
		run_set_used(alloc, run);
	unlock_changed(alloc);
	if (err)
		mls_error("chunk_alloc: run %llu has two owners", (unsigned long long)run);
	return err;
}

bool mls_chunk_alloc_used(struct mls_chunk_alloc *alloc, uint64_t run)
{
	bool used;

	MLS_INVARIANT(run < alloc->nr_runs);
	pthread_mutex_lock(&alloc->lock);
	used = run_used(alloc, run);
	pthread_mutex_unlock(&alloc->lock);
	return used;
}

uint64_t mls_chunk_alloc_nr_free(struct mls_chunk_alloc *alloc)
{
	uint64_t nr_free;

	pthread_mutex_lock(&alloc->lock);
	nr_free = alloc->nr_free;
	pthread_mutex_unlock(&alloc->lock);
	return nr_free;
}

uint64_t mls_chunk_alloc_nr_runs(const struct mls_chunk_alloc *alloc)
{
	return alloc->nr_runs;
}

uint32_t mls_chunk_alloc_run_blocks(const struct mls_chunk_alloc *alloc)
{
	return alloc->run_blocks;
}

uint64_t mls_chunk_alloc_hba(const struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(run < alloc->nr_runs);
	return alloc->base_hba + run * alloc->run_blocks;
}

bool mls_chunk_alloc_run_of(const struct mls_chunk_alloc *alloc, uint64_t hba, uint64_t *run, uint32_t *slot)
{
	uint64_t offset = hba - alloc->base_hba;

	if (hba < alloc->base_hba || offset / alloc->run_blocks >= alloc->nr_runs)
		return false;
	*run = offset / alloc->run_blocks;
	*slot = (uint32_t)(offset % alloc->run_blocks);
	return true;
}
