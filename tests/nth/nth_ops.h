/* SPDX-License-Identifier: MPL-2.0 */
/*
 * nth_ops.h - the public operations that the Nth-call test tries, and the world they run in.
 *
 * An operation runs once, with failures armed, and answers what the library answered, or 1 if the answer was
 * not the truth. What it did to the disk it tells the model.
 */
#ifndef MLS_TEST_NTH_OPS_H
#define MLS_TEST_NTH_OPS_H

#include "tests/lib/tamper.h"
#include "tests/nth/nth.h"
#include "tests/nth/nth_model.h"
#include "tests/unit/5-disk/disk_fixture.h"

#define NR_SYNCED 400u			/* LBAs that the prepared disk has */
#define GROWN_BYTES (3 * MIB)		/* what resize makes of it; the backing has room */

enum {
	OP_OFFLINE = 1 << 0,		/* the disk is closed when it begins */
	OP_CLEAN = 1 << 1,		/* begins with nothing unsynced */
	OP_ROLLED_BACK = 1 << 2,	/* the store is ahead of BACKING */
	OP_TWO_KEYS = 1 << 3,		/* a second key slot is used */
	OP_SYSTEM = 1 << 4,		/* works on files: system calls fail, too, and the disk has no part in it */
	OP_DAMAGED = 1 << 5,		/* a superblock copy is damaged */
	OP_THREADS = 1 << 6,		/* starts threads although the disk doesn't */
};

struct nth_world;
struct nth_operation {
	const char *name;
	int (*run)(struct nth_world *w);
	unsigned flags;
};

struct nth_case {
	const struct nth_operation *op;
	enum nth_kind kind;
	bool sticky, threads;
	uint64_t n;
};

struct nth_world {
	struct disk_fixture f;		/* dev: the healthy one; store: the register */
	struct mls_block_dev *flaky;
	struct mls_trusted_store *store;
	struct tamper_image prepared;
	struct mls_trust prepared_trust, later_trust;
	struct nth_model model, prepared_model;
	struct mls_disk *disk;
	struct mls_disk_stat stat;	/* when the disk was last looked at */
	struct nth_case now;
	uint64_t next_version;
	uint8_t *buf;			/* 128 blocks */
	char dir[32];			/* for operations on files */
	int image_fd;			/* salvaged blocks; -1: none yet */
	bool accept_rollback;		/* the store may be ahead: open so */
	bool replays;			/* stop where it goes wrong, for a debugger */
};

extern const struct nth_operation nth_operations[];
extern const unsigned nth_nr_operations;
extern const struct mls_secret nth_second;	/* the secret of the second slot */

/* nr blocks from lba on, of a version of their own; the model is told. */
int nth_put(struct nth_world *w, uint64_t lba, uint64_t nr);

int nth_disk_open(struct nth_world *w, bool flaky);
int nth_disk_close(struct nth_world *w);

/* Is it this operation? */
bool nth_is(const struct nth_world *w, const char *name);

#endif
