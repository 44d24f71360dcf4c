/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary_lib.h - what the parts of the adversary explorer share: disks, cases, and one look at the harm.
 *
 * Disk     A small disk in one state, with copies of BACKING from its life (moments), and what an attack
 *          needs to know of it: what each block is, whether opening reads it, and which LBA is read
 *          through it.
 * Case     One mutation. All cases of a class on a disk are numbered in a fixed order; adv_case counts,
 *          and says whether this one is due. Its random numbers are drawn from (seed, disk, class,
 *          number), so the line that a failure prints replays exactly it.
 * Look     The disk is opened and read whole: the truth or an error, or the test has failed.
 */
#ifndef MLS_TEST_ADVERSARY_LIB_H
#define MLS_TEST_ADVERSARY_LIB_H

#include <inttypes.h>

#include "mlsdisk/mlsdisk.h"
#include "tests/lib/tamper.h"
#include "tests/lib/tamper_dev.h"
#include "tests/lib/test_rand.h"
#include "tests/lib/test_store.h"

#define ADV_MOMENTS_MAX 48u
#define ADV_NONE UINT32_MAX

enum adv_kind {
	ADV_SUPERBLOCK,
	ADV_JOURNAL,
	ADV_WAL,
	ADV_TABLE,
	ADV_DATA,
	ADV_SUMMARY,
	ADV_FREE,
	ADV_NR_KINDS
};

/* The parts of BACKING that an adversary would put back as a whole. */
enum adv_part {
	ADV_PART_SUPERBLOCKS,
	ADV_PART_AREA_0,
	ADV_PART_AREA_1,
	ADV_PART_WAL,
	ADV_PART_RUNS,
	ADV_NR_PARTS
};

struct adv_range {
	uint64_t hba, nr_blocks;
};

/* BACKING, the register, and what the disk contained, at one time. */
struct adv_moment {
	struct tamper_image image;
	struct test_store store;
	uint8_t *content; /* owned; of the last sync */
	uint64_t nr_lbas;
	bool synced; /* nothing was written since that sync */
};

struct adv_disk {
	const char *name;
	uint64_t seed;
	struct tamper_dev *dev;
	struct test_store store; /* the register now */
	uint8_t *truth;		 /* what an open presents now */
	uint8_t *given_up;	 /* what it may present if the sync in flight isn't whole; NULL: no such sync */
	uint64_t nr_lbas;
	bool early_syncs;			    /* the policy; so little space that strict gives ENOSPC */
	struct adv_moment moments[ADV_MOMENTS_MAX]; /* oldest first; the last one is now */
	unsigned nr_moments;

	struct adv_range parts[ADV_NR_PARTS];
	uint64_t nr_runs;
	uint32_t run_blocks;
	uint8_t *kind;	      /* per block, enum adv_kind */
	uint32_t *reader;     /* per block: an LBA whose reading takes this block; ADV_NONE: none does */
	bool *at_open;	      /* per block: opening (read-only) takes it */
	uint64_t *log_of_run; /* id of the log; 0: none */
};

struct adv_count {
	uint64_t tried, refused, errors, harmless;
};

/* One run of the explorer (in one of the processes). */
struct adv {
	uint64_t seed, only_case;
	const char *only_disk, *only_class;
	bool all;		/* every case; else of each class the share that it names, */
	uint64_t thin;		/* and of those one of so many */
	unsigned job, nr_jobs;

	struct adv_disk *d;
	const char *class;
	uint64_t case_nr;	 /* of the next case */
	struct test_rand rand;	 /* of this case */
	struct adv_count *count; /* of this class */

	const char *what; /* of this case: a format and its numbers */
	uint64_t args[4];
	uint8_t *buf, *synced, *now; /* room for a disk each */
};

#define ADV_EVERY_CASE UINT64_MAX
#define ADV_LBAS_MAX 1536u
#define ADV_MAY(err) (1u << -(err))
#define ADV_REFUSALS (ADV_MAY(MLS_EAUTH) | ADV_MAY(MLS_ESTALE))
#define ADV_KEY_REFUSALS (ADV_REFUSALS | ADV_MAY(MLS_EFORMAT) | ADV_MAY(MLS_EKEY))

/* ---- Cases ---- */

/* share: in a short run one of so many is tried. what: a printf format for up to four uint64_t. */
bool adv_case(struct adv *a, uint64_t share, const char *what, uint64_t x, uint64_t y, uint64_t z);
_Noreturn void adv_fail(const struct adv *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void adv_must(const struct adv *a, int err, const char *what);
void adv_init(struct adv *a);

/* ---- Disks (adversary_disks.c) ---- */

typedef void adv_life_fn(struct adv *a, struct adv_disk *d);
struct adv_life {
	const char *name;
	adv_life_fn *live;
};
extern const struct adv_life adv_lives[];
extern const unsigned adv_nr_lives;

struct adv_disk *adv_disk_new(struct adv *a, const struct adv_life *life);
void adv_disk_free(struct adv_disk *d);
int adv_open(struct adv_disk *d, struct test_store *store, bool read_only, uint64_t cache_bytes,
	     struct mls_disk **disk);
/* A copy of the disk as it was at the moment, with its register, that lives on by itself from there. */
struct adv_disk *adv_clone(struct adv *a, const struct adv_disk *d, const struct adv_moment *moment);
/* Another disk, that the same key file opens. */
struct adv_disk *adv_twin(struct adv *a, const struct adv_disk *d);
void adv_keep_moment(struct adv_disk *d, const struct test_store *store, const uint8_t *content, bool synced);

/* Writes, discards and, if synced isn't NULL, syncs of a disk that lives; both arrays follow. The first error;
 * MLS_EABORTED: not even now is known any more. */
int adv_churn(struct test_rand *rand, struct mls_disk *disk, uint64_t nr_lbas, unsigned nr_calls, uint8_t *now,
	      uint8_t *synced);

/* ---- A look ---- */

enum adv_mode { ADV_READ_ONLY, ADV_WRITING, ADV_GO_ON, ADV_ANY_MODE };

/* The device has been tampered with since tamper_dev_begin. Open, read all, compare, undo.
 * may: which errors opening may answer. */
void adv_look(struct adv *a, unsigned may, enum adv_mode mode);

/* Read the open disk: each block is one of the candidates' (all of one and the same), or an error. true: no
 * error. */
bool adv_read_all(struct adv *a, struct mls_disk *disk, const uint8_t *one, const uint8_t *other);

/* ---- Blocks ---- */

bool adv_is_used(const struct adv_disk *d, uint64_t hba); /* anything but zeros there */
uint64_t adv_any_used(struct adv *a);
const uint8_t *adv_old_block(const struct adv_moment *moment, uint64_t hba); /* zeros behind its end */
const struct adv_moment *adv_any_moment(struct adv *a);			     /* an earlier one */
void adv_put_back(struct adv_disk *d, const struct adv_moment *moment, struct adv_range range);
struct adv_range adv_run(const struct adv_disk *d, uint64_t run);

/* ---- Classes, by file ---- */

typedef void adv_class_fn(struct adv *a);
adv_class_fn adv_flip_data, adv_flip_table, adv_flip_open, adv_flip_rest, adv_wipe; /* _flip.c */
adv_class_fn adv_swap_data, adv_swap_table, adv_swap_open, adv_swap_any;	    /* _swap.c */
adv_class_fn adv_replay_block, adv_replay_run, adv_replay_log, adv_replay_parts, adv_replay_mixed,
	adv_replay_image;						    /* _replay.c */
adv_class_fn adv_splice_twin, adv_splice_clone, adv_shared_store, adv_size; /* _splice.c */
adv_class_fn adv_lies, adv_summaries;					    /* _open.c */

#endif
