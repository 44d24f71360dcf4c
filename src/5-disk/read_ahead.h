/* SPDX-License-Identifier: MPL-2.0 */
/*
 * read_ahead.h - layer 5: who reads in sequence finds the next blocks in memory.
 *
 * Role     One that reads one request after the other waits for the device each time, the longer the more pieces random writes
 *          have left. When three requests have followed one another, what comes next is read while he looks at what he has.
 * Truth    What was read ahead is given only for a version that the index names at the time of the read: what was
 *          written, discarded or moved meanwhile is read as ever. What couldn't be read, or isn't what was written, is
 *          nobody's error until somebody asks for it.
 * When not While several read at once, or requests of more than 512 KiB: they keep the device busy themselves. With inline_work.
 * Threads  Any; two of its own read. A lock that isn't held over I/O; a reader waits for a window that is just being read.
 * Memory   Four windows of at most 1 MiB of plaintext, allocated by new, wiped by free.
 */
#ifndef MLS_DISK_READ_AHEAD_H
#define MLS_DISK_READ_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "4-lsm/record.h"
#include "mlsdisk/mlsdisk.h"

struct mls_disk;
struct mls_read_ahead;

MLS_MUST_CHECK int mls_read_ahead_new(struct mls_read_ahead **ahead, struct mls_disk *disk);
void mls_read_ahead_free(struct mls_read_ahead *ahead);		/* NULL is fine, here and below */

/* A user's read of nr whole blocks from lba on begins, and ends. */
void mls_read_ahead_begin(struct mls_read_ahead *ahead, uint64_t lba, uint64_t nr);
void mls_read_ahead_end(struct mls_read_ahead *ahead);

/* What there is of nr blocks from lba on, by their records of now: into out; have[i] tells. */
void mls_read_ahead_take(struct mls_read_ahead *ahead, uint64_t lba, uint32_t nr, const struct mls_index_rec *recs,
			 uint8_t *out, bool *have);

#endif
