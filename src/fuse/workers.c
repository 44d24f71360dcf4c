/* SPDX-License-Identifier: MPL-2.0 */
/*
 * workers.c - the threads that serve a FUSE session; see workers.h.
 *
 * A worker's life: receiving (blocked in read of /dev/fuse) <-> serving -> gone.
 * All signals of interest are blocked in all threads; main takes them with sigwait. To end, main
 * marks the session exited and pokes each worker that is receiving with SIGUSR1, whose handler does
 * nothing but end the read. A poke may fall just before the read begins and be lost, so main pokes
 * until the thread is gone. A worker that finds the session over tells main with SIGUSR2.
 */
#include "fuse/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuse/kernel_io.h"
#include "fuse/log_sink.h"

#define STACK_BYTES (512u << 10)

struct worker {
	pthread_t thread;
	struct workers *all;
	struct mls_request_buf buf;
	atomic_bool receiving, gone;
};

struct workers {
	struct fuse_session *session;
	pthread_t main;
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

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (!fuse_session_exited(w->all->session)) {
		atomic_store(&w->receiving, true);
		mls_kernel_io_serve_one(w->all->session, &w->buf);
		atomic_store(&w->receiving, false);
	}
	atomic_store(&w->gone, true);
	pthread_kill(w->all->main, SIGUSR2);
	return NULL;
}

static int worker_start(struct workers *all, struct worker *w)
{
	pthread_attr_t attr;
	int failed;

	w->all = all;
	if (mls_request_buf_init(&w->buf))
		return -1;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	failed = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_attr_destroy(&attr);
	if (failed)
		mls_request_buf_release(&w->buf);
	return failed ? -1 : 0;
}

static void workers_end(struct workers *all)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	fuse_session_exit(all->session);
	for (unsigned i = 0; i < all->nr; i++) {
		struct worker *w = &all->worker[i];

		while (!atomic_load(&w->gone)) {
			if (atomic_load(&w->receiving))
				pthread_kill(w->thread, SIGUSR1);
			nanosleep(&pause, NULL);
		}
		pthread_join(w->thread, NULL);
		mls_request_buf_release(&w->buf);
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
	while (all->nr < nr_workers && !worker_start(all, &all->worker[all->nr]))
		all->nr++;
	if (all->nr > 0)
		reason = wait_for_end(all);
	workers_end(all);
out:
	if (reason < 0)
		mls_say(MLS_LOG_ERROR, "can't start threads: out of memory");
	free(all);
	return reason;
}
