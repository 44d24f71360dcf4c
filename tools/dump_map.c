/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_map.c - section map: gather the cells, and draw them in the terminal.
 *
 * In the terminal a cell is one letter, that of the class most of its runs belong to; but damage is never
 * outvoted. The picture as a file (dump_svg.c) shows all classes of a cell.
 */
#include "tools/dump_map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_size.h"

#define TERMINAL_ROWS_MAX 32u

static const struct {
	char letter;
	const char *colour, *text;
} classes[MAP_NR_CLASSES] = {
	[MAP_FREE] = { '.', "90", "free" },
	[MAP_SEGMENT] = { '0', "35", "segment, nothing live" },
	[MAP_SEGMENT + 1] = { '1', "36", "segment, to 20 % live" },
	[MAP_SEGMENT + 2] = { '2', "36", "segment, to 40 % live" },
	[MAP_SEGMENT + 3] = { '3', "34", "segment, to 60 % live" },
	[MAP_SEGMENT + 4] = { '4', "34", "segment, to 80 % live" },
	[MAP_SEGMENT + 5] = { '5', "94", "segment, to 100 % live" },
	[MAP_CHUNK] = { 'i', "33", "index (chunk of a log)" },
	[MAP_TWICE] = { '!', "31", "owned twice" },
	[MAP_ZEROS] = { '.', "90", "zeros" },
	[MAP_CLOSED] = { 's', "34", "closed segment" },
	[MAP_WRITTEN] = { 'w', "33", "written: segment, index or free again" },
};

const char *map_class_text(enum map_class class)
{
	return classes[class].text;
}

/* ---- Gathering ---- */

static enum map_class class_of(struct dump *d, uint64_t run)
{
	const struct mls_inspect_run *r;

	if (d->x->area < 0) {	/* nothing is known of the runs: there is no list of them */
		switch (dump_look_at_run(d, run)) {
		case LOOK_ZEROS:
			return MAP_ZEROS;
		case LOOK_SUMMARY:
			return MAP_CLOSED;
		default:
			return MAP_WRITTEN;
		}
	}
	r = &d->x->runs[run];
	switch (r->kind) {
	case MLS_RUN_FREE:
		return MAP_FREE;
	case MLS_RUN_CHUNK:
		return MAP_CHUNK;
	case MLS_RUN_TWICE:
		return MAP_TWICE;
	default:
		if (r->nr_live == 0)
			return MAP_SEGMENT;
		return r->nr_live >= d->x->nr_slots ? MAP_SEGMENT + 5 :
						      MAP_SEGMENT + 1 + (r->nr_live - 1) * 5 / d->x->nr_slots;
	}
}

static uint64_t wal_used(const struct mls_inspect *x)
{
	uint64_t nr = 0;

	for (size_t i = 0; i < x->nr_groups; i++)
		nr += x->groups[i].nr_blocks;
	return nr;
}

static void gather_rest(struct map *map, struct dump *d)
{
	static const char *const names[] = { "journal 0", "journal 1" };
	const struct mls_inspect *x = d->x;

	map->nr_runs = x->nr_runs;
	map->run_blocks = x->run_blocks;
	map->runs_hba = x->runs_hba;
	map->backing_blocks = x->dev->nr_blocks;
	map->disk_blocks = x->sb.geo.disk_blocks;
	map->locked = x->area < 0;
	for (unsigned i = 0; i < MLS_NR_JOURNAL_AREAS; i++)
		map->areas[i] = (struct map_area){ names[i], x->areas[i].nr_blocks, x->areas[i].used_blocks };
	map->areas[2] = (struct map_area){ "WAL ring", x->wal_blocks, wal_used(x) };
	mls_uuid_format(map->uuid, x->sb.uuid);
}

int map_gather(struct map *map, struct dump *d, size_t cells_max)
{
	int err = d->x->area >= 0 ? mls_inspect_count(d->x) : 0;

	if (err)
		return err;
	*map = (struct map){ .runs_per_cell = 1 };
	gather_rest(map, d);
	if (map->nr_runs > cells_max)
		map->runs_per_cell = (map->nr_runs + cells_max - 1) / cells_max;
	map->nr_cells = (map->nr_runs + map->runs_per_cell - 1) / map->runs_per_cell;
	map->cells = calloc(map->nr_cells + 1, sizeof *map->cells);
	if (!map->cells)
		return MLS_ENOMEM;
	for (uint64_t run = 0; run < map->nr_runs; run++) {
		enum map_class class = class_of(d, run);

		map->cells[run / map->runs_per_cell].nr[class]++;
		map->all[class]++;
		map->live_blocks += map->locked ? 0 : d->x->runs[run].nr_live;
	}
	return 0;
}

void map_release(struct map *map)
{
	free(map->cells);
	map->cells = NULL;
}

uint64_t map_cell_runs(const struct map *map, size_t cell)
{
	return cell + 1 < map->nr_cells ? map->runs_per_cell : map->nr_runs - cell * map->runs_per_cell;
}

/* ---- In the terminal ---- */

static enum map_class class_shown(const struct map_cell *cell)
{
	enum map_class most = MAP_FREE;

	if (cell->nr[MAP_TWICE])
		return MAP_TWICE;
	for (enum map_class class = 0; class < MAP_NR_CLASSES; class++)
		if (cell->nr[class] > cell->nr[most])
			most = class;
	return most;
}

static void put_letter(FILE *file, enum map_class class, bool colour)
{
	if (colour)
		fprintf(file, "\033[%sm%c\033[0m", classes[class].colour, classes[class].letter);
	else
		putc(classes[class].letter, file);
}

static void draw_legend(FILE *file, const struct map *map, bool colour)
{
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	for (enum map_class class = 0; class < MAP_NR_CLASSES; class++) {
		if (!map->all[class])
			continue;
		fputs("  ", file);
		put_letter(file, class, colour);
		mls_cli_format_size(size, map->all[class] * map->run_blocks * MLS_BLOCK_BYTES);
		fprintf(file, "  %-38s %10" PRIu64 " run%s %s\n", classes[class].text, map->all[class],
			map->all[class] == 1 ? ", " : "s,", size);
	}
}

void map_draw_terminal(FILE *file, const struct map *map, unsigned columns, bool colour)
{
	char size[MLS_CLI_SIZE_TEXT_BYTES];

	fprintf(file, "disk %s\n", map->uuid);
	fprintf(file, "a letter is %" PRIu64 " run%s, %s; at the left: where on BACKING\n", map->runs_per_cell,
		map->runs_per_cell == 1 ? "" : "s, most of them of that kind",
		mls_cli_format_size(size, map->runs_per_cell * map->run_blocks * MLS_BLOCK_BYTES));
	for (size_t cell = 0; cell < map->nr_cells; cell++) {
		uint64_t hba = map->runs_hba + cell * map->runs_per_cell * map->run_blocks;

		if (cell % columns == 0)
			fprintf(file, "\n%10s  ", mls_cli_format_size(size, hba * MLS_BLOCK_BYTES));
		put_letter(file, class_shown(&map->cells[cell]), colour);
	}
	fputs("\n\n", file);
	draw_legend(file, map, colour);
}

/* ---- The section ---- */

static unsigned terminal_columns(FILE *file)
{
	struct winsize size;

	if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
		return size.ws_col > 140 ? 128 : size.ws_col - 12u;
	return 64;
}

/* Drawing over the disk itself would be a bad end. */
static FILE *open_svg(struct dump *d)
{
	struct stat ours, theirs;
	FILE *file;

	if (strcmp(d->svg, "-") == 0)
		return stdout;
	if (stat(d->backing, &theirs) == 0 && stat(d->svg, &ours) == 0 &&
	    (!S_ISREG(ours.st_mode) || (ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino))) {
		mls_cli_error("%s: BACKING, or not a regular file: won't be overwritten", d->svg);
		return NULL;
	}
	file = fopen(d->svg, "we");
	if (!file)
		mls_cli_error("%s: %s", d->svg, strerror(errno));
	return file;
}

static int write_svg(struct dump *d, const struct map *map)
{
	FILE *file = open_svg(d);
	bool bad;

	d->told = true;
	if (!file)
		return MLS_EIO;
	map_draw_svg(file, map);
	if (file == stdout)
		return 0;	/* looked at in the end */
	bad = ferror(file) != 0;
	if (fclose(file) != 0 || bad) {
		mls_cli_error("%s: %s", d->svg, strerror(errno));
		return MLS_EIO;
	}
	return 0;
}

static void print_cells(struct dump *d, const struct map *map)
{
	static const struct out_column columns[] = {
		{ "run", 1 }, { "runs", 1 }, { "free", 1 }, { "segments_by_live", 1 }, { "chunks", 1 },
		{ "twice", 1 }, { "zeros", 1 }, { "closed_segments", 1 }, { "written", 1 },
	};

	out_object(d->out, "map");
	out_number(d->out, "runs_per_cell", map->runs_per_cell);
	out_number(d->out, "run_blocks", map->run_blocks);
	out_number(d->out, "runs_hba", map->runs_hba);
	out_table(d->out, "cells", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < map->nr_cells; i++) {
		const uint32_t *nr = map->cells[i].nr;
		uint64_t fills[MAP_NR_FILLS];

		for (unsigned k = 0; k < MAP_NR_FILLS; k++)
			fills[k] = nr[MAP_SEGMENT + k];
		out_row(d->out);
		out_number(d->out, "run", i * map->runs_per_cell);
		out_number(d->out, "runs", map_cell_runs(map, i));
		out_number(d->out, "free", nr[MAP_FREE]);
		out_numbers(d->out, "segments_by_live", fills, MAP_NR_FILLS);
		out_number(d->out, "chunks", nr[MAP_CHUNK]);
		out_number(d->out, "twice", nr[MAP_TWICE]);
		out_number(d->out, "zeros", nr[MAP_ZEROS]);
		out_number(d->out, "closed_segments", nr[MAP_CLOSED]);
		out_number(d->out, "written", nr[MAP_WRITTEN]);
		out_row_end(d->out);
	}
	out_table_end(d->out);
	out_object_end(d->out);
}

int dump_map(struct dump *d)
{
	unsigned columns = terminal_columns(d->out->file);
	bool colour = isatty(fileno(d->out->file)) && !getenv("NO_COLOR");
	struct map map;
	int err;

	if (!d->x->has_sb) {
		mls_cli_error("nothing can be drawn: no superblock says where things are");
		return 0;
	}
	err = map_gather(&map, d, d->svg || d->out->json ? MAP_SVG_CELLS : columns * TERMINAL_ROWS_MAX);
	if (err)
		return err;
	if (d->svg)
		err = write_svg(d, &map);
	if (d->out->json)
		print_cells(d, &map);
	else if (!d->svg)
		map_draw_terminal(d->out->file, &map, columns, colour);
	map_release(&map);
	return err;
}
