/* SPDX-License-Identifier: MPL-2.0 */
/* fsck_args.h - the command line of mlsdisk-fsck. */
#ifndef FSCK_ARGS_H
#define FSCK_ARGS_H

#include <stdbool.h>

enum fsck_mode { FSCK_LOOK, FSCK_PREEN, FSCK_YES };	/* -n, -p, -y */

/* Exit status: bits, added up, as of fsck(8). */
enum { FSCK_CLEAN = 0, FSCK_CORRECTED = 1, FSCK_LEFT = 4, FSCK_FAILED = 8, FSCK_USAGE = 16, FSCK_CANCELLED = 32 };

struct fsck_args {
	enum fsck_mode mode;
	bool data, json;
	int progress_fd;		/* -1: no lines */
	const char *salvage;		/* NULL: don't */
	const char *key_file, *store_uri, *backing;
};

/* *go_on false: exit with what is returned. */
int fsck_args_parse(struct fsck_args *args, int argc, char **argv, bool *go_on);

#endif
