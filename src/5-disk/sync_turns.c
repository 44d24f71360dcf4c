/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sync_turns.c - whose turn it is; see sync_turns.h.
 *
 * A waiter:  queued --round ends that began after he came--> told, with its result
 *                   --his turn has come--> told, and makes the next round, or has the time between two
 *
 * Invariants: somebody is queued only while taken; whoever has the turn passes it to the first of the queue that his
 * round didn't serve, so nobody who comes later makes a round before; a waiter, on his own stack, isn't touched
 * after his semaphore was posted.
 */
#include "5-disk/sync_turns.h"

#include <semaphore.h>

#include "base/err.h"
#include "base/thread.h"

struct mls_sync_waiter {
	sem_t told;
	uint64_t round;			/* served by this one; 0: wants a turn of his own */
	bool his_turn;
	int err;			/* of the round */
	struct mls_sync_waiter *next;
};

void mls_sync_turns_init(struct mls_sync_turns *turns)
{
	*turns = (struct mls_sync_turns){ .end = &turns->first };
	pthread_mutex_init(&turns->lock, NULL);
	mls_sync_gather_init(&turns->gather);
}

/* Lock held; still held, or again, if it's his turn, else let go. */
static void wait_for_turn(struct mls_sync_turns *turns, struct mls_sync_waiter *waiter)
{
	waiter->his_turn = !turns->taken;
	turns->taken = true;
	if (waiter->his_turn)
		return;
	sem_init(&waiter->told, 0, 0);
	waiter->next = NULL;
	*turns->end = waiter;
	turns->end = &waiter->next;
	pthread_mutex_unlock(&turns->lock);
	mls_sem_wait(&waiter->told);
	sem_destroy(&waiter->told);
	if (waiter->his_turn)
		pthread_mutex_lock(&turns->lock);
}

/* Lock held: those that the round has served, chained. */
static struct mls_sync_waiter *take_served(struct mls_sync_turns *turns, int err)
{
	struct mls_sync_waiter *served = NULL, **end = &served, **at = &turns->first;

	while (*at) {
		struct mls_sync_waiter *waiter = *at;

		if (waiter->round == 0 || waiter->round > turns->nr_begun) {
			at = &waiter->next;
			continue;
		}
		*at = waiter->next;
		waiter->err = err;
		*end = waiter;
		end = &waiter->next;
	}
	*end = NULL;
	turns->end = at;
	return served;
}

/* Lock held, and let go. The next one first: the others only have to return. */
static void pass_turn(struct mls_sync_turns *turns, struct mls_sync_waiter *served)
{
	struct mls_sync_waiter *next = turns->first;

	turns->taken = next != NULL;
	if (next) {
		turns->first = next->next;
		if (!turns->first)
			turns->end = &turns->first;
		next->his_turn = true;
	}
	pthread_mutex_unlock(&turns->lock);
	if (next)
		sem_post(&next->told);
	while (served) {
		struct mls_sync_waiter *waiter = served;

		served = waiter->next;
		sem_post(&waiter->told);
	}
}

bool mls_sync_turns_begin_round(struct mls_sync_turns *turns, unsigned *nr, int *err)
{
	struct mls_sync_waiter waiter;

	pthread_mutex_lock(&turns->lock);
	waiter = (struct mls_sync_waiter){ .round = turns->nr_begun + 1 };	/* the first that begins from now on */
	mls_sync_gather_join(&turns->gather);
	wait_for_turn(turns, &waiter);
	if (!waiter.his_turn) {
		*err = waiter.err;
		return false;
	}
	MLS_INVARIANT(waiter.round == turns->nr_begun + 1);
	*nr = mls_sync_gather_begin(&turns->gather, &turns->lock);
	turns->nr_begun++;
	pthread_mutex_unlock(&turns->lock);
	return true;
}

void mls_sync_turns_end_round(struct mls_sync_turns *turns, unsigned nr, uint64_t round_ns, int err)
{
	pthread_mutex_lock(&turns->lock);
	mls_sync_gather_end(&turns->gather, nr, round_ns);
	pass_turn(turns, take_served(turns, err));
}

void mls_sync_turns_enter(struct mls_sync_turns *turns)
{
	struct mls_sync_waiter waiter = { .round = 0 };

	pthread_mutex_lock(&turns->lock);
	wait_for_turn(turns, &waiter);
	pthread_mutex_unlock(&turns->lock);
}

void mls_sync_turns_leave(struct mls_sync_turns *turns)
{
	pthread_mutex_lock(&turns->lock);
	pass_turn(turns, NULL);
}
