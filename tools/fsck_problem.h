/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fsck_problem.h - findings, told to people or to programs, and counted.
 *
 * Threads  One at a time, as the checks report.
 */
#ifndef FSCK_PROBLEM_H
#define FSCK_PROBLEM_H

#include "check/inspect.h"

struct fsck_problems {
	bool json;
	bool muted;			/* count only: the look after a repair */
	uint64_t nr_notes;		/* not a fault */
	uint64_t nr_faults;		/* warnings, errors, violations */
	uint64_t nr_violations;
	uint64_t nr_by_code[MLS_NR_FINDINGS];
};

/* A mls_report_fn; arg is a struct fsck_problems. Writes to stdout. */
void fsck_problem_report(void *arg, const struct mls_finding *finding);

/* A heading, for people. */
void fsck_pass_begin(const struct fsck_problems *problems, unsigned pass, const char *what);

/* text within a JSON string, without the quotes. */
void fsck_json_text(const char *text);

#endif
