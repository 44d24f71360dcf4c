/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump.h - what the files of mlsdisk-dump share.
 *
 * Files    dump_main.c the command line; dump_out.c text and JSON; dump_print.c superblock and journal;
 *          dump_space.c runs, logs, index, statistics; dump_lba.c and dump_hba.c one block;
 *          dump_map.c the picture: gathering, terminal; dump_svg.c the picture as a file.
 * Role     Nothing here knows the format: the inspection library reads it (check/inspect.h).
 */
#ifndef MLS_TOOLS_DUMP_H
#define MLS_TOOLS_DUMP_H

#include "check/inspect.h"
#include "tools/dump_out.h"

#define NR_COLUMNS(columns) (sizeof(columns) / sizeof(columns)[0])

struct dump {
	struct mls_inspect *x;
	struct dump_out *out;
	const char *backing, *svg;	/* svg NULL: none */
	uint64_t arg;			/* LBA or HBA */
	bool data;			/* --data */
	bool told;			/* out: what a section answers has been said */
};

/* A section: prints one member. Returns 0, or what made it impossible to go on. Without a key it prints
 * what is known all the same. */
typedef int dump_section_fn(struct dump *d);
dump_section_fn dump_superblock, dump_journal, dump_chunks, dump_logs, dump_index, dump_lba, dump_hba, dump_stats,
	dump_map;

/* The argument of a section must be less. */
typedef uint64_t dump_limit_fn(const struct mls_inspect *x);
dump_limit_fn dump_lba_limit, dump_hba_limit;

const char *dump_copy_state(enum mls_copy_state state);
const char *dump_run_kind(uint8_t kind);		/* enum mls_run_kind */

/* What anybody can see of a run. */
enum dump_look { LOOK_ZEROS, LOOK_SUMMARY, LOOK_WRITTEN, LOOK_UNREADABLE };
enum dump_look dump_look_at_run(struct dump *d, uint64_t run);
const char *dump_look_name(enum dump_look look);

#endif
