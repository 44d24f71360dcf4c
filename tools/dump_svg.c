/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_svg.c - the picture of a disk as SVG.
 *
 * A square stands for the runs of a cell. Its classes are layers in it, as high as their share, free space
 * on top; so a picture of ten tebibytes, where a square is a thousand runs, still shows how full they are,
 * and one run is a square of one colour. All squares of a class are one path, which keeps the file small.
 *
 * Colours: lightness grows with emptiness, and blue, orange and red also differ for those who don't see
 * them all.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/cli_size.h"
#include "tools/dump_map.h"

#define WIDTH 960
#define LEFT 96
#define GRID_WIDTH 832
#define GRID_TOP 132
#define LEGEND_ROW 22
#define LEGEND_COLUMN 464

static const char *const colours[MAP_NR_CLASSES] = {
	[MAP_FREE] = "#eef0f2",
	[MAP_SEGMENT] = "#f2b8c6",
	[MAP_SEGMENT + 1] = "#c6dbef",
	[MAP_SEGMENT + 2] = "#9ecae1",
	[MAP_SEGMENT + 3] = "#6baed6",
	[MAP_SEGMENT + 4] = "#3182bd",
	[MAP_SEGMENT + 5] = "#08457e",
	[MAP_CHUNK] = "#f58518",
	[MAP_TWICE] = "#d00000",
	[MAP_ZEROS] = "#eef0f2",
	[MAP_CLOSED] = "#6baed6",
	[MAP_WRITTEN] = "#a0a4a8",
};

struct grid {
	unsigned columns, rows;
	double pitch, gap;	/* from square to square; between them */
};

static struct grid grid_of(const struct map *map)
{
	unsigned columns = map->nr_cells <= 512 ? 32 : map->nr_cells <= 2048 ? 48 : 64;
	struct grid grid = { .columns = columns, .rows = (unsigned)((map->nr_cells + columns - 1) / columns) };

	grid.pitch = (double)GRID_WIDTH / columns;
	grid.gap = grid.pitch / 12;
	return grid;
}

/* ---- Squares ---- */

/* The top and the bottom of a class's layer in its cell, 0 (top) to 1. */
static void layer_of(const struct map_cell *cell, uint64_t nr_runs, enum map_class class, double *top,
		     double *bottom)
{
	uint64_t above = 0;

	for (enum map_class c = 0; c < class; c++)
		above += cell->nr[c];
	*top = (double)above / (double)nr_runs;
	*bottom = (double)(above + cell->nr[class]) / (double)nr_runs;
}

static void draw_class(FILE *file, const struct map *map, const struct grid *grid, enum map_class class)
{
	double side = grid->pitch - grid->gap;

	fprintf(file, "<path fill=\"%s\" d=\"", colours[class]);
	for (size_t i = 0; i < map->nr_cells; i++) {
		double x = LEFT + (double)(i % grid->columns) * grid->pitch;
		double y = GRID_TOP + (double)(i / grid->columns) * grid->pitch;
		double top, bottom;

		if (!map->cells[i].nr[class])
			continue;
		layer_of(&map->cells[i], map_cell_runs(map, i), class, &top, &bottom);
		fprintf(file, "M%.1f %.1fh%.1fv%.2fh-%.1fz", x, y + top * side, side, (bottom - top) * side,
			side);
	}
	fputs("\"/>\n", file);
}

/* One run among a thousand is a layer that nobody can see, so damage gets a frame, too. */
static void draw_frames(FILE *file, const struct map *map, const struct grid *grid)
{
	double side = grid->pitch - grid->gap;

	for (size_t i = 0; i < map->nr_cells; i++) {
		if (!map->cells[i].nr[MAP_TWICE])
			continue;
		fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"",
			LEFT + (double)(i % grid->columns) * grid->pitch,
			GRID_TOP + (double)(i / grid->columns) * grid->pitch, side, side);
		fprintf(file, " fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\"/>\n", colours[MAP_TWICE]);
	}
}

static void draw_row_labels(FILE *file, const struct map *map, const struct grid *grid)
{
	unsigned step = 1 + (unsigned)(20 / grid->pitch);
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	for (unsigned row = 0; row < grid->rows; row += step) {
		uint64_t hba = map->runs_hba + row * grid->columns * map->runs_per_cell * map->run_blocks;

		fprintf(file, "<text class=\"label\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			LEFT - 8, GRID_TOP + row * grid->pitch + (grid->pitch + 8) / 2,
			mls_cli_format_size(size, hba * MLS_BLOCK_BYTES));
	}
}

/* ---- Around them ---- */

static void draw_head(FILE *file, const struct map *map)
{
	char disk[MLS_CLI_SIZE_TEXT_BYTES], backing[MLS_CLI_SIZE_TEXT_BYTES], live[MLS_CLI_SIZE_TEXT_BYTES];
	char cell[MLS_CLI_SIZE_TEXT_BYTES];

	mls_cli_format_size(disk, map->disk_blocks * MLS_BLOCK_BYTES);
	mls_cli_format_size(backing, map->backing_blocks * MLS_BLOCK_BYTES);
	mls_cli_format_size(live, map->live_blocks * MLS_BLOCK_BYTES);
	mls_cli_format_size(cell, map->runs_per_cell * map->run_blocks * MLS_BLOCK_BYTES);
	fprintf(file, "<text class=\"title\" x=\"24\" y=\"32\">MlsDisk %s</text>\n", map->uuid);
	fprintf(file, "<text class=\"sub\" x=\"24\" y=\"54\">%s on %s; ", disk, backing);
	if (map->locked)
		fputs("as seen without its key", file);
	else
		fprintf(file, "%s live", live);
	fprintf(file, ". A square is %" PRIu64 " run%s, %s%s.</text>\n", map->runs_per_cell,
		map->runs_per_cell == 1 ? "" : "s", cell,
		map->runs_per_cell == 1 ? "" : "; a colour's height in it is its share");
}

/* The areas before the runs aren't to scale: they would be too small to see. */
static void draw_areas(FILE *file, const struct map *map)
{
	const double width = (double)(GRID_WIDTH - 2 * 16) / MAP_NR_AREAS;
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	for (unsigned i = 0; i < MAP_NR_AREAS; i++) {
		const struct map_area *area = &map->areas[i];
		double x = LEFT + i * (width + 16), share = 0;

		if (area->nr_blocks)
			share = (double)area->used_blocks / (double)area->nr_blocks;
		fprintf(file, "<text class=\"label\" x=\"%.1f\" y=\"84\">%s, %s", x, area->name,
			mls_cli_format_size(size, area->nr_blocks * MLS_BLOCK_BYTES));
		if (!map->locked)
			fprintf(file, ", %.0f %% used", share * 100);
		fputs("</text>\n", file);
		fprintf(file, "<rect x=\"%.1f\" y=\"92\" width=\"%.1f\" height=\"14\" fill=\"#eef0f2\"/>\n", x,
			width);
		fprintf(file, "<rect x=\"%.1f\" y=\"92\" width=\"%.1f\" height=\"14\" fill=\"#54a24b\"/>\n", x,
			(share > 1 ? 1 : share) * width);
	}
}

static void draw_legend(FILE *file, const struct map *map, double top)
{
	unsigned nr = 0;
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	for (enum map_class class = 0; class < MAP_NR_CLASSES; class++) {
		bool visible = class >= MAP_ZEROS;
		double x = LEFT + nr % 2 * LEGEND_COLUMN, y = top + nr / 2 * LEGEND_ROW;

		if (visible != map->locked || (class == MAP_TWICE && !map->all[class]))
			continue;
		fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"14\" fill=\"%s\"", x, y,
			colours[class]);
		fputs(" stroke=\"#909498\" stroke-width=\"0.5\"/>\n", file);
		fprintf(file, "<text class=\"sub\" x=\"%.1f\" y=\"%.1f\">%s: %" PRIu64 " run%s, %s</text>\n",
			x + 22, y + 12, map_class_text(class), map->all[class], map->all[class] == 1 ? "" : "s",
			mls_cli_format_size(size, map->all[class] * map->run_blocks * MLS_BLOCK_BYTES));
		nr++;
	}
}

void map_draw_svg(FILE *file, const struct map *map)
{
	struct grid grid = grid_of(map);
	double legend_top = GRID_TOP + grid.rows * grid.pitch + 20;
	unsigned legend_rows = map->locked ? 2 : 5;
	double height = legend_top + legend_rows * LEGEND_ROW + 14;

	fprintf(file, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" "
		"viewBox=\"0 0 %d %.0f\" font-family=\"sans-serif\">\n", WIDTH, height, WIDTH, height);
	fputs("<style>.title{font-size:18px;font-weight:bold}.sub{font-size:13px}"
	      ".label{font-size:11px;fill:#505458}</style>\n", file);
	fputs("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n", file);
	draw_head(file, map);
	draw_areas(file, map);
	for (enum map_class class = 0; class < MAP_NR_CLASSES; class++)
		if (map->all[class])
			draw_class(file, map, &grid, class);
	draw_frames(file, map, &grid);
	draw_row_labels(file, map, &grid);
	draw_legend(file, map, legend_top);
	fputs("</svg>\n", file);
}
