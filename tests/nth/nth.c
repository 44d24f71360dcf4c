/* SPDX-License-Identifier: MPL-2.0 */
/* nth.c - see nth.h. */
#include "tests/nth/nth.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "0-bio/block_dev.h"
#include "base/rand.h"

const char *const nth_kind_name[NR_NTH_KINDS] = { "read",  "write",  "flush", "memory",
						  "store", "random", "thread" };

/* ---- The switch ---- */

static struct {
	_Atomic int kind;		/* -1: none */
	_Atomic uint64_t count;
	uint64_t fail_at;
	bool sticky;
	_Atomic bool fired;
} armed = { .kind = -1 };

void nth_arm(enum nth_kind kind, uint64_t n, bool sticky)
{
	armed.fail_at = n;
	armed.sticky = sticky;
	atomic_store(&armed.count, 0);
	atomic_store(&armed.fired, false);
	atomic_store(&armed.kind, (int)kind);
}

void nth_disarm(void)
{
	atomic_store(&armed.kind, -1);
}

bool nth_fired(void)
{
	return atomic_load(&armed.fired);
}

bool nth_due(enum nth_kind kind)
{
	uint64_t n;

	if (atomic_load(&armed.kind) != (int)kind)
		return false;
	n = atomic_fetch_add(&armed.count, 1) + 1;
	if (n != armed.fail_at && !(armed.sticky && n > armed.fail_at))
		return false;
	atomic_store(&armed.fired, true);
	return true;
}

/* ---- Memory ---- */

static _Atomic int64_t live;

int64_t nth_live_allocations(void)
{
	return atomic_load(&live);
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t nr, size_t bytes);
void *__wrap_calloc(size_t nr, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);
void __real_free(void *p);
void __wrap_free(void *p);

static void *counted(void *p)
{
	if (p)
		atomic_fetch_add(&live, 1);
	else
		errno = ENOMEM;
	return p;
}

void *__wrap_malloc(size_t bytes)
{
	return counted(nth_due(NTH_MEMORY) ? NULL : __real_malloc(bytes));
}

void *__wrap_calloc(size_t nr, size_t bytes)
{
	return counted(nth_due(NTH_MEMORY) ? NULL : __real_calloc(nr, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
	void *p = nth_due(NTH_MEMORY) ? NULL : __real_realloc(old, bytes);

	return old ? p : counted(p);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
	return counted(nth_due(NTH_MEMORY) ? NULL : __real_aligned_alloc(alignment, bytes));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
	int err = nth_due(NTH_MEMORY) ? ENOMEM : __real_posix_memalign(out, alignment, bytes);

	if (!err)
		atomic_fetch_add(&live, 1);
	return err;
}

void __wrap_free(void *p)
{
	if (p)
		atomic_fetch_sub(&live, 1);
	__real_free(p);
}

/* ---- Threads ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	return nth_due(NTH_THREAD) ? EAGAIN : __real_pthread_create(thread, attr, start, arg);
}

/* ---- Random source ---- */

static int random_bytes(void *arg, void *out, size_t bytes)
{
	(void)arg;
	if (nth_due(NTH_RANDOM))
		return MLS_EIO;
	for (uint8_t *p = out; bytes > 0; p += 256) {	/* up to 256 bytes come as a whole */
		size_t piece = bytes < 256 ? bytes : 256;

		if (getrandom(p, piece, 0) != (ssize_t)piece)
			abort();
		bytes -= piece;
	}
	return 0;
}

void nth_watch_random(void)
{
	mls_rand_set_source(random_bytes, NULL);
}

/* ---- Device ---- */

struct nth_dev {
	struct mls_block_dev base;
	struct mls_block_dev *inner;
};

static int dev_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct nth_dev *d = (struct nth_dev *)dev;
	int err = 0;

	for (unsigned i = 0; i < nr; i++) {
		if (nth_due(NTH_READ)) {
			memset(ios[i].data, 0x5a, (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES);
			ios[i].err = MLS_EIO;
		} else {
			ios[i].err = mls_block_dev_read(d->inner, ios[i].hba, ios[i].nr_blocks, ios[i].data);
		}
		err = err ? err : ios[i].err;
	}
	return err;
}

/* Half of the bytes: whole blocks, and then half of one. */
static void write_half(struct nth_dev *d, const struct mls_io *io)
{
	uint32_t whole = io->nr_blocks / 2;
	static _Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];
	const uint8_t *data = io->data;

	if (whole && mls_block_dev_write(d->inner, io->hba, whole, io->data))
		abort();
	if (mls_block_dev_read(d->inner, io->hba + whole, 1, block))
		abort();
	memcpy(block, data + (size_t)whole * MLS_BLOCK_BYTES, MLS_BLOCK_BYTES / 2);
	if (mls_block_dev_write(d->inner, io->hba + whole, 1, block))
		abort();
}

static int dev_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct nth_dev *d = (struct nth_dev *)dev;
	int err = 0;

	for (unsigned i = 0; i < nr; i++) {
		if (nth_due(NTH_WRITE)) {
			pthread_mutex_lock(&lock);
			write_half(d, &ios[i]);
			pthread_mutex_unlock(&lock);
			ios[i].err = MLS_EIO;
		} else {
			ios[i].err = mls_block_dev_write(d->inner, ios[i].hba, ios[i].nr_blocks, ios[i].data);
		}
		err = err ? err : ios[i].err;
	}
	return err;
}

static int dev_flush(struct mls_block_dev *dev)
{
	struct nth_dev *d = (struct nth_dev *)dev;

	return nth_due(NTH_FLUSH) ? MLS_EIO : mls_block_dev_flush(d->inner);
}

static void dev_destroy(struct mls_block_dev *dev)
{
	free(dev);
}

struct mls_block_dev *nth_dev_new(struct mls_block_dev *inner)
{
	static const struct mls_block_dev_ops ops = { .read = dev_read, .write = dev_write, .flush = dev_flush,
						      .destroy = dev_destroy };
	struct nth_dev *d = calloc(1, sizeof *d);

	if (!d)
		return NULL;
	d->base.ops = &ops;
	d->base.nr_blocks = inner->nr_blocks;
	d->inner = inner;
	return &d->base;
}

/* ---- Store ---- */

static struct {
	struct mls_trusted_store base;
	struct mls_trusted_store *inner;
	bool keeps;
} the_store;

static int store_read(struct mls_trusted_store *store, struct mls_trust *trust)
{
	(void)store;
	return nth_due(NTH_STORE) ? MLS_EIO : the_store.inner->ops->read(the_store.inner, trust);
}

static int store_advance(struct mls_trusted_store *store, const struct mls_trust *trust)
{
	int err;

	(void)store;
	if (!nth_due(NTH_STORE))
		return the_store.inner->ops->advance(the_store.inner, trust);
	if (the_store.keeps) {
		err = the_store.inner->ops->advance(the_store.inner, trust);
		if (err)
			return err;
	}
	return MLS_EIO;
}

static void store_destroy(struct mls_trusted_store *store)
{
	(void)store;
}

struct mls_trusted_store *nth_store_new(struct mls_trusted_store *inner)
{
	static const struct mls_trusted_store_ops ops = { .read = store_read, .advance = store_advance,
							  .destroy = store_destroy };

	the_store.base.ops = &ops;
	the_store.inner = inner;
	return &the_store.base;
}

void nth_store_keeps(bool keeps)
{
	the_store.keeps = keeps;
}
