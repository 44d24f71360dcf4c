/* SPDX-License-Identifier: MPL-2.0 */
/*
 * workers.c - the threads that serve a FUSE session; see workers.h.
 *
 * A worker's life: spare -> receiving (in read of /dev/fuse) -> serving -> spare ... -> gone.
 *
 * The kernel wakes a receiving worker for each request. A write takes some microseconds, less than to wake a thread:
 * so only few receive, and they find the next request without sleeping. Whoever has received one doesn't count any
 * more, as it may be long until it's back; when fewer than ENOUGH are left, a spare one begins. A read waits for the
 * device: there each request should be woken for at once, so as long as there are reads, all receive.
 *
 * Invariant: somebody receives, or has been told to, or all are serving.
 *
 * All signals of interest are blocked in all threads; main takes them with sigwait. To end, main
 * marks the session exited and pokes each worker that is receiving with SIGUSR1, whose handler does
 * nothing but end the read. A poke may fall just before the read begins and be lost, so main pokes
 * until the thread is gone. A worker that finds the session over tells main with SIGUSR2.
 */
#include "fuse/workers.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/kernel_io.h"
#include "fuse/log_sink.h"

#define STACK_BYTES (512u << 10)
#define READS_REMEMBERED 64 /* so many requests after a read, all still receive */
#define ENOUGH 2u	    /* receive: with one, large writes come a tenth slower; with more, small ones */

struct worker {
	pthread_t thread;
	struct workers *all;
	struct mls_request_buf buf;
	atomic_bool receiving, gone;
	sem_t told;		      /* a spare one: to receive, or that it's over */
	struct worker *next_spare;    /* under lock */
};

struct workers {
	struct fuse_session *session;
	pthread_t main;
	pthread_mutex_t lock;
	struct worker *spare;	      /* under lock; the last that came is on top */
	unsigned nr_receiving;	      /* under lock, as the next */
	unsigned nr_told;	      /* woken, and not yet here */
	unsigned few, nr_wanted;      /* how many receive when nobody reads; workers that there should be */
	bool ending;		      /* under lock */
	atomic_int reading;	      /* > 0: there was a read lately */
	unsigned nr;
	struct worker worker[];
};

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR2);
}

static void poke_handler(int signo)
{
	(void)signo;
}

void mls_workers_block_signals(void)
{
	struct sigaction poke = {.sa_handler = poke_handler}; /* no SA_RESTART: read must end */
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t set;

	signal_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR1, &poke, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

/* ---- Who receives ------------------------------------------------------------------------ */

static unsigned nr_allowed(struct workers *all)
{
	return atomic_load_explicit(&all->reading, memory_order_relaxed) > 0 ? all->nr_wanted : all->few;
}

/* Lock held. Up to nr of them, chained. */
static struct worker *take_spare(struct workers *all, unsigned nr)
{
	struct worker *first = NULL, **end = &first;

	for (; nr > 0 && all->spare; nr--) {
		*end = all->spare;
		all->spare = all->spare->next_spare;
		end = &(*end)->next_spare;
		all->nr_told++;
	}
	*end = NULL;
	return first;
}

/* Lock not held: who is woken may take the processor at once. */
static void tell(struct worker *w)
{
	while (w) {
		struct worker *next = w->next_spare;

		sem_post(&w->told);
		w = next;
	}
}

/* Lock held, and let go meanwhile. */
static void be_spare(struct worker *w)
{
	struct workers *all = w->all;

	w->next_spare = all->spare;
	all->spare = w;
	pthread_mutex_unlock(&all->lock);
	while (sem_wait(&w->told))
		;		/* a signal */
	pthread_mutex_lock(&all->lock);
	all->nr_told--;
}

/* Wait until one more may. false: it's over. Who comes from serving has a processor, and goes before who was woken. */
static bool begin_receiving(struct worker *w)
{
	struct workers *all = w->all;
	bool begins;

	pthread_mutex_lock(&all->lock);
	while (all->nr_receiving >= nr_allowed(all) && !all->ending)
		be_spare(w);
	begins = !all->ending;
	all->nr_receiving += begins;
	pthread_mutex_unlock(&all->lock);
	return begins;
}

static void end_receiving(struct workers *all)
{
	struct worker *next = NULL;

	pthread_mutex_lock(&all->lock);
	if (--all->nr_receiving + all->nr_told < ENOUGH)
		next = take_spare(all, 1);
	pthread_mutex_unlock(&all->lock);
	tell(next);
}

static void note_request(struct workers *all, bool is_read)
{
	struct worker *spare;

	if (is_read && atomic_exchange(&all->reading, READS_REMEMBERED) <= 0) {
		pthread_mutex_lock(&all->lock);		/* nobody is between looking and waiting */
		spare = take_spare(all, all->nr_wanted);
		pthread_mutex_unlock(&all->lock);
		tell(spare);
	} else if (!is_read && atomic_load_explicit(&all->reading, memory_order_relaxed) > 0) {
		atomic_fetch_sub(&all->reading, 1);
	}
}

static void let_spare_ones_go(struct workers *all)
{
	struct worker *spare;

	pthread_mutex_lock(&all->lock);
	all->ending = true;
	spare = take_spare(all, all->nr_wanted);
	pthread_mutex_unlock(&all->lock);
	tell(spare);
}

/* One for each processor, and one that takes what comes while those are at work. */
static unsigned few_of(unsigned nr_workers)
{
	long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned few = nr_cpus > 0 ? (unsigned)nr_cpus + 1 : 2;

	return few < nr_workers ? few : nr_workers;
}

/* ---- One worker -------------------------------------------------------------------------- */

static bool receive(struct worker *w)
{
	bool received;

	atomic_store(&w->receiving, true);
	received = mls_kernel_io_receive(w->all->session, &w->buf);
	atomic_store(&w->receiving, false);
	end_receiving(w->all);
	return received;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct workers *all = w->all;

	while (!fuse_session_exited(all->session) && begin_receiving(w)) {
		if (!receive(w))
			continue;
		note_request(all, mls_kernel_io_is_read(&w->buf));
		mls_kernel_io_process(all->session, &w->buf);
	}
	atomic_store(&w->gone, true);
	pthread_kill(w->all->main, SIGUSR2);
	return NULL;
}

static void worker_release(struct worker *w)
{
	sem_destroy(&w->told);
	mls_request_buf_release(&w->buf);
}

static int worker_start(struct workers *all, struct worker *w)
{
	pthread_attr_t attr;
	int failed;

	w->all = all;
	if (mls_request_buf_init(&w->buf))
		return -1;
	sem_init(&w->told, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	failed = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_attr_destroy(&attr);
	if (failed)
		worker_release(w);
	return failed ? -1 : 0;
}

static void workers_end(struct workers *all)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	fuse_session_exit(all->session);
	let_spare_ones_go(all);
	for (unsigned i = 0; i < all->nr; i++) {
		struct worker *w = &all->worker[i];

		while (!atomic_load(&w->gone)) {
			if (atomic_load(&w->receiving))
				pthread_kill(w->thread, SIGUSR1);
			nanosleep(&pause, NULL);
		}
		pthread_join(w->thread, NULL);
		worker_release(w);
	}
}

static int wait_for_end(struct workers *all)
{
	int signo = 0;
	sigset_t set;

	signal_set(&set);
	do
		sigwait(&set, &signo);
	while (signo == SIGUSR2 && !fuse_session_exited(all->session));
	return signo == SIGUSR2 ? 0 : signo;
}

int mls_workers_run(struct fuse_session *session, unsigned nr_workers)
{
	struct workers *all = calloc(1, sizeof *all + nr_workers * sizeof all->worker[0]);
	int reason = -1;

	if (!all)
		goto out;
	all->session = session;
	all->main = pthread_self();
	pthread_mutex_init(&all->lock, NULL);
	all->nr_wanted = nr_workers;
	all->few = few_of(nr_workers);
	while (all->nr < nr_workers && !worker_start(all, &all->worker[all->nr]))
		all->nr++;
	if (all->nr > 0)
		reason = wait_for_end(all);
	workers_end(all);
	pthread_mutex_destroy(&all->lock);
out:
	if (reason < 0)
		mls_say(MLS_LOG_ERROR, "can't start threads: out of memory");
	free(all);
	return reason;
}
