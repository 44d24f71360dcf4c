/* SPDX-License-Identifier: MPL-2.0 */
/*
 * block_dev_uring.c - a regular file or block device of the host.
 *
 * A call with one transfer is a pread or pwrite; one with several goes through an io_uring and waits for
 * all of them. Measured on 4 KiB random O_DIRECT reads of a file (virtio disk, Linux 6.18): one at a time
 * pread takes 67 to 98 us and a ring 5 to 15 % more (also in CPU time); sixteen at a time take 80 to 100 us
 * each with pread and 12 to 15 us, at a tenth of the CPU time, with the ring.
 *
 * Each thread has its own ring, for all devices: a call leaves it empty, so it belongs to nobody between
 * calls, needs no lock, no thread is woken to hand a result over, and destroying a device has nothing to
 * wait for. It is freed when its thread ends, and not used again in a forked child (it isn't mapped there).
 *
 * The ring does the first try of a transfer. What it leaves (a short transfer, EINTR, EAGAIN) and whatever
 * it can't take (no io_uring in this container, longer than IO_BYTES_MAX) is done by the plain calls: there
 * is one place that finishes a transfer, finish_io.
 *
 * A failed flush is for ever: Linux reports a lost page once and then says all is well.
 */
#include "config.h"

#include "0-bio/block_dev.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#define RING_ENTRIES 64u
#define IO_BYTES_MAX ((size_t)1 << 30)	/* one system call; Linux takes no more than 2 GiB - 4 KiB */
#define NR_STALLS_MAX 1000u		/* tries of 1 ms each without progress */
#define NR_LOCK_TRIES 10u		/* of 50 ms each, see open_locked */

struct uring_dev {
	struct mls_block_dev base;
	int fd;
	bool read_only, is_file;
	bool lacks_direct;		/* O_DIRECT was wanted, and is not to be had */
	char *path;
	_Atomic bool fsync_needed;	/* the file is new or grew: its size must become durable too */
	_Atomic bool flush_failed;
	_Atomic bool no_discard, no_reserve;
};

enum io_dir { IO_READ, IO_WRITE };

static const char *dir_name(enum io_dir dir)
{
	return dir == IO_READ ? "read" : "write";
}

static void sleep_ms(long ms)
{
	struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* ---- One transfer ---- */

static int io_failed(const struct uring_dev *d, const struct mls_io *io, enum io_dir dir, const char *why, int err)
{
	mls_error("bio: %s: %s of %u blocks at HBA %llu failed: %s", d->path, dir_name(dir), io->nr_blocks,
		  (unsigned long long)io->hba, why);
	return err;
}

/*
 * Do what is left of a transfer whose first `done` bytes are done.
 *
 * A rest that doesn't begin on a block boundary is begun a little earlier: O_DIRECT asks for it.
 */
static int finish_io(const struct uring_dev *d, const struct mls_io *io, enum io_dir dir, size_t done)
{
	size_t bytes = (size_t)io->nr_blocks * MLS_BLOCK_BYTES;
	unsigned nr_stalls = 0;

	while (done < bytes) {
		size_t from = done - done % MLS_BLOCK_BYTES;
		size_t nr = mls_min_u64(bytes - from, IO_BYTES_MAX);
		off_t offset = (off_t)(io->hba * MLS_BLOCK_BYTES + from);
		uint8_t *data = (uint8_t *)io->data + from;
		ssize_t n = dir == IO_READ ? pread(d->fd, data, nr, offset) : pwrite(d->fd, data, nr, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return io_failed(d, io, dir, strerror(errno), mls_err_from_errno(errno));
		if (n == 0)
			return io_failed(d, io, dir, dir == IO_READ ? "the file ends before" : "nothing written",
					 MLS_EIO);
		if (n > 0 && from + (size_t)n > done) {
			done = from + (size_t)n;
			nr_stalls = 0;
		} else if (++nr_stalls > NR_STALLS_MAX) {
			return io_failed(d, io, dir, "no progress", MLS_EIO);
		} else {
			sleep_ms(1);
		}
	}
	return 0;
}

/* ---- The thread's ring ---- */

struct thread_ring {
	struct io_uring ring;
	bool ready;
	bool refused;		/* don't ask again in this thread */
	pid_t pid;		/* of the process that made it */
};

static _Thread_local struct thread_ring thread_ring;
static pthread_key_t ring_key;		/* only for its destructor */
static pthread_once_t ring_key_once = PTHREAD_ONCE_INIT;
static atomic_bool ring_warned;

static void ring_exit(void *arg)
{
	struct thread_ring *t = arg;

	if (t->ready && t->pid == getpid())
		io_uring_queue_exit(&t->ring);
	else if (t->ready)
		close(t->ring.ring_fd);
	t->ready = false;
}

static void ring_key_make(void)
{
	MLS_INVARIANT(pthread_key_create(&ring_key, ring_exit) == 0);
}

/* NULL: this thread does without. */
static struct io_uring *ring_get(void)
{
	struct thread_ring *t = &thread_ring;
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	int err;

	if (t->ready && t->pid == getpid())
		return &t->ring;
	if (t->refused)
		return NULL;
	ring_exit(t);
	pthread_once(&ring_key_once, ring_key_make);
	err = io_uring_queue_init_params(RING_ENTRIES, &t->ring, &params);
	if (err == -EINVAL)		/* a kernel before 6.1 */
		err = io_uring_queue_init(RING_ENTRIES, &t->ring, 0);
	if (err) {
		t->refused = true;
		if (!atomic_exchange(&ring_warned, true))
			mls_warn("bio: no io_uring (%s): using pread and pwrite, which is slower", strerror(-err));
		return NULL;
	}
	io_uring_ring_dontfork(&t->ring);
	t->ready = true;
	t->pid = getpid();
	pthread_setspecific(ring_key, t);
	return &t->ring;
}

/*
 * Wait for the nr transfers prepared in the ring; results[i] gets the outcome of each. When the kernel
 * won't take them, those that it took are waited for (it writes to their buffers), and the ring is given up;
 * the others keep their result, -EAGAIN.
 */
static void ring_wait(struct io_uring *ring, unsigned nr, int results[])
{
	unsigned nr_done = 0;
	bool refused = false;

	while (nr_done + (refused ? io_uring_sq_ready(ring) : 0) < nr) {
		struct io_uring_cqe *cqe;
		int n = 0;

		if (io_uring_cq_ready(ring) == 0)
			n = refused ? io_uring_wait_cqe(ring, &cqe) : io_uring_submit_and_wait(ring, nr - nr_done);
		if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY) {
			MLS_INVARIANT(!refused);	/* waiting for what is in flight can't fail */
			refused = true;
		}
		while (io_uring_cq_ready(ring) > 0 && io_uring_peek_cqe(ring, &cqe) == 0) {
			results[io_uring_cqe_get_data64(cqe)] = cqe->res;
			io_uring_cqe_seen(ring, cqe);
			nr_done++;
		}
	}
	if (refused) {
		ring_exit(&thread_ring);
		thread_ring.refused = true;
		mls_warn("bio: io_uring stopped working: this thread goes on with pread and pwrite");
	}
}

/* Up to RING_ENTRIES transfers: one system call for all. */
static int batch_through_ring(const struct uring_dev *d, struct io_uring *ring, struct mls_io *ios, unsigned nr,
			      enum io_dir dir)
{
	int results[RING_ENTRIES], err = 0;

	for (unsigned i = 0; i < nr; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		size_t bytes = mls_min_u64((uint64_t)ios[i].nr_blocks * MLS_BLOCK_BYTES, IO_BYTES_MAX);
		uint64_t offset = ios[i].hba * MLS_BLOCK_BYTES;

		MLS_INVARIANT(sqe != NULL);		/* the ring was empty, and nr fits */
		if (dir == IO_READ)
			io_uring_prep_read(sqe, d->fd, ios[i].data, (unsigned)bytes, offset);
		else
			io_uring_prep_write(sqe, d->fd, ios[i].data, (unsigned)bytes, offset);
		io_uring_sqe_set_data64(sqe, i);
		results[i] = -EAGAIN;
	}
	ring_wait(ring, nr, results);
	for (unsigned i = 0; i < nr; i++) {
		int res = results[i];

		if (res < 0 && res != -EAGAIN && res != -EINTR)
			ios[i].err = io_failed(d, &ios[i], dir, strerror(-res), mls_err_from_errno(-res));
		else
			ios[i].err = finish_io(d, &ios[i], dir, res > 0 ? (size_t)res : 0);
		err = err ? err : ios[i].err;
	}
	return err;
}

static int transfer(const struct uring_dev *d, struct mls_io *ios, unsigned nr, enum io_dir dir)
{
	int err = 0, err_batch;

	while (nr) {
		struct io_uring *ring = nr > 1 ? ring_get() : NULL;
		unsigned batch = ring ? (unsigned)mls_min_u64(nr, RING_ENTRIES) : 1;

		if (ring)
			err_batch = batch_through_ring(d, ring, ios, batch, dir);
		else
			err_batch = ios->err = finish_io(d, ios, dir, 0);
		err = err ? err : err_batch;
		ios += batch;
		nr -= batch;
	}
	return err;
}

/* ---- The device ---- */

static int uring_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return transfer((struct uring_dev *)dev, ios, nr, IO_READ);
}

static int uring_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	struct uring_dev *d = (struct uring_dev *)dev;

	if (!d->read_only)
		return transfer(d, ios, nr, IO_WRITE);
	for (unsigned i = 0; i < nr; i++)
		ios[i].err = MLS_EROFS;
	return MLS_EROFS;
}

static int uring_flush(struct mls_block_dev *dev)
{
	struct uring_dev *d = (struct uring_dev *)dev;
	int n;

	if (atomic_load(&d->flush_failed))
		return MLS_EIO;
	do
		n = atomic_load(&d->fsync_needed) ? fsync(d->fd) : fdatasync(d->fd);
	while (n && errno == EINTR);
	if (n) {
		mls_error("bio: %s: flush failed: %s; what is on the medium is unknown", d->path, strerror(errno));
		atomic_store(&d->flush_failed, true);
		return MLS_EIO;
	}
	atomic_store(&d->fsync_needed, false);
	return 0;
}

static int uring_discard(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct uring_dev *d = (struct uring_dev *)dev;
	uint64_t range[2] = { hba * MLS_BLOCK_BYTES, nr_blocks * MLS_BLOCK_BYTES };
	int n;

	if (d->read_only)
		return MLS_EROFS;
	if (atomic_load(&d->no_discard))
		return 0;
	do
		n = d->is_file ? fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0],
					   (off_t)range[1])
			       : ioctl(d->fd, BLKDISCARD, range);
	while (n && errno == EINTR);
	if (n == 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENOTTY) {
		atomic_store(&d->no_discard, true);
		mls_debug("bio: %s: can't discard: space is kept", d->path);
		return 0;
	}
	mls_error("bio: %s: discard of %llu blocks at HBA %llu failed: %s", d->path,
		  (unsigned long long)nr_blocks, (unsigned long long)hba, strerror(errno));
	return mls_err_from_errno(errno);
}

/* Only a file can be asked; and it keeps its length: nothing here may make it longer. */
static int uring_reserve(struct mls_block_dev *dev, uint64_t hba, uint64_t nr_blocks)
{
	struct uring_dev *d = (struct uring_dev *)dev;
	int n;

	if (d->read_only)
		return MLS_EROFS;
	if (!d->is_file || atomic_load(&d->no_reserve))
		return 0;
	do
		n = fallocate(d->fd, FALLOC_FL_KEEP_SIZE, (off_t)(hba * MLS_BLOCK_BYTES),
			      (off_t)(nr_blocks * MLS_BLOCK_BYTES));
	while (n && errno == EINTR);
	if (n == 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS) {
		atomic_store(&d->no_reserve, true);
		mls_info("bio: %s: its file system can't reserve space: when it is full, syncs may fail", d->path);
		return 0;
	}
	if (errno == ENOSPC || errno == EDQUOT)		/* to be expected: the caller says what it means */
		return MLS_ENOSPC;
	mls_error("bio: %s: reserving %llu blocks at HBA %llu failed: %s", d->path,
		  (unsigned long long)nr_blocks, (unsigned long long)hba, strerror(errno));
	return mls_err_from_errno(errno);
}

/* One that has shrunk keeps its size here: what lies behind its end is lost, as its readers will see. */
static int uring_measure(struct mls_block_dev *dev, uint64_t *nr_blocks)
{
	struct uring_dev *d = (struct uring_dev *)dev;
	uint64_t bytes = 0;
	struct stat st;

	if (d->is_file ? fstat(d->fd, &st) : ioctl(d->fd, BLKGETSIZE64, &bytes)) {
		mls_error("bio: %s: asking for its size failed: %s", d->path, strerror(errno));
		return MLS_EIO;
	}
	if (d->is_file)
		bytes = (uint64_t)st.st_size;
	if (bytes / MLS_BLOCK_BYTES > dev->nr_blocks) {
		atomic_store(&d->fsync_needed, d->is_file);
		__atomic_store_n(&dev->nr_blocks, bytes / MLS_BLOCK_BYTES, __ATOMIC_RELAXED);
	}
	*nr_blocks = dev->nr_blocks;
	return 0;
}

static void uring_destroy(struct mls_block_dev *dev)
{
	struct uring_dev *d = (struct uring_dev *)dev;

	if (d->fd >= 0) {
		flock(d->fd, LOCK_UN);	/* close may leave it: the kernel's own thread may still have the file, for a moment */
		close(d->fd);
	}
	free(d->path);
	free(d);
}

static const struct mls_block_dev_ops uring_ops = {
	.read = uring_read,
	.write = uring_write,
	.flush = uring_flush,
	.discard = uring_discard,
	.destroy = uring_destroy,
	.measure = uring_measure,
	.reserve = uring_reserve,
};

/* ---- Open ---- */

static int open_failed(const char *path, const char *what, int errnum)
{
	mls_error("bio: %s: %s failed: %s", path, what, strerror(errnum));
	return errnum == EBUSY ? MLS_EBUSY : mls_err_from_errno(errnum);
}

/* Nothing but a file or a block device is opened: opening a FIFO waits, opening a tape rewinds. */
static int check_kind(const char *path, unsigned flags, bool *is_block)
{
	struct stat st;

	*is_block = false;
	if (stat(path, &st)) {
		if (errno == ENOENT && (flags & MLS_DEV_CREATE))
			return 0;
		return open_failed(path, "stat", errno);
	}
	*is_block = S_ISBLK(st.st_mode);
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return 0;
	mls_error("bio: %s: neither a regular file nor a block device", path);
	return MLS_EINVAL;
}

static int open_fd(struct uring_dev *d, unsigned flags, bool is_block)
{
	int mode = O_CLOEXEC | (d->read_only ? O_RDONLY : O_RDWR);
	bool direct = !(flags & MLS_DEV_NO_DIRECT);

	if ((flags & MLS_DEV_CREATE) && !is_block)
		mode |= O_CREAT;
	if (is_block && !d->read_only)
		mode |= O_EXCL;		/* keeps mounts and other holders of the device out */
	d->fd = open(d->path, direct ? mode | O_DIRECT : mode, 0600);
	d->lacks_direct = direct && d->fd < 0 && errno == EINVAL;
	if (d->lacks_direct)
		d->fd = open(d->path, mode, 0600);
	if (d->fd < 0)
		return errno == EBUSY ? MLS_EBUSY : open_failed(d->path, "open", errno);
	return 0;
}

static int take_lock(const struct uring_dev *d)
{
	int how = (d->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB;

	while (flock(d->fd, how)) {
		if (errno == EWOULDBLOCK)
			return MLS_EBUSY;
		if (errno != EINTR)
			return open_failed(d->path, "lock", errno);
	}
	return 0;
}

/* Who was ended by force, or has just closed it, may have it for a moment yet: the kernel's threads for io_uring let go of
 * files later. And udev locks a block device while it looks at it. */
static int open_locked(struct uring_dev *d, unsigned flags, bool is_block)
{
	for (unsigned i = 0;; i++) {
		int err = open_fd(d, flags, is_block);

		if (!err)
			err = take_lock(d);
		if (!err && d->lacks_direct)
			mls_info("bio: %s: no O_DIRECT here: going through the page cache", d->path);
		if (err != MLS_EBUSY)
			return err;
		if (i >= NR_LOCK_TRIES) {
			mls_error("bio: %s: in use by another process", d->path);
			return err;
		}
		if (d->fd >= 0)
			close(d->fd);
		d->fd = -1;
		sleep_ms(50);
	}
}

/* The name of a new file is durable only when its directory is. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd, n = -1;

	if (!copy)
		return MLS_ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		n = fsync(fd);
		close(fd);
	}
	free(copy);
	return n && errno != EINVAL ? open_failed(path, "fsync of its directory", errno) : 0;
}

static int find_size(struct uring_dev *d, unsigned flags, uint64_t size_bytes)
{
	struct stat st;
	uint64_t bytes;
	int err;

	if (fstat(d->fd, &st))
		return open_failed(d->path, "stat", errno);
	d->is_file = S_ISREG(st.st_mode);
	if (!d->is_file) {
		if (ioctl(d->fd, BLKGETSIZE64, &bytes))
			return open_failed(d->path, "BLKGETSIZE64", errno);
		d->base.nr_blocks = bytes / MLS_BLOCK_BYTES;
		return 0;
	}
	bytes = (uint64_t)st.st_size;
	if ((flags & MLS_DEV_CREATE) && bytes < size_bytes) {	/* never shorter than it is */
		if (ftruncate(d->fd, (off_t)size_bytes))
			return open_failed(d->path, "making it larger", errno);
		bytes = size_bytes;
		atomic_store(&d->fsync_needed, true);
		err = sync_directory(d->path);
		if (err)
			return err;
	}
	d->base.nr_blocks = bytes / MLS_BLOCK_BYTES;
	return 0;
}

int mls_block_dev_open(struct mls_block_dev **dev, const char *path, unsigned flags, uint64_t size_bytes)
{
	struct uring_dev *d;
	bool is_block;
	int err;

	if ((flags & MLS_DEV_CREATE) && (flags & MLS_DEV_READ_ONLY))
		return MLS_EINVAL;
	if (size_bytes > INT64_MAX - MLS_BLOCK_BYTES)
		return MLS_EINVAL;
	err = check_kind(path, flags, &is_block);
	if (err)
		return err;
	d = calloc(1, sizeof *d);
	if (!d)
		return MLS_ENOMEM;
	d->base.ops = &uring_ops;
	d->fd = -1;
	d->read_only = flags & MLS_DEV_READ_ONLY;
	d->path = strdup(path);
	err = d->path ? 0 : MLS_ENOMEM;
	if (!err)
		err = open_locked(d, flags, is_block);
	if (!err)
		err = find_size(d, flags, mls_div_round_up(size_bytes, MLS_BLOCK_BYTES) * MLS_BLOCK_BYTES);
	if (!err)
		atomic_store(&d->no_discard, !d->is_file && !(flags & MLS_DEV_DISCARD));
	if (err) {
		uring_destroy(&d->base);
		return err;
	}
	*dev = &d->base;
	return 0;
}
