/* SPDX-License-Identifier: MPL-2.0 */
/*
 * finding.h - below all layers: what a check found, and how it is told.
 *
 * Role     Checks stand beside the modules they check and report through a callback; the programs
 *          print. A finding's code is stable: scripts and the man page rely on it.
 * Severity NOTE isn't a fault. WARNING: redundancy is gone, nothing is lost. ERROR: structure that
 *          can't be, though it authenticates. VIOLATION: bytes were changed, lost or put back.
 * Repair   SAFE: can be derived from what authenticates (fsck -p); NONE: it can't.
 */
#ifndef MLS_BASE_FINDING_H
#define MLS_BASE_FINDING_H

#include "mlsdisk/mlsdisk.h"

enum mls_severity { MLS_SEV_NOTE, MLS_SEV_WARNING, MLS_SEV_ERROR, MLS_SEV_VIOLATION };
enum mls_repair { MLS_REPAIR_NONE, MLS_REPAIR_SAFE };

/* code, its name for scripts, pass, layer, severity, repair, one sentence. */
#define MLS_FINDINGS(X)                                                                                        \
	X(SB_COPY_UNREADABLE, "sb-copy-unreadable", 0, "disk", WARNING, SAFE, "a superblock copy can't be read") \
	X(SB_COPY_MISSING, "sb-copy-missing", 0, "disk", WARNING, SAFE, "a superblock copy isn't there")       \
	X(SB_COPY_VERSION, "sb-copy-version", 0, "disk", WARNING, SAFE,                                        \
	  "a superblock copy has an unknown version")                                                          \
	X(SB_COPY_DAMAGED, "sb-copy-damaged", 0, "disk", WARNING, SAFE, "a superblock copy is damaged")        \
	X(SB_COPY_FORGED, "sb-copy-forged", 0, "disk", WARNING, SAFE, "a superblock copy doesn't authenticate") \
	X(SB_COPY_OLD, "sb-copy-old", 0, "disk", WARNING, SAFE,                                                \
	  "a superblock copy is of an earlier change of keys")                                                 \
	X(SB_LOST, "sb-lost", 0, "disk", VIOLATION, NONE, "no superblock copy can be believed")                \
	X(SB_STALE, "sb-stale", 0, "disk", VIOLATION, NONE, "both superblock copies are old")                  \
	X(DEVICE_SHORT, "device-short", 0, "disk", VIOLATION, NONE, "BACKING is shorter than the disk")        \
	X(SLOT_MALFORMED, "slot-malformed", 0, "disk", ERROR, NONE, "a key slot that can't be")                \
	X(STORE_NONE, "store-none", 0, "trust", NOTE, NONE, "no trusted store: freshness can't be checked")    \
	X(STORE_EMPTY, "store-empty", 0, "trust", VIOLATION, NONE, "the trusted store holds nothing")          \
	X(STORE_DAMAGED, "store-damaged", 0, "trust", VIOLATION, NONE, "the trusted store is damaged")         \
	X(STORE_COPY_DAMAGED, "store-copy-damaged", 0, "trust", WARNING, SAFE,                                 \
	  "one of the two copies in the trusted store is damaged")                                             \
	X(STORE_FOREIGN, "store-foreign", 0, "trust", VIOLATION, NONE, "the trusted store is another disk's")  \
	X(STORE_UNREADABLE, "store-unreadable", 0, "trust", ERROR, NONE, "the trusted store can't be read")    \
	X(ROLLBACK, "rollback", 1, "disk", VIOLATION, NONE, "BACKING is older than the trusted store")         \
	X(STORE_MISMATCH, "store-mismatch", 1, "disk", VIOLATION, NONE,                                        \
	  "BACKING and the trusted store aren't of one history")                                               \
	X(RECOVERY_PENDING, "recovery-pending", 1, "disk", NOTE, SAFE, "the disk wasn't closed; needs recovery") \
	X(JOURNAL_AREA_UNREADABLE, "journal-area-unreadable", 1, "edit", ERROR, NONE,                          \
	  "a journal area can't be read")                                                                      \
	X(JOURNAL_AREA_MALFORMED, "journal-area-malformed", 1, "edit", ERROR, NONE,                            \
	  "a journal area authenticates, but can't be")                                                        \
	X(JOURNAL_LOST, "journal-lost", 1, "edit", VIOLATION, NONE,                                            \
	  "no journal area belongs to the last sync")                                                          \
	X(WAL_BROKEN, "wal-broken", 1, "lsm", VIOLATION, NONE, "the WAL breaks off before the last sync")      \
	X(WAL_UNREADABLE, "wal-unreadable", 1, "lsm", ERROR, NONE, "the WAL can't be read")                    \
	X(WAL_MALFORMED, "wal-malformed", 1, "lsm", ERROR, NONE, "a WAL group authenticates, but can't be")    \
	X(RUN_RANGE, "run-out-of-range", 2, "log", ERROR, NONE, "a run that isn't on the disk")                \
	X(RUN_TWICE, "run-owned-twice", 2, "log", ERROR, NONE, "a run has two owners")                         \
	X(LOG_MALFORMED, "log-malformed", 2, "log", ERROR, NONE, "a log that can't be")                        \
	X(LOG_LEAKED, "log-leaked", 2, "log", WARNING, SAFE, "a log that no table uses")                       \
	X(LOG_DAMAGED, "log-block-damaged", 2, "crypto", VIOLATION, NONE,                                      \
	  "a block of the index doesn't authenticate")                                                         \
	X(LOG_UNREADABLE, "log-block-unreadable", 2, "bio", ERROR, NONE, "a block of the index can't be read") \
	X(TABLE_NO_LOG, "table-without-log", 3, "lsm", ERROR, NONE, "an SSTable's log doesn't exist")          \
	X(TABLE_MALFORMED, "table-malformed", 3, "lsm", ERROR, NONE, "an SSTable that can't be")               \
	X(TABLE_ORDER, "table-unsorted", 3, "lsm", ERROR, NONE, "records of an SSTable aren't in order")       \
	X(TABLE_RANGE, "table-range", 3, "lsm", ERROR, NONE, "an SSTable holds other LBAs or records than noted") \
	X(TABLE_OVERLAP, "table-overlap", 3, "lsm", ERROR, NONE, "SSTables of one level overlap")              \
	X(LBA_RANGE, "lba-out-of-range", 4, "disk", ERROR, NONE, "a record of an LBA beyond the disk")         \
	X(LBA_NOWHERE, "lba-nowhere", 4, "disk", ERROR, NONE, "a live LBA points outside all data slots")      \
	X(LBA_DEAD, "lba-dead-segment", 4, "disk", ERROR, NONE,                                                \
	  "a live LBA points to a segment that isn't, or isn't any more")                                      \
	X(SLOT_SHARED, "slot-shared", 4, "disk", ERROR, NONE, "two LBAs point to one slot")                    \
	X(SEG_MALFORMED, "segment-malformed", 5, "disk", ERROR, NONE, "a segment that can't be")               \
	X(SEG_COUNT, "live-count", 5, "disk", WARNING, SAFE, "a segment's live count is wrong")                \
	X(SEG_SUMMARY, "summary-missing", 5, "disk", NOTE, NONE,                                               \
	  "a segment has no summary of this life (usual if it was open at a crash)")                           \
	X(SEG_SUMMARY_DIFFERS, "summary-differs", 5, "disk", ERROR, NONE,                                      \
	  "a segment's summary contradicts the index")                                                         \
	X(DATA_DAMAGED, "data-damaged", 6, "disk", VIOLATION, NONE, "a live block doesn't authenticate")       \
	X(SALVAGED_UNINDEXED, "salvaged-unindexed", 6, "disk", NOTE, NONE,                                     \
	  "LBAs were salvaged without an index: discarded blocks may have come back")                          \
	X(DATA_UNREADABLE, "data-unreadable", 6, "bio", ERROR, NONE, "a live block can't be read")

enum mls_finding_code {
#define MLS_FINDING_ENUM(code, name, pass, layer, severity, repair, text) MLS_FOUND_##code,
	MLS_FINDINGS(MLS_FINDING_ENUM)
#undef MLS_FINDING_ENUM
	MLS_NR_FINDINGS
};

/* One finding. What doesn't apply is 0 (nr_...) or MLS_FINDING_NOWHERE. */
#define MLS_FINDING_NOWHERE UINT64_MAX
struct mls_finding {
	enum mls_finding_code code;
	uint64_t hba, nr_blocks;	/* host blocks concerned */
	uint64_t lba, nr_lbas;		/* LBAs concerned */
	uint64_t log_id, run;
	char detail[160];		/* "expected 3, found 4"; may be empty */
};

/* No place at all; code only. Then fill in, and report. */
static inline struct mls_finding mls_finding_init(enum mls_finding_code code)
{
	return (struct mls_finding){ .code = code, .hba = MLS_FINDING_NOWHERE, .lba = MLS_FINDING_NOWHERE,
				     .log_id = MLS_FINDING_NOWHERE, .run = MLS_FINDING_NOWHERE };
}

/* Threads  Called by one thread at a time. */
typedef void mls_report_fn(void *arg, const struct mls_finding *finding);

#endif
