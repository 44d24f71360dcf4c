/* SPDX-License-Identifier: MPL-2.0 */
/* dump_args.h - the command line of mlsdisk-dump. */
#ifndef MLS_TOOLS_DUMP_ARGS_H
#define MLS_TOOLS_DUMP_ARGS_H

#include "tools/dump.h"

struct dump_section {
	const char *name, *arg;		/* arg NULL: takes none */
	dump_limit_fn *limit;		/* of the argument */
	dump_section_fn *run;
	bool in_overview;		/* shown if no section is asked for */
};
extern const struct dump_section dump_sections[];
extern const size_t dump_nr_sections;

struct dump_args {
	const char *backing, *key_file, *store_uri, *svg;
	const struct dump_section *section;	/* NULL: overview */
	uint64_t arg;
	bool json, data;
};

/* Returns an exit status; *go_on is false if all is done (--help) or wrong. */
int dump_args_parse(struct dump_args *args, int argc, char **argv, bool *go_on);

#endif
