/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_map.h - the disk as a picture: cells of one or more runs, by what the runs are.
 *
 * Role     map_gather makes the cells from a disk; the others draw them. They know nothing of disks,
 *          so any picture can be drawn for a test.
 * Shapes   A cell is runs_per_cell runs in a row (the last one may have fewer), and the number of runs of
 *          each class in it. Without a key only the three last classes, and MAP_ZEROS, occur.
 */
#ifndef MLS_TOOLS_DUMP_MAP_H
#define MLS_TOOLS_DUMP_MAP_H

#include "tools/dump.h"

#define MAP_NR_FILLS 6u		/* nothing live, then fifths */

enum map_class {
	MAP_FREE,
	MAP_SEGMENT,				/* nothing live; the next ones: to 20 %, to 40 % ... to 100 % */
	MAP_CHUNK = MAP_SEGMENT + MAP_NR_FILLS,
	MAP_TWICE,
	MAP_ZEROS, MAP_CLOSED, MAP_WRITTEN,	/* what can be seen without a key */
	MAP_NR_CLASSES,
};

struct map_cell {
	uint32_t nr[MAP_NR_CLASSES];
};

struct map_area {		/* what lies before the runs */
	const char *name;
	uint64_t nr_blocks, used_blocks;
};
#define MAP_NR_AREAS 3

struct map {
	struct map_cell *cells;
	size_t nr_cells;
	uint64_t nr_runs, runs_per_cell, run_blocks, runs_hba, backing_blocks, disk_blocks, live_blocks;
	uint64_t all[MAP_NR_CLASSES];
	struct map_area areas[MAP_NR_AREAS];
	bool locked;			/* seen without a key */
	char uuid[MLS_UUID_TEXT_BYTES];
};

/* Not more cells than cells_max. Frees nothing on error but what it made. */
MLS_MUST_CHECK int map_gather(struct map *map, struct dump *d, size_t cells_max);
void map_release(struct map *map);

uint64_t map_cell_runs(const struct map *map, size_t cell);	/* how many runs it stands for */
const char *map_class_text(enum map_class class);

void map_draw_terminal(FILE *file, const struct map *map, unsigned columns, bool colour);
void map_draw_svg(FILE *file, const struct map *map);
#define MAP_SVG_CELLS 4096u

#endif
