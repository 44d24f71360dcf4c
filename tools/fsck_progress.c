/* SPDX-License-Identifier: MPL-2.0 */
/* fsck_progress.c - how far a check is; see fsck_progress.h. Tells ten times a second at most. */
#include "fsck_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mlsdisk/mlsdisk.h"

#define INTERVAL_S 0.1
#define BAR_CELLS 30u

static double seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void fsck_progress_init(struct fsck_progress *progress, int fd, const char *backing)
{
	*progress = (struct fsck_progress){ .fd = fd > 0 ? fd : -1, .backing = backing, .pass = UINT32_MAX };
	progress->bar = fd == 0 || (fd < 0 && isatty(STDERR_FILENO));
}

static void draw(struct fsck_progress *p, uint64_t done, uint64_t all)
{
	double part = all ? (double)done / (double)all : 1, passed = seconds_since(&p->started);
	unsigned full = (unsigned)(part * BAR_CELLS);
	char bar[BAR_CELLS + 1];

	memset(bar, '=', full);
	memset(bar + full, ' ', BAR_CELLS - full);
	bar[BAR_CELLS] = '\0';
	fprintf(stderr, "\rpass %u |%s| %3.0f%%", p->pass, bar, part * 100);
	if (p->pass == 6 && passed > 0.2)
		fprintf(stderr, ", %.0f MiB/s", (double)done * MLS_BLOCK_BYTES / (1024 * 1024) / passed);
	if (part > 0.01 && passed > 0.5)
		fprintf(stderr, ", %.0f s left", passed / part - passed);
	fprintf(stderr, "\033[K");
	p->drawn = true;
}

void fsck_progress_tell(void *arg, unsigned pass, uint64_t done, uint64_t all)
{
	struct fsck_progress *p = arg;
	bool is_new = pass != p->pass;

	if (p->fd < 0 && !p->bar)
		return;
	if (is_new) {
		p->pass = pass;
		clock_gettime(CLOCK_MONOTONIC, &p->started);
	}
	if (!is_new && done < all && seconds_since(&p->told) < INTERVAL_S)
		return;
	clock_gettime(CLOCK_MONOTONIC, &p->told);
	if (p->fd >= 0)
		dprintf(p->fd, "%u %" PRIu64 " %" PRIu64 " %s\n", pass, done, all, p->backing);
	else
		draw(p, done, all);
}

void fsck_progress_wipe(struct fsck_progress *progress)
{
	if (progress->drawn)
		fprintf(stderr, "\r\033[K");
	progress->drawn = false;
}
