/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect.h - above all layers: a disk seen from outside, offline and read-only.
 *
 * Role     For mlsdisk-fsck, mlsdisk-dump and tests: reads the same bytes as recovery, with the same
 *          decoders and the same judgement of what is accepted, but goes on after damage and keeps all
 *          there is to see. Writes nothing, also not to the trusted store. Needs no threads.
 * Tolerant What authenticates but can't be, or doesn't authenticate, becomes a finding (finding.h).
 *          A failed call means that the inspection itself can't go on.
 * Stages   mls_inspect_open does passes 0 and 1 and collects who owns which run; what is known then
 *          stands in the struct's fields, NULL or 0 where it couldn't be found out. The passes from
 *          2 on are calls of their own, in any order.
 * Memory   One entry a run, a log, an SSTable and a WAL record; scanning takes 64 KiB a table.
 * Threads  One, unless a call says otherwise.
 */
#ifndef MLS_CHECK_INSPECT_H
#define MLS_CHECK_INSPECT_H

#include "1-crypto/crypto_log.h"
#include "2-edit/journal.h"
#include "4-lsm/lsm_state.h"
#include "4-lsm/wal.h"
#include "5-disk/data_key.h"
#include "5-disk/seg_summary.h"
#include "5-disk/superblock.h"
#include "5-disk/totals.h"
#include "base/finding.h"

/* ---- What there is to see ---- */

struct mls_inspect_area {		/* a journal area */
	uint64_t hba, nr_blocks;
	int err;			/* 0: a whole snapshot and nr_groups - 1 commits; MLS_ENOENT: none */
	struct mls_journal_info info;	/* of its last whole group */
	uint64_t nr_groups, used_blocks, nr_edits;
	bool accepted;			/* the state comes from here */
};

struct mls_inspect_group {		/* a group of the WAL */
	uint64_t seq, nr_blocks;	/* in the ring: block seq lies at wal_hba + seq % wal_blocks */
	struct mls_wal_group group;	/* records and announcements owned */
	bool accepted;
};

struct mls_inspect_log {
	uint64_t id;
	uint8_t bucket;
	struct mls_log_root root;
	uint32_t nr_chunks;
	uint64_t *runs;			/* nr_chunks; each < nr_runs */
	const struct mls_table_meta *table;	/* NULL: leaked */
};

struct mls_inspect_key {		/* a data key; of two with one id the later one counts */
	uint32_t id;
	uint8_t salt[MLS_SALT_BYTES];
	struct mls_data_key *key;
};

enum mls_run_kind { MLS_RUN_FREE, MLS_RUN_CHUNK, MLS_RUN_SEGMENT, MLS_RUN_TWICE };
struct mls_inspect_run {
	uint64_t birth;			/* segment: of its present life; 0: never lived */
	uint64_t log_id;		/* chunk */
	uint32_t chunk;			/* chunk: its number in the log */
	uint32_t key_id;		/* segment */
	struct mls_data_key *key;	/* segment; NULL: the journal doesn't tell */
	int64_t noted_live;		/* segment: records in SSTables, as the journal has it */
	uint32_t live_sst, live_wal;	/* records that point into this life, counted by mls_inspect_count */
	uint32_t nr_live;		/* blocks that an LBA reads now; counted there, too */
	uint8_t kind;			/* enum mls_run_kind */
};

enum mls_verdict_kind {
	MLS_INSPECT_UNKNOWN,		/* no key, or no journal */
	MLS_INSPECT_CLEAN,		/* newest sync = trusted store (or no store) */
	MLS_INSPECT_NEEDS_RECOVERY,	/* opening for writing will settle what a crash left open */
	MLS_INSPECT_REFUSED,		/* rollback, mismatch, broken WAL or lost journal */
};

struct mls_inspect {
	struct mls_block_dev *dev;		/* borrowed */
	struct mls_superblock_copy copies[MLS_NR_COPIES];	/* without a secret at best LOCKED */
	bool has_sb;				/* sb and geo can be believed (or, without a key, looked at) */
	bool authentic;				/* there is a key, and it says that sb is authentic */
	struct mls_superblock sb;
	struct mls_keyring *keys;		/* NULL: no key; only copies, sb and areas' places are known */

	int store_err;				/* 0, or why trust isn't known; MLS_ENOENT: no store given, or empty */
	bool has_trust;
	struct mls_trust trust;

	struct mls_inspect_area areas[MLS_NR_JOURNAL_AREAS];
	int area;				/* the one the state comes from; -1: none could be read */
	bool consistent;			/* journal and WAL belong together: the passes from 2 on make sense */
	enum mls_verdict_kind verdict;
	struct mls_sync_head accepted;		/* the sync that an opening would take; if refused, the newest */
	char recovery[160];			/* NEEDS_RECOVERY: what it will do */

	uint64_t wal_hba, wal_blocks;
	struct mls_inspect_group *groups;	/* from the WAL's start on, as it is in lsm.wal_start */
	size_t nr_groups;
	bool wal_more_behind;
	bool wal_bad;				/* a group can't be, or can't be read: the WAL ends there */

	struct mls_inspect_log *logs;		/* ascending by id */
	size_t nr_logs;
	struct mls_lsm_state lsm;		/* tables, in order of search: level 0 newest first, ... */
	struct mls_inspect_key *data_keys;
	size_t nr_data_keys;
	struct mls_inspect_run *runs;		/* nr_runs */
	uint64_t nr_runs, runs_hba;
	uint32_t run_blocks, nr_slots;
	uint64_t nr_free_runs, nr_segments, nr_chunks;
	struct mls_totals totals;		/* since format, up to the last journal commit; all 0: none noted */

	mls_report_fn *report;
	void *report_arg;
	bool counted;				/* live_sst, live_wal and nr_live of the runs are known */
	bool index_damaged;			/* a walk over the records met damage: counts are too low */
	bool (*stop)(void *arg);		/* asked now and then, by any thread; true: MLS_EABORTED. NULL: never */
	void *stop_arg;
};

/*
 * Passes 0 and 1, and the owners of the runs.
 *
 * store    NULL: freshness isn't checked.
 * secret   NULL: what everybody can see.
 * report   gets the findings; NULL: nobody cares.
 * Returns  0 as soon as there is anything to look at (look at has_sb, keys, area); MLS_EFORMAT: not an
 *          MlsDisk; MLS_EKEY: wrong key; MLS_EIO; MLS_ENOMEM.
 */
MLS_MUST_CHECK int mls_inspect_open(struct mls_inspect **x, struct mls_block_dev *dev,
				    struct mls_trusted_store *store, const struct mls_secret *secret,
				    mls_report_fn *report, void *report_arg);
/* The same; stop: see the struct; MLS_EABORTED. */
MLS_MUST_CHECK int mls_inspect_open_until(struct mls_inspect **x, struct mls_block_dev *dev,
					  struct mls_trusted_store *store, const struct mls_secret *secret,
					  mls_report_fn *report, void *report_arg, bool (*stop)(void *arg),
					  void *stop_arg);
void mls_inspect_close(struct mls_inspect *x);		/* NULL is fine */

/* ---- Places ---- */

enum mls_place_kind {
	MLS_PLACE_SUPERBLOCK,	/* index: copy */
	MLS_PLACE_UNUSED,	/* between and behind the superblocks, behind the last run */
	MLS_PLACE_JOURNAL,	/* index: area; pos: block of it */
	MLS_PLACE_WAL,		/* pos: block of the ring */
	MLS_PLACE_RUN,		/* index: run; pos: block of it */
};
struct mls_place {
	enum mls_place_kind kind;
	uint64_t index, pos;
};
struct mls_place mls_inspect_place(const struct mls_inspect *x, uint64_t hba);
uint64_t mls_inspect_run_hba(const struct mls_inspect *x, uint64_t run);
const struct mls_inspect_log *mls_inspect_find_log(const struct mls_inspect *x, uint64_t id);	/* NULL: none */
const char *mls_finding_name(enum mls_finding_code code);
const char *mls_finding_text(enum mls_finding_code code);
const char *mls_finding_layer(enum mls_finding_code code);
enum mls_severity mls_finding_severity(enum mls_finding_code code);
enum mls_repair mls_finding_repair(enum mls_finding_code code);
unsigned mls_finding_pass(enum mls_finding_code code);
const char *mls_severity_name(enum mls_severity severity);

/* ---- Records ---- */

/* A record of the index. group < 0: of table, else of groups[group]. */
struct mls_inspect_rec {
	struct mls_index_rec rec;	/* rec.hba is a location: 5-disk/location.h */
	const struct mls_table_meta *table;
	int64_t group;
	bool accepted;			/* not of a group or table that recovery drops */
	bool doubtful;			/* a damaged block of a newer table may have a newer record */
	bool newest;			/* this is what the LBA reads: accepted, not doubtful, the first such */
};

/*
 * All records with LBAs in [lba, end), by LBA, newest first for each LBA; those of damaged blocks are
 * left out (pass 3 names them). fn != 0 stops and is returned.
 */
MLS_MUST_CHECK int mls_inspect_records(struct mls_inspect *x, uint64_t lba, uint64_t end,
				       int (*fn)(void *arg, const struct mls_inspect_rec *rec), void *arg);

/* Fill in live_sst, live_wal and nr_live of all runs. */
MLS_MUST_CHECK int mls_inspect_count(struct mls_inspect *x);

/* The run and slot of a location, if its life is the run's present one (false: stale, or nowhere). */
bool mls_inspect_slot_of(const struct mls_inspect *x, uint64_t loc, uint64_t *run, uint32_t *slot);

/* The block of a record, authenticated. MLS_ENOENT: stale; MLS_EAUTH; MLS_EIO. out is aligned. */
MLS_MUST_CHECK int mls_inspect_read(struct mls_inspect *x, const struct mls_index_rec *rec, void *out);

/* ---- Segment summaries ---- */

/* What authenticates at the end of run, of whatever life; slots has room for x->nr_slots. MLS_ENOENT: no summary; MLS_EIO; MLS_ENOMEM. */
MLS_MUST_CHECK int mls_inspect_summary(struct mls_inspect *x, uint64_t run, struct mls_seg_summary *summary);

/* Is it of the run's present life? Births that a crash took back are given again, under another key. */
bool mls_inspect_summary_is_of(const struct mls_inspect *x, const struct mls_seg_summary *summary);

/* ---- Passes from 2 on; each reports, and fails only if it can't go on ---- */

/* Called now and then; done of all, in units of the pass. */
typedef void mls_progress_fn(void *arg, unsigned pass, uint64_t done, uint64_t all);

MLS_MUST_CHECK int mls_inspect_check_logs(struct mls_inspect *x, mls_progress_fn *progress, void *arg);	/* 2, 3 */
MLS_MUST_CHECK int mls_inspect_check_records(struct mls_inspect *x, mls_progress_fn *progress, void *arg);	/* 4 */
MLS_MUST_CHECK int mls_inspect_check_runs(struct mls_inspect *x, mls_progress_fn *progress, void *arg);	/* 5 */

/*
 * Pass 6: every block that an LBA reads authenticates. Reads in order of HBA, with several threads, in
 * windows of 4 Mi blocks of BACKING, for each of which the index is read once.
 *
 * sink     gets each block that authenticates (block NULL: it doesn't, or can't be read); from any
 *          thread; not 0 stops and is returned. NULL: nobody cares.
 */
typedef int mls_block_sink_fn(void *arg, uint64_t lba, const void *block);
MLS_MUST_CHECK int mls_inspect_check_data(struct mls_inspect *x, mls_block_sink_fn *sink, void *sink_arg,
					  mls_progress_fn *progress, void *arg);

/* Passes 2 to 5 in order. */
MLS_MUST_CHECK int mls_inspect_check(struct mls_inspect *x, mls_progress_fn *progress, void *arg);

#endif
