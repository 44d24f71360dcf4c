/* SPDX-License-Identifier: MPL-2.0 */
/*
 * chunk_alloc.c - layer 3: who has which run.
 *
 * A bitmap: 512 KiB for 16 TiB in runs of 4 MiB. It is never stored, so it can't contradict the
 * owners, from whose edits it is rebuilt at open.
 *
 *   bit   means                   becomes
 *   0     free                    1 by take (a new owner) or mark (an owner that was loaded)
 *   1     has exactly one owner   0 by give; all 0 by reset
 *
 * Invariants: nr_free is the number of 0 bits; bits behind the last run are 1 for ever, so that a
 * search needn't know where the runs end.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "3-log/chunk_alloc.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define WORD_BITS 64u

struct mls_chunk_alloc {
	pthread_mutex_t lock;		/* of all below the line; no I/O, nothing else is taken under it */
	uint64_t base_hba;
	uint64_t nr_runs;
	uint64_t nr_words;
	uint32_t run_blocks;
	/* ---- */
	uint64_t nr_free;
	uint64_t user_reserve, index_reserve;
	uint64_t hint;			/* run after the one taken last */
	uint64_t *used;			/* nr_words */
};

static bool run_used(const struct mls_chunk_alloc *alloc, uint64_t run)
{
	return alloc->used[run / WORD_BITS] >> (run % WORD_BITS) & 1;
}

static void run_set_used(struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(!run_used(alloc, run) && alloc->nr_free > 0);
	alloc->used[run / WORD_BITS] |= UINT64_C(1) << (run % WORD_BITS);
	alloc->nr_free--;
}

static void run_set_free(struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(run_used(alloc, run) && alloc->nr_free < alloc->nr_runs);
	alloc->used[run / WORD_BITS] &= ~(UINT64_C(1) << (run % WORD_BITS));
	alloc->nr_free++;
}

static void reset_locked(struct mls_chunk_alloc *alloc)
{
	memset(alloc->used, 0, alloc->nr_words * sizeof *alloc->used);
	if (alloc->nr_runs % WORD_BITS)
		alloc->used[alloc->nr_words - 1] = ~UINT64_C(0) << (alloc->nr_runs % WORD_BITS);
	alloc->nr_free = alloc->nr_runs;
	alloc->hint = 0;
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
	new->nr_runs = nr_runs;
	new->nr_words = mls_div_round_up(nr_runs, WORD_BITS);
	new->used = calloc(new->nr_words, sizeof *new->used);
	if (!new->used) {
		free(new);
		return MLS_ENOMEM;
	}
	pthread_mutex_init(&new->lock, NULL);
	reset_locked(new);
	*alloc = new;
	return 0;
}

void mls_chunk_alloc_free(struct mls_chunk_alloc *alloc)
{
	if (!alloc)
		return;
	pthread_mutex_destroy(&alloc->lock);
	free(alloc->used);
	free(alloc);
}

void mls_chunk_alloc_reset(struct mls_chunk_alloc *alloc)
{
	pthread_mutex_lock(&alloc->lock);
	reset_locked(alloc);
	pthread_mutex_unlock(&alloc->lock);
}

void mls_chunk_alloc_set_reserve(struct mls_chunk_alloc *alloc, uint64_t user_reserve, uint64_t index_reserve)
{
	MLS_INVARIANT(index_reserve <= user_reserve);
	pthread_mutex_lock(&alloc->lock);
	alloc->user_reserve = user_reserve;
	alloc->index_reserve = index_reserve;
	pthread_mutex_unlock(&alloc->lock);
}

static uint64_t reserve_against(const struct mls_chunk_alloc *alloc, enum mls_run_class class)
{
	switch (class) {
	case MLS_RUN_USER:
		return alloc->user_reserve;
	case MLS_RUN_CLEAN:
		return alloc->index_reserve;
	case MLS_RUN_INDEX:
		break;
	}
	return 0;
}

/* The first free run from the hint on, around the end. There is one. */
static uint64_t find_free(const struct mls_chunk_alloc *alloc)
{
	uint64_t word = alloc->hint / WORD_BITS;
	/* The first word is looked at from the hint on, and once more as a whole at the end. */
	uint64_t free_bits = ~alloc->used[word] & (~UINT64_C(0) << (alloc->hint % WORD_BITS));
	uint64_t nr_looked;

	for (nr_looked = 0; free_bits == 0; nr_looked++) {
		MLS_INVARIANT(nr_looked <= alloc->nr_words);
		word = word + 1 < alloc->nr_words ? word + 1 : 0;
		free_bits = ~alloc->used[word];
	}
	return word * WORD_BITS + (unsigned)__builtin_ctzll(free_bits);
}

int mls_chunk_alloc_take(struct mls_chunk_alloc *alloc, enum mls_run_class class, uint64_t *run)
{
	int err = MLS_ENOSPC;

	pthread_mutex_lock(&alloc->lock);
	if (alloc->nr_free > reserve_against(alloc, class)) {
		*run = find_free(alloc);
		MLS_INVARIANT(*run < alloc->nr_runs);
		run_set_used(alloc, *run);
		alloc->hint = *run + 1 < alloc->nr_runs ? *run + 1 : 0;
		err = 0;
	}
	pthread_mutex_unlock(&alloc->lock);
	return err;
}

void mls_chunk_alloc_give(struct mls_chunk_alloc *alloc, uint64_t run)
{
	MLS_INVARIANT(run < alloc->nr_runs);
	pthread_mutex_lock(&alloc->lock);
	run_set_free(alloc, run);
	pthread_mutex_unlock(&alloc->lock);
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
	pthread_mutex_unlock(&alloc->lock);
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
