/* SPDX-License-Identifier: MPL-2.0 */
/* fuse_main.h - included by the build into each file of baseline-fuse: the main of mlsdisk-fuse gets a name. */
#ifndef MLS_BENCH_FUSE_MAIN_H
#define MLS_BENCH_FUSE_MAIN_H

int mls_fuse_main(int argc, char **argv);
#define main mls_fuse_main

#endif
