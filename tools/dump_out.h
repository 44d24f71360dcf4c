/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_out.h - what mlsdisk-dump says, as text for people or as JSON for programs.
 *
 * Role     One call for each fact, so that the two can't tell different things: the key of the JSON
 *          object, with spaces for '_', is the label in the text.
 * Shapes   Objects of fields and tables; a table is an array of objects that all have the same keys.
 *          JSON: one object, then a newline. What doesn't apply is null, in text "-".
 * Foreign  Text that the host may have written goes through out_text: nothing of it reaches a
 *          terminal, or breaks the JSON.
 * Errors   Those of the stream; ask ferror at the end.
 */
#ifndef MLS_TOOLS_DUMP_OUT_H
#define MLS_TOOLS_DUMP_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OUT_DEPTH_MAX 8

struct out_column {
	const char *key;
	int width;		/* of the text; negative: to the left */
};

struct dump_out {
	FILE *file;
	bool json;
	unsigned depth;		/* of open objects and tables */
	bool has_one[OUT_DEPTH_MAX];	/* ... that have a member already */
	const struct out_column *columns, *next;	/* of the open table; the field that must come next */
	size_t nr_columns;
};

void out_start(struct dump_out *o, FILE *file, bool json);
void out_finish(struct dump_out *o);

void out_object(struct dump_out *o, const char *key);
void out_object_end(struct dump_out *o);

/* Rows between row and row_end have all columns, in order. Tables don't hold tables. */
void out_table(struct dump_out *o, const char *key, const struct out_column *columns, size_t nr_columns);
void out_table_end(struct dump_out *o);
void out_row(struct dump_out *o);
void out_row_end(struct dump_out *o);

void out_text(struct dump_out *o, const char *key, const char *text);	/* NULL: doesn't apply */
void out_number(struct dump_out *o, const char *key, uint64_t number);
void out_signed(struct dump_out *o, const char *key, int64_t number);
void out_blocks(struct dump_out *o, const char *key, uint64_t nr_blocks);	/* text: with the size, too */
void out_bool(struct dump_out *o, const char *key, bool value);
void out_hex(struct dump_out *o, const char *key, const void *bytes, size_t nr_bytes);
void out_none(struct dump_out *o, const char *key);
void out_number_if(struct dump_out *o, const char *key, bool applies, uint64_t number);
/* A ratio of thousandths: "12.3 %", in JSON 0.123. */
void out_ratio(struct dump_out *o, const char *key, uint64_t part, uint64_t whole);
/* "2.345", in JSON the same number; null if there is nothing to divide by. */
void out_factor(struct dump_out *o, const char *key, uint64_t dividend, uint64_t divisor);
/* Text "0-3,7", JSON [0, 1, 2, 3, 7]. */
void out_numbers(struct dump_out *o, const char *key, const uint64_t *numbers, size_t nr);
/* A block of user data. Text: rows of 16 bytes as hexdump -C has them; JSON: hexadecimal digits. */
void out_data(struct dump_out *o, const char *key, const uint8_t *bytes, size_t nr_bytes);

#endif
