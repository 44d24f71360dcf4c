/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fsck_progress.h - how far a check is: lines for programs, a bar for people.
 *
 * Role     Lines as e2fsck -C writes them: "PASS DONE ALL BACKING". The bar, with rate and time left,
 *          is drawn on stderr if that is a terminal and nobody asked for lines.
 */
#ifndef FSCK_PROGRESS_H
#define FSCK_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct fsck_progress {
	int fd;				/* -1: no lines */
	bool bar, drawn;
	const char *backing;
	unsigned pass;
	struct timespec started, told;
};

void fsck_progress_init(struct fsck_progress *progress, int fd, const char *backing);

/* A mls_progress_fn; arg is a struct fsck_progress. */
void fsck_progress_tell(void *arg, unsigned pass, uint64_t done, uint64_t all);

void fsck_progress_wipe(struct fsck_progress *progress);	/* the bar, before other output */

#endif
