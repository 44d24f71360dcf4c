/* SPDX-License-Identifier: MPL-2.0 */
/*
 * kernel_io.c - the conversation with /dev/fuse; see kernel_io.h.
 *
 * Why not libfuse's own loop: it makes and ends threads under load, reads into memory from malloc
 * (a WRITE's data then straddles pages), and can't set FUSE_DIRECT_IO_ALLOW_MMAP.
 *
 * image.raw is opened with FOPEN_DIRECT_IO by everybody, so that no page cache stands between a
 * reader and the engine and a read can't be stale. The kernel then allows MAP_SHARED only if the
 * INIT reply has FUSE_DIRECT_IO_ALLOW_MMAP (Linux 6.6); libfuse learnt that flag after 3.14.
 */
#include "fuse/kernel_io.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define WRITE_HEADER_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
/* One page whose end holds the header, the data, and the slack libfuse's buffer size has: in one huge page, since
 * the kernel looks up each page that it copies to, and our reading of them is spared as many entries of the TLB. */
#define MAP_BYTES ((size_t)2 << 20)
#define REQUEST_ROOM (WRITE_HEADER_BYTES + MLS_FUSE_MAX_IO_BYTES + PAGE_BYTES)
_Static_assert(PAGE_BYTES + MLS_FUSE_MAX_IO_BYTES + PAGE_BYTES <= MAP_BYTES, "a request fits into a huge page");

/* Bits 32 and up travel in flags2. Newer headers name it; the value is the kernel's ABI. */
#define INIT_FLAGS2_DIRECT_IO_ALLOW_MMAP (1u << (36 - 32))
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1u << 30)
#endif

static _Thread_local struct mls_request_buf *serving;
static bool handshaking;  /* main only, before the workers */
static bool mmap_offered; /* the kernel knows DIRECT_IO_ALLOW_MMAP */

int mls_request_buf_init(struct mls_request_buf *buf)
{
	if (posix_memalign(&buf->map, MAP_BYTES, MAP_BYTES)) {
		buf->map = NULL;
		return -1;
	}
	(void)madvise(buf->map, MAP_BYTES, MADV_HUGEPAGE);	/* only advice */
	memset(buf->map, 0, MAP_BYTES); /* have it now: later the kernel may be short of pages */
	buf->data = (uint8_t *)buf->map + PAGE_BYTES;
	buf->request = buf->data - WRITE_HEADER_BYTES;
	return 0;
}

void mls_request_buf_release(struct mls_request_buf *buf)
{
	free(buf->map);
	buf->map = NULL;
}

void *mls_kernel_io_data(void)
{
	return serving->data;
}

static void note_init_request(const uint8_t *request, size_t bytes)
{
	const struct fuse_in_header *header = (const void *)request;
	const struct fuse_init_in *init = (const void *)(header + 1);

	mmap_offered = bytes >= sizeof *header + sizeof *init && header->opcode == FUSE_INIT &&
		       (init->flags & FUSE_INIT_EXT) && (init->flags2 & INIT_FLAGS2_DIRECT_IO_ALLOW_MMAP);
}

static ssize_t kernel_read(int fd, void *buf, size_t room, void *userdata)
{
	ssize_t bytes = read(fd, buf, room < REQUEST_ROOM ? room : REQUEST_ROOM);

	(void)userdata;
	if (handshaking && bytes > 0)
		note_init_request(buf, (size_t)bytes);
	return bytes;
}

/* The INIT reply, with the flag added. */
static ssize_t write_init_reply(int fd, struct iovec *iov)
{
	struct fuse_init_out out;
	struct iovec patched[2] = {iov[0], {.iov_base = &out, .iov_len = sizeof out}};

	memcpy(&out, iov[1].iov_base, sizeof out);
	out.flags |= FUSE_INIT_EXT;
	out.flags2 |= INIT_FLAGS2_DIRECT_IO_ALLOW_MMAP;
	return writev(fd, patched, 2);
}

static ssize_t kernel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	(void)userdata;
	if (handshaking && mmap_offered && count == 2 && iov[1].iov_len == sizeof(struct fuse_init_out))
		return write_init_reply(fd, iov);
	return writev(fd, iov, count);
}

int mls_kernel_io_attach(struct fuse_session *session)
{
	static const struct fuse_custom_io io = {.writev = kernel_writev, .read = kernel_read};

	return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

bool mls_kernel_io_receive(struct fuse_session *session, struct mls_request_buf *buf)
{
	struct fuse_buf request = {.mem = buf->request};
	int bytes = fuse_session_receive_buf(session, &request);

	if (bytes == -EINTR || bytes == -EAGAIN)
		return false;
	if (bytes <= 0) {
		fuse_session_exit(session);
		return false;
	}
	buf->bytes = request.size;
	return true;
}

bool mls_kernel_io_is_read(const struct mls_request_buf *buf)
{
	const struct fuse_in_header *header = (const void *)buf->request;

	return buf->bytes >= sizeof *header && header->opcode == FUSE_READ;
}

void mls_kernel_io_process(struct fuse_session *session, struct mls_request_buf *buf)
{
	struct fuse_buf request = {.mem = buf->request, .size = buf->bytes};

	serving = buf;
	fuse_session_process_buf(session, &request);
}

int mls_kernel_io_handshake(struct fuse_session *session, struct mls_request_buf *buf)
{
	bool served;

	handshaking = true;
	do
		served = mls_kernel_io_receive(session, buf);
	while (!served && !fuse_session_exited(session));
	if (served)
		mls_kernel_io_process(session, buf);
	handshaking = false;
	return served && !fuse_session_exited(session) ? 0 : -1;
}
