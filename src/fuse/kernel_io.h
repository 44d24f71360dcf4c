/* SPDX-License-Identifier: MPL-2.0 */
/*
 * kernel_io.h - the conversation with /dev/fuse: buffers, the INIT handshake, one request.
 *
 * Role     Reads requests so that the data of a WRITE lies aligned to 4096 in the buffer and is
 *          encrypted from there; offers that same memory for the answer to a READ. Adds to the
 *          INIT reply what libfuse 3.14 has no word for.
 * Threads  One struct mls_request_buf per thread. handshake before the workers start.
 */
#ifndef MLS_FUSE_KERNEL_IO_H
#define MLS_FUSE_KERNEL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fuse_lowlevel.h>

#define MLS_FUSE_MAX_IO_BYTES (1u << 20) /* largest READ or WRITE request */

struct mls_request_buf {
	void *map;	  /* whole mapping */
	uint8_t *request; /* where the request's header goes */
	uint8_t *data;	  /* MLS_FUSE_MAX_IO_BYTES, aligned: a WRITE's data, a READ's answer */
	size_t bytes;	  /* of the request that was received */
};

int mls_request_buf_init(struct mls_request_buf *buf); /* 0 or -1 */
void mls_request_buf_release(struct mls_request_buf *buf);

/* Put our own reader and writer below a mounted session. 0 or -errno. */
int mls_kernel_io_attach(struct fuse_session *session);

/* Answer the kernel's INIT. 0; -1: the mount is gone or speaks another protocol. */
int mls_kernel_io_handshake(struct fuse_session *session, struct mls_request_buf *buf);

/* Wait for one request. false: the session is over, or the wait was interrupted. */
bool mls_kernel_io_receive(struct fuse_session *session, struct mls_request_buf *buf);

/* Is the one that was received a READ? */
bool mls_kernel_io_is_read(const struct mls_request_buf *buf);

/* Process it. */
void mls_kernel_io_process(struct fuse_session *session, struct mls_request_buf *buf);

/* The data memory of the request buffer that the calling thread serves from. */
void *mls_kernel_io_data(void);

#endif
