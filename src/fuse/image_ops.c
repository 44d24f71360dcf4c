/* SPDX-License-Identifier: MPL-2.0 */
/*
 * image_ops.c - the file system of one file; see image_ops.h.
 *
 * What people and the loop driver expect of image.raw is what they expect of a disk: its size is
 * fixed, a write past its end finds no space, PUNCH_HOLE and ZERO_RANGE give zeros, and each fsync
 * is a real sync. Answering FSYNC with ENOSYS once would make the kernel report success for ever.
 *
 * Every open gets FOPEN_DIRECT_IO (no page cache between reader and engine) and
 * FOPEN_PARALLEL_DIRECT_WRITES (the engine orders writers of one block itself).
 *
 * Invariant: a change is noted in the sync queue after the engine has taken it and before it is
 * answered; so a close or fsync that follows the answer always covers it.
 */
#include "fuse/image_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "fuse/fuse_errno.h"
#include "fuse/kernel_io.h"
#include "fuse/log_sink.h"

#define IMAGE_INO 2u
#define NS_PER_S 1000000000
#define CACHE_SECONDS 86400.0 /* names and sizes never change; the kernel itself drops times */

enum { HANDLE_READS = 0, HANDLE_WRITES = 1 }; /* fi->fh */

static struct mls_image *image_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static struct timespec timespec_of_ns(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

int mls_image_init(struct mls_image *image, struct mls_disk *disk, bool read_only)
{
	struct mls_disk_stat stat;
	int64_t now = now_ns(CLOCK_REALTIME);

	mls_disk_stat(disk, &stat);
	*image = (struct mls_image){
		.disk = disk,
		.size_bytes = stat.disk_bytes,
		.read_only = read_only,
		.uid = getuid(),
		.gid = getgid(),
		.born_ns = now,
		.accessed_ns = now,
		.modified_ns = now,
	};
	return mls_sync_queue_init(&image->syncs, disk);
}

void mls_image_release(struct mls_image *image)
{
	mls_sync_queue_release(&image->syncs);
}

static void note_change(struct mls_image *image)
{
	atomic_store(&image->modified_ns, now_ns(CLOCK_REALTIME_COARSE));
	mls_sync_queue_note_change(&image->syncs);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- What is there ------------------------------------------------------------------------- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = MLS_FUSE_MAX_IO_BYTES;
	conn->max_read = MLS_FUSE_MAX_IO_BYTES;
	conn->max_background = 128;
	conn->congestion_threshold = 96;
	/* Data is sealed from, and opened into, the request's own memory: pipes would copy twice. */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_WRITEBACK_CACHE);
	conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
}

static void directory_stat(const struct mls_image *image, struct stat *st)
{
	*st = (struct stat){
		.st_ino = FUSE_ROOT_ID,
		.st_mode = S_IFDIR | 0555,
		.st_nlink = 2,
		.st_uid = image->uid,
		.st_gid = image->gid,
		.st_blksize = MLS_BLOCK_BYTES,
	};
	st->st_atim = st->st_mtim = st->st_ctim = timespec_of_ns(image->born_ns);
}

static void image_stat(struct mls_image *image, struct stat *st)
{
	struct mls_disk_stat disk;

	mls_disk_stat(image->disk, &disk);
	*st = (struct stat){
		.st_ino = IMAGE_INO,
		.st_mode = S_IFREG | (image->read_only ? 0400 : 0600),
		.st_nlink = 1,
		.st_uid = image->uid,
		.st_gid = image->gid,
		.st_size = (off_t)image->size_bytes,
		.st_blksize = MLS_BLOCK_BYTES,
		.st_blocks = (blkcnt_t)(min_u64(disk.live_blocks * MLS_BLOCK_BYTES, image->size_bytes) / 512),
	};
	st->st_atim = timespec_of_ns(atomic_load(&image->accessed_ns));
	st->st_mtim = st->st_ctim = timespec_of_ns(atomic_load(&image->modified_ns));
}

static void stat_of(struct mls_image *image, fuse_ino_t ino, struct stat *st)
{
	if (ino == FUSE_ROOT_ID)
		directory_stat(image, st);
	else
		image_stat(image, st);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {
		.ino = IMAGE_INO,
		.attr_timeout = CACHE_SECONDS,
		.entry_timeout = CACHE_SECONDS,
	};

	if (parent != FUSE_ROOT_ID || strcmp(name, MLS_IMAGE_NAME) != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	image_stat(image_of(req), &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	stat_of(image_of(req), ino, &st);
	fuse_reply_attr(req, &st, CACHE_SECONDS);
}

static int64_t time_to_set(const struct timespec *given, bool now)
{
	return now ? now_ns(CLOCK_REALTIME) : (int64_t)given->tv_sec * NS_PER_S + given->tv_nsec;
}

static void set_times(struct mls_image *image, const struct stat *attr, int to_set)
{
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
		atomic_store(&image->accessed_ns,
			     time_to_set(&attr->st_atim, to_set & FUSE_SET_ATTR_ATIME_NOW));
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		atomic_store(&image->modified_ns,
			     time_to_set(&attr->st_mtim, to_set & FUSE_SET_ATTR_MTIME_NOW));
}

/* Larger only; the same size has the disk look whether BACKING has grown. Returns an errno. */
static int set_size(struct mls_image *image, off_t from, off_t to)
{
	struct mls_disk_stat disk;
	int err;

	if (to == from && image->read_only)
		return 0;
	if (to < from || image->read_only) {
		mls_say(MLS_LOG_WARNING,
			MLS_IMAGE_NAME " keeps its size of %lld bytes: a change to %lld was refused, it can only grow "
				       "(when writing over it, don't truncate: dd conv=notrunc)",
			(long long)from, (long long)to);
		return image->read_only ? EROFS : EPERM;
	}
	if (to % MLS_BLOCK_BYTES) {
		mls_say(MLS_LOG_WARNING, MLS_IMAGE_NAME " has whole blocks of %u bytes: a size of %lld was refused",
			MLS_BLOCK_BYTES, (long long)to);
		return EINVAL;
	}
	err = mls_disk_resize(image->disk, (uint64_t)to);
	if (err)
		return mls_errno(err);
	mls_disk_stat(image->disk, &disk);
	atomic_store(&image->size_bytes, disk.disk_bytes);
	return 0;
}

/* touch and cp may set times, truncate may make it larger; mode and owner stay what they are. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);
	struct stat st;

	(void)fi;
	stat_of(image, ino, &st);
	if (to_set & FUSE_SET_ATTR_SIZE) {
		int error = set_size(image, st.st_size, attr->st_size);

		if (error) {
			fuse_reply_err(req, error);
			return;
		}
	}
	if (((to_set & FUSE_SET_ATTR_MODE) && (attr->st_mode & 07777) != (st.st_mode & 07777)) ||
	    ((to_set & FUSE_SET_ATTR_UID) && attr->st_uid != st.st_uid) ||
	    ((to_set & FUSE_SET_ATTR_GID) && attr->st_gid != st.st_gid)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (ino == IMAGE_INO)
		set_times(image, attr, to_set);
	stat_of(image, ino, &st);
	fuse_reply_attr(req, &st, CACHE_SECONDS);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	static const struct {
		const char *name;
		struct stat st;
	} entries[] = {
		{".", {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR}},
		{"..", {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR}},
		{MLS_IMAGE_NAME, {.st_ino = IMAGE_INO, .st_mode = S_IFREG}},
	};
	char reply[256];
	size_t used = 0, room = size < sizeof reply ? size : sizeof reply;

	(void)fi;
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = offset < 0 ? 0 : (size_t)offset; i < sizeof entries / sizeof entries[0]; i++) {
		size_t bytes = fuse_add_direntry(req, reply + used, room - used, entries[i].name,
						 &entries[i].st, (off_t)i + 1);

		if (bytes > room - used)
			break;
		used += bytes;
	}
	fuse_reply_buf(req, reply, used);
}

/* Free space is that of the pool below, which metadata shares: an estimate, like on any file system. */
static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct mls_disk_stat disk;
	struct statvfs st = {
		.f_bsize = MLS_BLOCK_BYTES, .f_frsize = MLS_BLOCK_BYTES, .f_files = 1, .f_namemax = 255};

	(void)ino;
	mls_disk_stat(image_of(req)->disk, &disk);
	st.f_blocks = disk.nr_runs * disk.run_blocks;
	st.f_bfree = disk.nr_free_runs * disk.run_blocks;
	st.f_bavail = disk.nr_room_runs * disk.run_blocks;
	fuse_reply_statfs(req, &st);
}

/* ---- Names: there is one, and it stays ----------------------------------------------------- */

static void refuse_name_change(fuse_req_t req)
{
	fuse_reply_err(req, image_of(req)->read_only ? EROFS : EPERM);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent, (void)name, (void)mode, (void)rdev;
	refuse_name_change(req);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)name, (void)mode;
	refuse_name_change(req);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	refuse_name_change(req);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link, (void)parent, (void)name;
	refuse_name_change(req);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned flags)
{
	(void)parent, (void)name, (void)new_parent, (void)new_name, (void)flags;
	refuse_name_change(req);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	(void)ino, (void)new_parent, (void)new_name;
	refuse_name_change(req);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	refuse_name_change(req);
}

/* ---- image.raw ----------------------------------------------------------------------------- */

/* libfuse 3.14 can't ask for parallel direct writes, so the answer is put together here. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct fuse_open_out out = {
		.fh = writes ? HANDLE_WRITES : HANDLE_READS,
		.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | (writes ? 0 : FOPEN_NOFLUSH),
	};

	(void)ino;
	if (writes && image_of(req)->read_only)
		fuse_reply_err(req, EROFS);
	else
		fuse_reply_buf(req, (const char *)&out, sizeof out);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);
	void *data = mls_kernel_io_data();
	uint64_t at = (uint64_t)offset;
	size_t bytes;
	int err;

	(void)ino, (void)fi;
	if (offset < 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (at >= image->size_bytes) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	bytes = (size_t)min_u64(min_u64(size, MLS_FUSE_MAX_IO_BYTES), image->size_bytes - at);
	err = mls_disk_read(image->disk, at, data, bytes);
	if (err)
		fuse_reply_err(req, mls_errno(err));
	else
		fuse_reply_buf(req, data, bytes);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);
	uint64_t at = (uint64_t)offset;
	size_t bytes;
	int err;

	(void)ino;
	if (offset < 0 || at >= image->size_bytes) {
		fuse_reply_err(req, offset < 0 ? EINVAL : ENOSPC);
		return;
	}
	bytes = (size_t)min_u64(size, image->size_bytes - at);
	err = mls_disk_write(image->disk, at, data, bytes);
	if (err) {
		fuse_reply_err(req, mls_errno(err));
		return;
	}
	note_change(image);
	/* For a direct write the kernel leaves O_DSYNC and RWF_DSYNC to us: no FSYNC follows. */
	if (fi->flags & (O_DSYNC | O_SYNC))
		mls_sync_queue_sync_write(&image->syncs, req, bytes);
	else
		fuse_reply_write(req, bytes);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);

	(void)ino, (void)datasync, (void)fi;
	if (image->read_only)
		fuse_reply_err(req, 0);
	else
		mls_sync_queue_sync(&image->syncs, req);
}

/* close(2) waits for FLUSH, so a disk image written by cp or dd is safe when they return. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	if (fi->fh == HANDLE_WRITES)
		mls_sync_queue_sync_if_changed(&image_of(req)->syncs, req);
	else
		fuse_reply_err(req, 0);
}

/* The last reference; losetup -d comes only here, never through FLUSH. */
static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	op_flush(req, ino, fi);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	uint64_t at = (uint64_t)offset, bytes = (uint64_t)length;
	int err;

	(void)ino, (void)fi;
	if (what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (offset < 0 || length <= 0) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) && at + bytes > image->size_bytes) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (at >= image->size_bytes) {
		fuse_reply_err(req, 0);
		return;
	}
	err = mls_disk_discard(image->disk, at, min_u64(bytes, image->size_bytes - at));
	if (!err)
		note_change(image);
	fuse_reply_err(req, mls_errno(err));
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct mls_image *image = image_of(req);
	uint64_t found;
	int err;

	(void)ino, (void)fi;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (offset < 0 || (uint64_t)offset >= image->size_bytes) {
		fuse_reply_err(req, ENXIO);
		return;
	}
	err = mls_disk_seek(image->disk, (uint64_t)offset, whence == SEEK_DATA, &found);
	if (err)
		fuse_reply_err(req, err == MLS_ENOENT ? ENXIO : mls_errno(err));
	else
		fuse_reply_lseek(req, (off_t)found);
}

/* ---- Statistics, as an extended attribute ---------------------------------------------------- */

#define STATS_NAME "user.mlsdisk.stats"
#define STATS_SLACK 512u /* counters may have more digits when the value is fetched */

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	size_t bytes;
	char *json;
	int err;

	if (ino != IMAGE_INO || strcmp(name, STATS_NAME) != 0) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	err = mls_disk_stats_json(image_of(req)->disk, &json, &bytes);
	if (err) {
		fuse_reply_err(req, mls_errno(err));
		return;
	}
	if (size == 0)
		fuse_reply_xattr(req, bytes + STATS_SLACK);
	else if (size < bytes)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, json, bytes);
	free(json);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	size_t bytes = ino == IMAGE_INO ? sizeof STATS_NAME : 0;

	if (size == 0)
		fuse_reply_xattr(req, bytes);
	else if (size < bytes)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, STATS_NAME, bytes);
}

const struct fuse_lowlevel_ops mls_image_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readdir = op_readdir,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_remove,
	.rmdir = op_remove,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
};
