/* SPDX-License-Identifier: MPL-2.0 */
/* nth.c - see nth.h. */
#include "tests/nth/nth.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "0-bio/block_dev.h"
#include "base/rand.h"

const char *const nth_kind_name[NR_NTH_KINDS] = { "read",  "write",  "flush",  "memory", "crypto",
						  "store", "random", "thread", "system" };

/* ---- The switch ---- */

static struct {
	_Atomic int kind;		/* -1: none */
	_Atomic uint64_t count;
	uint64_t fail_at;
	bool sticky;
	_Atomic bool fired;
	_Atomic bool flush_failed;
	_Atomic uint64_t late_writes;
} armed = { .kind = -1 };

void nth_arm(enum nth_kind kind, uint64_t n, bool sticky)
{
	armed.fail_at = n;
	armed.sticky = sticky;
	atomic_store(&armed.count, 0);
	atomic_store(&armed.fired, false);
	atomic_store(&armed.flush_failed, false);
	atomic_store(&armed.late_writes, 0);
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

uint64_t nth_writes_after_failed_flush(void)
{
	return atomic_load(&armed.late_writes);
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

static _Atomic int64_t live, live_crypto;

static unsigned nr_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned nr = 0;

	if (!dir)
		abort();
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

struct nth_resources nth_resources(void)
{
	return (struct nth_resources){ .allocations = atomic_load(&live), .crypto = atomic_load(&live_crypto),
				       .fds = nr_entries("/proc/self/fd"), .threads = nr_entries("/proc/self/task") };
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

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __wrap_munmap(void *at, size_t bytes);
FILE *__real_open_memstream(char **text, size_t *bytes);
FILE *__wrap_open_memstream(char **text, size_t *bytes);

char *__wrap_strdup(const char *text)
{
	return counted(nth_due(NTH_MEMORY) ? NULL : __real_strdup(text));
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	void *p = nth_due(NTH_MEMORY) ? MAP_FAILED : __real_mmap(at, bytes, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		errno = ENOMEM;
	else
		atomic_fetch_add(&live, 1);
	return p;
}

int __wrap_munmap(void *at, size_t bytes)
{
	atomic_fetch_sub(&live, 1);
	return __real_munmap(at, bytes);
}

/* The text is libc's own allocation, but whoever gets it frees it. */
FILE *__wrap_open_memstream(char **text, size_t *bytes)
{
	FILE *file = nth_due(NTH_MEMORY) ? NULL : __real_open_memstream(text, bytes);

	return counted(file);
}

/* ---- OpenSSL's memory ---- */

static void *crypto_malloc(size_t bytes, const char *file, int line)
{
	void *p = nth_due(NTH_CRYPTO) ? NULL : __real_malloc(bytes);

	(void)file;
	(void)line;
	if (p)
		atomic_fetch_add(&live_crypto, 1);
	return p;
}

static void crypto_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	if (p)
		atomic_fetch_sub(&live_crypto, 1);
	__real_free(p);
}

static void *crypto_realloc(void *old, size_t bytes, const char *file, int line)
{
	void *p;

	if (old && bytes == 0) {
		crypto_free(old, file, line);
		return NULL;
	}
	p = nth_due(NTH_CRYPTO) ? NULL : __real_realloc(old, bytes);
	if (p && !old)
		atomic_fetch_add(&live_crypto, 1);
	return p;
}

void nth_watch_crypto(void)
{
	if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1)
		abort();
}

/* ---- Threads ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	return nth_due(NTH_THREAD) ? EAGAIN : __real_pthread_create(thread, attr, start, arg);
}

/* ---- System calls ---- */

#define SYSTEM_FAILS(err) (nth_due(NTH_SYSTEM) ? (errno = (err), true) : false)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __real_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at);
ssize_t __real_pwrite(int fd, const void *from, size_t bytes, off_t at);
ssize_t __wrap_pwrite(int fd, const void *from, size_t bytes, off_t at);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
int __real_ftruncate(int fd, off_t bytes);
int __wrap_ftruncate(int fd, off_t bytes);
int __real_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr);

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, int) : 0;
	va_end(args);
	return SYSTEM_FAILS(EIO) ? -1 : __real_open(path, flags, mode);
}

ssize_t __wrap_pread(int fd, void *to, size_t bytes, off_t at)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_pread(fd, to, bytes, at);
}

/* Half of it: torn. */
ssize_t __wrap_pwrite(int fd, const void *from, size_t bytes, off_t at)
{
	if (!nth_due(NTH_SYSTEM))
		return __real_pwrite(fd, from, bytes, at);
	if (__real_pwrite(fd, from, bytes / 2 & ~(size_t)511, at) < 0)
		abort();
	errno = EIO;
	return -1;
}

int __wrap_fsync(int fd)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_fdatasync(fd);
}

int __wrap_fstat(int fd, struct stat *st)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_fstat(fd, st);
}

int __wrap_flock(int fd, int how)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_flock(fd, how);
}

int __wrap_ftruncate(int fd, off_t bytes)
{
	return SYSTEM_FAILS(EIO) ? -1 : __real_ftruncate(fd, bytes);
}

int __wrap_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
	return nth_due(NTH_SYSTEM) ? -ENOMEM : __real_io_uring_queue_init_params(entries, ring, params);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr)
{
	return nth_due(NTH_SYSTEM) ? -EIO : __real_io_uring_submit_and_wait(ring, nr);
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

/* Half of the bytes: whole blocks, and then half of one. The other half stays as it is, so nobody may write it between: a
 * device doesn't put back what it held before. */
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
	static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
	struct nth_dev *d = (struct nth_dev *)dev;
	int err = 0;

	if (atomic_load(&armed.flush_failed))
		atomic_fetch_add(&armed.late_writes, nr);
	for (unsigned i = 0; i < nr; i++) {
		if (nth_due(NTH_WRITE)) {
			pthread_rwlock_wrlock(&lock);
			write_half(d, &ios[i]);
			ios[i].err = MLS_EIO;
		} else {
			pthread_rwlock_rdlock(&lock);
			ios[i].err = mls_block_dev_write(d->inner, ios[i].hba, ios[i].nr_blocks, ios[i].data);
		}
		pthread_rwlock_unlock(&lock);
		err = err ? err : ios[i].err;
	}
	return err;
}

static int dev_flush(struct mls_block_dev *dev)
{
	struct nth_dev *d = (struct nth_dev *)dev;

	if (nth_due(NTH_FLUSH)) {
		atomic_store(&armed.flush_failed, true);
		return MLS_EIO;
	}
	return mls_block_dev_flush(d->inner);
}

static int dev_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	*nr_blocks = dev->nr_blocks = ((struct nth_dev *)dev)->inner->nr_blocks;
	return 0;
}

static void dev_destroy(struct mls_block_dev *dev)
{
	free(dev);
}

struct mls_block_dev *nth_dev_new(struct mls_block_dev *inner)
{
	static const struct mls_block_dev_ops ops = { .read = dev_read, .write = dev_write, .flush = dev_flush,
						      .destroy = dev_destroy, .measure = dev_measure };
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
