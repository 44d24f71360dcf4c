/* SPDX-License-Identifier: MPL-2.0 */
/*
 * defrag.h - layer 5: puts what is read in sequence back into sequence.
 *
 * Role     Random writes lay blocks out in the order of writing. Whoever then reads them in the order of LBA pays
 *          a transfer for each. When a large read meets such a layout, what it has read is written once more, as
 *          moves into the cleaner's stream: the next reader finds long extents.
 * Cost     At most two blocks written for each block that somebody read in large requests, and only where the
 *          pieces were small: one at once, for few of them, as readers need the device themselves; one in a
 *          pause. And at most one for each block that users write, where they scatter again what is scanned.
 *          Nobody waits for it: what finds the queue full is left as it is.
 * When not While space is short (moves take room now and give it back after a sync), under the strict sync policy,
 *          with inline_work, read-only.
 * Pauses   Ranges that were read in large requests once are looked at again in pauses (cleaner_idle.c): those that
 *          writes have scattered since are gathered before the next reader comes, three times for each such read.
 * Threads  offer: any. pause_step: the cleaner's. One thread of its own moves.
 * Memory   JOBS requests' worth of plaintext, wiped when done, and two bits for each MiB; allocated by new.
 */
#ifndef MLS_DISK_DEFRAG_H
#define MLS_DISK_DEFRAG_H

#include <stdbool.h>
#include <stdint.h>

#include "4-lsm/record.h"
#include "mlsdisk/mlsdisk.h"

struct mls_disk;
struct mls_defrag;

MLS_MUST_CHECK int mls_defrag_new(struct mls_defrag **defrag, struct mls_disk *disk);
void mls_defrag_stop(struct mls_defrag *defrag);	/* ends its thread; what is queued is dropped */
void mls_defrag_free(struct mls_defrag *defrag);	/* NULL is fine, for stop, too */

/* nr blocks from lba on, at most MLS_CHUNK_IO_BLOCKS, have been read, by these records. defrag may be NULL. */
void mls_defrag_offer(struct mls_defrag *defrag, uint64_t lba, uint32_t nr, const struct mls_index_rec *recs,
		      const void *plain);

/* Some of the gathering that is left for pauses. false: there is none now. */
bool mls_defrag_pause_step(struct mls_defrag *defrag);

#endif
