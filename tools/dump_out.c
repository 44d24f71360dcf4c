/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_out.c - text and JSON from the same calls; see dump_out.h.
 *
 * Invariant: between calls the JSON written so far lacks nothing but the closing brackets of the
 * `depth` open objects and tables, so a comma is owed to whoever has a member already.
 */
#include "tools/dump_out.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli_size.h"

#define LABEL_COLUMNS 24
#define VALUE_TEXT_BYTES 96

/* ---- JSON ---- */

static void put_json_string(FILE *file, const char *text)
{
	putc('"', file);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(file, "\\%c", c);
		else if (c >= 0x20 && c < 0x7f)
			putc(c, file);
		else
			fprintf(file, "\\u%04x", c);	/* not taken for UTF-8: it may not be */
	}
	putc('"', file);
}

static void json_indent(struct dump_out *o)
{
	putc('\n', o->file);
	for (unsigned i = 0; i < o->depth; i++)
		fputs("  ", o->file);
}

/* Up to where the value goes. key NULL: a member of a table. */
static void json_key(struct dump_out *o, const char *key)
{
	if (o->has_one[o->depth])
		putc(',', o->file);
	o->has_one[o->depth] = true;
	if (o->next && key)
		fputs(o->next == o->columns ? "" : " ", o->file);	/* rows stay on one line */
	else
		json_indent(o);
	if (key) {
		put_json_string(o->file, key);
		fputs(": ", o->file);
	}
}

static void json_open(struct dump_out *o, const char *key, char bracket)
{
	json_key(o, key);
	putc(bracket, o->file);
	MLS_INVARIANT(o->depth + 1 < OUT_DEPTH_MAX);
	o->has_one[++o->depth] = false;
}

static void json_close(struct dump_out *o, char bracket, bool same_line)
{
	bool had_one = o->has_one[o->depth--];

	if (had_one && !same_line)
		json_indent(o);
	putc(bracket, o->file);
}

/* ---- Text ---- */

static void put_label(FILE *file, const char *key, int width)
{
	char label[LABEL_COLUMNS * 2];
	size_t nr = 0;

	for (; key[nr] && nr < sizeof label - 1; nr++)
		label[nr] = key[nr] == '_' ? ' ' : key[nr];
	label[nr] = '\0';
	fprintf(file, "%*s", width, label);
}

static void text_indent(struct dump_out *o)
{
	for (unsigned i = 1; i < o->depth; i++)
		fputs("  ", o->file);
}

static void text_heading(struct dump_out *o, const char *key)
{
	if (o->depth == 1 && o->has_one[1])
		putc('\n', o->file);
	o->has_one[o->depth] = true;
	text_indent(o);
	put_label(o->file, key, 0);
	putc('\n', o->file);
}

static void text_value(struct dump_out *o, const char *key, const char *value)
{
	if (o->next) {
		bool last = o->next + 1 == o->columns + o->nr_columns;

		/* nothing is padded at the end of a line */
		fprintf(o->file, "  %*s", last && o->next->width < 0 ? 0 : o->next->width, value);
		return;
	}
	if (o->depth == 1 && o->has_one[1])
		putc('\n', o->file);
	o->has_one[o->depth] = true;
	text_indent(o);
	put_label(o->file, key, -(LABEL_COLUMNS - 2 * (int)(o->depth - (o->depth > 0))));
	fprintf(o->file, "  %s\n", value);
}

/* ---- Both ---- */

void out_start(struct dump_out *o, FILE *file, bool json)
{
	*o = (struct dump_out){ .file = file, .json = json, .depth = 1 };
	if (json)
		putc('{', file);
}

void out_finish(struct dump_out *o)
{
	MLS_INVARIANT(o->depth == 1 && !o->columns);
	if (o->json)
		fputs("\n}\n", o->file);
}

void out_object(struct dump_out *o, const char *key)
{
	if (o->json) {
		json_open(o, key, '{');
		return;
	}
	text_heading(o, key);
	MLS_INVARIANT(o->depth + 1 < OUT_DEPTH_MAX);
	o->has_one[++o->depth] = false;
}

void out_object_end(struct dump_out *o)
{
	if (o->json)
		json_close(o, '}', false);
	else
		o->depth--;
}

void out_table(struct dump_out *o, const char *key, const struct out_column *columns, size_t nr_columns)
{
	MLS_INVARIANT(!o->columns && nr_columns > 0);
	o->columns = columns;
	o->nr_columns = nr_columns;
	if (o->json) {
		json_open(o, key, '[');
		return;
	}
	text_heading(o, key);
	o->has_one[++o->depth] = false;
}

static void text_table_head(struct dump_out *o)
{
	text_indent(o);
	for (size_t i = 0; i < o->nr_columns; i++) {
		fputs("  ", o->file);
		put_label(o->file, o->columns[i].key,
			  i + 1 == o->nr_columns && o->columns[i].width < 0 ? 0 : o->columns[i].width);
	}
	putc('\n', o->file);
}

void out_table_end(struct dump_out *o)
{
	MLS_INVARIANT(o->columns && !o->next);
	if (o->json) {
		json_close(o, ']', false);
	} else {
		if (!o->has_one[o->depth]) {
			text_indent(o);
			fputs("  none\n", o->file);
		}
		o->depth--;
	}
	o->columns = NULL;
}

void out_row(struct dump_out *o)
{
	MLS_INVARIANT(o->columns && !o->next);
	if (o->json) {
		json_open(o, NULL, '{');
	} else {
		if (!o->has_one[o->depth])
			text_table_head(o);
		o->has_one[o->depth] = true;
		text_indent(o);
	}
	o->next = o->columns;
}

void out_row_end(struct dump_out *o)
{
	MLS_INVARIANT(o->next == o->columns + o->nr_columns);
	o->next = NULL;
	if (o->json)
		json_close(o, '}', true);
	else
		putc('\n', o->file);
}

/* The place of a field's value is found; json true: write it now. */
static bool begin_value(struct dump_out *o, const char *key)
{
	if (o->next)
		MLS_INVARIANT(o->next < o->columns + o->nr_columns && strcmp(o->next->key, key) == 0);
	if (o->json)
		json_key(o, key);
	return o->json;
}

static void end_value(struct dump_out *o)
{
	if (o->next)
		o->next++;
}

/* json and text are what to write; json NULL: text, as a string. */
static void put_value(struct dump_out *o, const char *key, const char *json, const char *text)
{
	if (!begin_value(o, key))
		text_value(o, key, text);
	else if (json)
		fputs(json, o->file);
	else
		put_json_string(o->file, text);
	end_value(o);
}

void out_text(struct dump_out *o, const char *key, const char *text)
{
	char shown[VALUE_TEXT_BYTES * 4];
	size_t nr = 0;

	if (!text) {
		out_none(o, key);
		return;
	}
	if (!o->json) {
		for (; text[nr] && nr < sizeof shown - 1; nr++)
			shown[nr] = text[nr] >= 0x20 && text[nr] < 0x7f ? text[nr] : '?';
		shown[nr] = '\0';
	}
	put_value(o, key, NULL, o->json ? text : shown);
}

void out_number(struct dump_out *o, const char *key, uint64_t number)
{
	char text[VALUE_TEXT_BYTES];

	snprintf(text, sizeof text, "%" PRIu64, number);
	put_value(o, key, text, text);
}

void out_signed(struct dump_out *o, const char *key, int64_t number)
{
	char text[VALUE_TEXT_BYTES];

	snprintf(text, sizeof text, "%" PRId64, number);
	put_value(o, key, text, text);
}

void out_blocks(struct dump_out *o, const char *key, uint64_t nr_blocks)
{
	char number[VALUE_TEXT_BYTES], text[VALUE_TEXT_BYTES], size[MLS_CLI_SIZE_TEXT_BYTES];
	uint64_t bytes = nr_blocks > UINT64_MAX / MLS_BLOCK_BYTES ? UINT64_MAX : nr_blocks * MLS_BLOCK_BYTES;

	snprintf(number, sizeof number, "%" PRIu64, nr_blocks);
	snprintf(text, sizeof text, "%" PRIu64 " (%s)", nr_blocks, mls_cli_format_size(size, bytes));
	put_value(o, key, number, o->next ? number : text);
}

void out_bool(struct dump_out *o, const char *key, bool value)
{
	put_value(o, key, value ? "true" : "false", value ? "yes" : "no");
}

void out_none(struct dump_out *o, const char *key)
{
	put_value(o, key, "null", "-");
}

void out_number_if(struct dump_out *o, const char *key, bool applies, uint64_t number)
{
	if (applies)
		out_number(o, key, number);
	else
		out_none(o, key);
}

void out_ratio(struct dump_out *o, const char *key, uint64_t part, uint64_t whole)
{
	uint64_t thousandths = whole ? (uint64_t)((double)part / (double)whole * 1000 + 0.5) : 0;
	char json[VALUE_TEXT_BYTES], text[VALUE_TEXT_BYTES];

	if (!whole) {
		out_none(o, key);
		return;
	}
	snprintf(json, sizeof json, "%" PRIu64 ".%03" PRIu64, thousandths / 1000, thousandths % 1000);
	snprintf(text, sizeof text, "%" PRIu64 ".%" PRIu64 " %%", thousandths / 10, thousandths % 10);
	put_value(o, key, json, text);
}

void out_factor(struct dump_out *o, const char *key, uint64_t dividend, uint64_t divisor)
{
	char text[VALUE_TEXT_BYTES];

	if (!divisor) {
		out_none(o, key);
		return;
	}
	snprintf(text, sizeof text, "%.3f", (double)dividend / (double)divisor);
	put_value(o, key, text, text);
}

void out_hex(struct dump_out *o, const char *key, const void *bytes, size_t nr_bytes)
{
	const uint8_t *p = bytes;
	char text[VALUE_TEXT_BYTES];

	MLS_INVARIANT(nr_bytes * 2 < sizeof text);
	for (size_t i = 0; i < nr_bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", p[i]);
	put_value(o, key, NULL, text);
}

static void put_ranges(FILE *file, const uint64_t *numbers, size_t nr)
{
	for (size_t i = 0, end; i < nr; i = end) {
		for (end = i + 1; end < nr && numbers[end] == numbers[end - 1] + 1; end++)
			;
		fprintf(file, i ? ",%" PRIu64 : "%" PRIu64, numbers[i]);
		if (end - i > 1)
			fprintf(file, "-%" PRIu64, numbers[end - 1]);
	}
}

void out_numbers(struct dump_out *o, const char *key, const uint64_t *numbers, size_t nr)
{
	if (begin_value(o, key)) {
		putc('[', o->file);
		for (size_t i = 0; i < nr; i++)
			fprintf(o->file, i ? ", %" PRIu64 : "%" PRIu64, numbers[i]);
		putc(']', o->file);
	} else {
		/* the last column: no width to keep to */
		MLS_INVARIANT(o->next && o->next + 1 == o->columns + o->nr_columns);
		fputs("  ", o->file);
		put_ranges(o->file, numbers, nr);
	}
	end_value(o);
}

/* ---- User data ---- */

static void put_dump_line(FILE *file, size_t at, const uint8_t *bytes)
{
	fprintf(file, "%08zx ", at);
	for (unsigned i = 0; i < 16; i++)
		fprintf(file, i == 8 ? "  %02x" : " %02x", bytes[i]);
	fputs("  |", file);
	for (unsigned i = 0; i < 16; i++)
		putc(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '.', file);
	fputs("|\n", file);
}

/* Equal lines in a row become one '*'. */
static void put_dump(FILE *file, const uint8_t *bytes, size_t nr_bytes)
{
	bool starred = false;

	for (size_t at = 0; at + 16 <= nr_bytes; at += 16) {
		if (at && memcmp(bytes + at, bytes + at - 16, 16) == 0) {
			if (!starred)
				fputs("*\n", file);
			starred = true;
			continue;
		}
		starred = false;
		put_dump_line(file, at, bytes + at);
	}
	fprintf(file, "%08zx\n", nr_bytes);
}

void out_data(struct dump_out *o, const char *key, const uint8_t *bytes, size_t nr_bytes)
{
	MLS_INVARIANT(!o->columns);
	if (begin_value(o, key)) {
		putc('"', o->file);
		for (size_t i = 0; i < nr_bytes; i++)
			fprintf(o->file, "%02x", bytes[i]);
		putc('"', o->file);
	} else {
		text_heading(o, key);
		put_dump(o->file, bytes, nr_bytes);
	}
}
