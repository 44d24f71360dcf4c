/* SPDX-License-Identifier: MPL-2.0 */
/* test_usage.h - for tests that run long: the clock on the wall, and the memory this process has. */
#ifndef MLS_TEST_USAGE_H
#define MLS_TEST_USAGE_H

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Seconds since some moment. */
static inline double test_wall_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* 0: it can't be told. */
static inline uint64_t test_resident_kib(void)
{
	uint64_t pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (!file || fscanf(file, "%*u %" SCNu64, &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return pages * ((uint64_t)sysconf(_SC_PAGESIZE) >> 10);
}

#endif
