/* SPDX-License-Identifier: MPL-2.0 */
/*
 * baseline_fuse.c - baseline-fuse KIND, then the command line of mlsdisk-fuse: a baseline as MOUNTPOINT/image.raw.
 *
 *	baseline-fuse null|pass|crypt|pfs --key-file=KEYFILE --trusted-store=none BACKING MOUNTPOINT
 *
 * It is mlsdisk-fuse: its main (renamed by the build) and all its files, over another engine.
 */
#include <stdio.h>

#include "bench/baselines/baseline_engine.h"
#include "fuse/default_disk.h"

#undef main	/* of fuse_main.h: this one is the program's */

/* mlsdisk-fuse MOUNTPOINT alone makes a disk; a baseline is made by who measures it. */
int mls_default_disk_prepare(char **backing, char **key_file)
{
	(void)backing, (void)key_file;
	fprintf(stderr, "baseline-fuse: BACKING is missing\n");
	return 2;
}

int main(int argc, char **argv)
{
	if (argc < 4 || baseline_select(argv[1])) {
		fprintf(stderr, "usage: baseline-fuse null|pass|crypt|pfs --key-file=KEYFILE --trusted-store=none BACKING "
				"MOUNTPOINT\n");
		return 2;
	}
	return mls_fuse_main(argc - 1, argv + 1);
}
