/* SPDX-License-Identifier: MPL-2.0 */
/*
 * thread.h - what threads are to the scheduler, and how they wait for one another.
 *
 * Threads  Each speaks of itself.
 */
#ifndef MLS_BASE_THREAD_H
#define MLS_BASE_THREAD_H

#include <semaphore.h>

/* Signals don't end it. Where many wait, each waits on one of his own, and is told when no lock is held: who is woken may take
 * the processor of who woke him. */
static inline void mls_sem_wait(sem_t *sem)
{
	while (sem_wait(sem))
		;		/* a signal */
}

/* What this thread does can wait: whoever answers a request goes first. */
void mls_thread_in_background(void);

#endif
