/* SPDX-License-Identifier: MPL-2.0 */
/*
 * sync_queue.c - syncs of image.raw, limited; see sync_queue.h.
 *
 * A fsync storm (many threads, or a database on top) would put every worker to sleep inside
 * mls_disk_sync, and reads and writes would wait for nothing. So a worker that finds enough others
 * there leaves its request behind and goes on.
 *
 * Invariant: waiting is only non-empty while somebody is in here, and the last to leave finds it
 * empty.
 */
#include "fuse/sync_queue.h"

#include <stdlib.h>

#include "fuse/fuse_errno.h"

#define SYNC_LIST_ROOM 1024u /* grows beyond, but 1024 threads in fsync are rare */

int mls_sync_queue_init(struct mls_sync_queue *queue, struct mls_disk *disk)
{
	*queue = (struct mls_sync_queue){.disk = disk};
	queue->waiting.waiters = calloc(SYNC_LIST_ROOM, sizeof *queue->waiting.waiters);
	queue->served.waiters = calloc(SYNC_LIST_ROOM, sizeof *queue->served.waiters);
	if (!queue->waiting.waiters || !queue->served.waiters) {
		free(queue->waiting.waiters);
		free(queue->served.waiters);
		return MLS_ENOMEM;
	}
	queue->waiting.room = queue->served.room = SYNC_LIST_ROOM;
	pthread_mutex_init(&queue->lock, NULL);
	return MLS_OK;
}

void mls_sync_queue_release(struct mls_sync_queue *queue)
{
	pthread_mutex_destroy(&queue->lock);
	free(queue->waiting.waiters);
	free(queue->served.waiters);
}

void mls_sync_queue_note_change(struct mls_sync_queue *queue)
{
	atomic_fetch_add(&queue->written, 1);
}

static bool list_add(struct mls_sync_list *list, struct mls_sync_waiter waiter)
{
	if (list->nr == list->room) {
		struct mls_sync_waiter *more = reallocarray(list->waiters, list->room * 2, sizeof *more);

		if (!more)
			return false;
		list->waiters = more;
		list->room *= 2;
	}
	list->waiters[list->nr++] = waiter;
	return true;
}

static void answer(struct mls_sync_waiter waiter, int err)
{
	if (!err && waiter.written_bytes)
		fuse_reply_write(waiter.req, waiter.written_bytes);
	else
		fuse_reply_err(waiter.req, mls_errno(err));
}

static int sync_now(struct mls_sync_queue *queue)
{
	uint64_t covered = atomic_load(&queue->written); /* before: what returned until here */
	int err = mls_disk_sync(queue->disk);

	if (!err) {
		uint64_t seen = atomic_load(&queue->synced);

		while (seen < covered && !atomic_compare_exchange_weak(&queue->synced, &seen, covered))
			;
	}
	return err;
}

/* Take all that wait, if nobody else drains; false, and this worker has left, if there is nothing to do. */
static bool take_waiting(struct mls_sync_queue *queue)
{
	struct mls_sync_list empty;
	bool any;

	pthread_mutex_lock(&queue->lock);
	any = queue->waiting.nr > 0 && !queue->draining;
	if (any) {
		empty = queue->served;
		empty.nr = 0;
		queue->served = queue->waiting;
		queue->waiting = empty;
		queue->draining = true;
	} else {
		queue->nr_syncing--;
	}
	pthread_mutex_unlock(&queue->lock);
	return any;
}

static void drain(struct mls_sync_queue *queue)
{
	while (take_waiting(queue)) {
		int err = sync_now(queue);

		for (size_t i = 0; i < queue->served.nr; i++)
			answer(queue->served.waiters[i], err);
		pthread_mutex_lock(&queue->lock);
		queue->draining = false;
		pthread_mutex_unlock(&queue->lock);
	}
}

static void sync_for(struct mls_sync_queue *queue, struct mls_sync_waiter waiter)
{
	bool queued;

	pthread_mutex_lock(&queue->lock);
	/* If there is no memory for the list, this worker waits as well. */
	queued = queue->nr_syncing >= MLS_SYNCERS_MAX && list_add(&queue->waiting, waiter);
	if (!queued)
		queue->nr_syncing++;
	pthread_mutex_unlock(&queue->lock);
	if (queued)
		return;
	answer(waiter, sync_now(queue));
	drain(queue);
}

void mls_sync_queue_sync(struct mls_sync_queue *queue, fuse_req_t req)
{
	sync_for(queue, (struct mls_sync_waiter){.req = req});
}

void mls_sync_queue_sync_write(struct mls_sync_queue *queue, fuse_req_t req, size_t written_bytes)
{
	sync_for(queue, (struct mls_sync_waiter){.req = req, .written_bytes = written_bytes});
}

void mls_sync_queue_sync_if_changed(struct mls_sync_queue *queue, fuse_req_t req)
{
	if (atomic_load(&queue->written) == atomic_load(&queue->synced))
		fuse_reply_err(req, 0);
	else
		mls_sync_queue_sync(queue, req);
}
