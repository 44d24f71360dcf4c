/* SPDX-License-Identifier: MPL-2.0 */
/*
 * crash_work.h - the disks and the operations that the crash explorer makes its workloads of.
 *
 * Role     A base is a small disk in a certain state, made once. A workload is up to CRASH_OPS_MAX operations
 *          on a base, each a letter of crash_ops. Running one records what it does to device and store, and
 *          what the disk must contain at each sync.
 * Content  Version 0 is the base's, version i + 1 what operation i makes of version i. A sync that falls
 *          into operation i has, of each block, version i or i + 1: a call is atomic per block.
 * Threads  One: the disks do their background work within the calls.
 */
#ifndef MLS_TEST_CRASH_WORK_H
#define MLS_TEST_CRASH_WORK_H

#include "mlsdisk/mlsdisk.h"
#include "tests/crash/crash_trace.h"
#include "tests/lib/test_rand.h"

#define CRASH_NR_RUNS 40u
#define CRASH_OPS_MAX 4u
#define CRASH_SYNCS_MAX 64u
#define CRASH_DISK_BLOCKS 96u
#define CRASH_DISK_BYTES (CRASH_DISK_BLOCKS * MLS_BLOCK_BYTES)

/*
 * w write          blocks that nobody wrote before         r reopen
 * o overwrite      blocks that the base has                f memtable flush
 * p partial write  unaligned, over a block's border        c compaction of the whole index
 * s sync                                                   g cleaning ("garbage")
 * d discard        twenty blocks and a part of one; as every other operation: two and a part
 */
extern const char crash_ops[];

struct crash_base {
	const char *name;
	unsigned nr_ops;		/* of the longest workload, where nothing else is asked for */
	bool strict, no_store;
	uint8_t *bytes;			/* BACKING, closed in good order */
	uint8_t *content;
	struct mls_trust trust;
	uint64_t nr_chunks, nr_segments, nr_free_runs;		/* for the curious */
};

#define CRASH_NR_BASES 7u
extern struct crash_base crash_bases[CRASH_NR_BASES];

struct crash_sync {
	uint64_t id;
	uint32_t event;			/* of the trace: before it, the sync was complete */
	unsigned old_version, new_version;
};

/* A disk that works, or has worked, on the medium. */
struct crash_run {
	const struct crash_base *base;
	struct crash_medium *medium;	/* borrowed */
	struct crash_store store;
	struct mls_disk *disk;		/* NULL: closed */
	struct test_rand rand;		/* the engine's */
	uint8_t *versions[CRASH_OPS_MAX + 1];	/* CRASH_DISK_BYTES each */
	uint64_t keys[CRASH_OPS_MAX + 1];	/* of versions: the same content has the same key */
	unsigned old_version, new_version;	/* of the running operation */
	struct crash_sync syncs[CRASH_SYNCS_MAX];
	unsigned nr_syncs;
	uint32_t op_begin[CRASH_OPS_MAX + 1];	/* first event of each operation; behind the last: end */
};

uint64_t crash_backing_blocks(void);

/* Make all bases. */
void crash_bases_init(void);
void crash_bases_release(void);

void crash_run_init(struct crash_run *run, struct crash_medium *medium);
void crash_run_release(struct crash_run *run);

/* The medium gets the base's bytes, the store its trust. */
void crash_run_load(struct crash_run *run, const struct crash_base *base);

/* Open what is on the medium, with a random source seeded by seed. discard: free runs are punched. */
MLS_MUST_CHECK int crash_run_open(struct crash_run *run, uint64_t seed, bool discard);
/* The power is off before it closes: nothing of it reaches the medium. */
void crash_run_kill(struct crash_run *run);

/*
 * Run ops (nr letters) on a base that is loaded, recorded in trace; the disk is killed at the end, the
 * medium has what it wrote. *what gets the operation that failed.
 */
MLS_MUST_CHECK int crash_run_workload(struct crash_run *run, const char *ops, unsigned nr, struct crash_trace *trace,
				      const char **what);

MLS_MUST_CHECK int crash_read_all(struct crash_run *run, uint8_t *out);

/* The last sync that was complete before this event of the recorded workload. */
uint64_t crash_synced_before(const struct crash_run *run, uint32_t event);
/*
 * May the disk have this content if sync_id was complete, and the next one perhaps in flight?
 *
 * lba      if not: the first block that can't be sync_id's.
 * key      if so: names the content, see keys.
 */
bool crash_content_allowed(const struct crash_run *run, uint64_t sync_id, const uint8_t *content, uint64_t *lba,
			   uint64_t *key);
/* The same for two recorded workloads if the same contents are allowed. */
uint64_t crash_allowed_key(const struct crash_run *run, uint64_t sync_id);

struct mls_secret crash_secret(void);
struct mls_trusted_store *crash_run_store(struct crash_run *run);	/* NULL: the base has none */

#endif
