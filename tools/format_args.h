/* SPDX-License-Identifier: MPL-2.0 */
/* format_args.h - the command line of mlsdisk-format, and the sizes that it means for a target. */
#ifndef MLS_TOOLS_FORMAT_ARGS_H
#define MLS_TOOLS_FORMAT_ARGS_H

#include "mlsdisk/mlsdisk.h"

struct format_args {
	const char *backing;		/* path */
	const char *key_file;		/* NULL: ask */
	const char *store_uri;		/* NULL: default */
	uint64_t size_bytes;		/* 0: what fits */
	uint64_t backing_bytes;		/* 0: as long as it is, or as needed */
	bool force;
};

/* What stands at the path now. */
struct format_target {
	bool exists;
	bool is_block_dev;
	uint64_t bytes;			/* 0 if it doesn't exist */
};

/* Returns an exit status; *go_on is false if all is done (--help) or wrong. */
int format_args_parse(struct format_args *args, int argc, char **argv, bool *go_on);

/*
 * The size of the disk and of its backing, both > 0. Whatever is impossible, or surprising, is said.
 * Returns an exit status; the results are set if it is 0.
 */
int format_sizes(const struct format_args *args, const struct format_target *target, uint64_t *disk_bytes,
		 uint64_t *backing_bytes);

#endif
