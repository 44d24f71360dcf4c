/* SPDX-License-Identifier: MPL-2.0 */
/* options.h - the command line of mlsdisk-fuse. */
#ifndef MLS_FUSE_OPTIONS_H
#define MLS_FUSE_OPTIONS_H

#include "mlsdisk/mlsdisk.h"

struct mls_fuse_options {
	const char *backing; /* NULL: the default disk */
	const char *mount_point;
	const char *key_file;	   /* NULL: ask */
	const char *trusted_store; /* NULL: the default */
	char *mount_options;	   /* joined by commas; NULL: none */
	uint64_t cache_bytes;	   /* 0: the default */
	bool accept_rollback, read_only, strict_sync, foreground;
	bool discard, no_discard; /* a block device gives free space back; a file doesn't */
	bool no_defrag;
};

enum mls_options_verdict {
	MLS_OPTIONS_RUN,  /* go on */
	MLS_OPTIONS_EXIT, /* all is said (--help, a mistake): exit with *status */
};

enum mls_options_verdict mls_fuse_options_parse(struct mls_fuse_options *options, int argc, char **argv,
						int *status);

/* Add "name" or "name=value" to the mount options, value escaped as libfuse wants it. */
MLS_MUST_CHECK int mls_fuse_options_add_mount_option(struct mls_fuse_options *options, const char *name,
						     const char *value);

#endif
