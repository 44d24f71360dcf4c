/* SPDX-License-Identifier: MPL-2.0 */
/*
 * inspect_internal.h - what the files of the inspection share.
 *
 * Files    inspect.c superblocks, store, places; inspect_state.c journal and WAL into a state;
 *          inspect_records.c the records of the index in order; inspect_data.c blocks and summaries;
 *          check_*.c the passes.
 */
#ifndef MLS_CHECK_INSPECT_INTERNAL_H
#define MLS_CHECK_INSPECT_INTERNAL_H

#include "check/inspect.h"

/* Fill in detail and tell it. */
void mls_inspect_report(struct mls_inspect *x, struct mls_finding *finding, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static inline bool mls_inspect_stopped(struct mls_inspect *x)
{
	return x->stop && x->stop(x->stop_arg);
}

/* Pass 1 and the owners. Needs sb and keys. */
MLS_MUST_CHECK int mls_inspect_load_state(struct mls_inspect *x);
void mls_inspect_free_state(struct mls_inspect *x);

/* A log to read from: raw and crypto belong to the caller. MLS_EFORMAT: it can't be opened. */
struct mls_inspect_open_log {
	struct mls_block_log raw;
	struct mls_crypto_log *crypto;
};
MLS_MUST_CHECK int mls_inspect_log_open(struct mls_inspect *x, const struct mls_inspect_log *log,
					struct mls_inspect_open_log *open);
void mls_inspect_log_close(struct mls_inspect_open_log *open);

/* Counting by hand, record by record, in a walk over all of them. */
void mls_inspect_count_begin(struct mls_inspect *x);
void mls_inspect_count_rec(struct mls_inspect *x, const struct mls_inspect_rec *rec);

static inline bool mls_inspect_table_accepted(const struct mls_inspect *x, const struct mls_table_meta *table)
{
	return table->epoch <= x->accepted.sync_id;
}

#endif
