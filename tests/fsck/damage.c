/* SPDX-License-Identifier: MPL-2.0 */
/*
 * damage.c - makes a small disk, and damages one thing of it, for the golden tests of mlsdisk-fsck.
 *
 *   damage base DIR    makes DIR/disk.img, DIR/store and DIR/key
 *   damage KIND DIR    damages the disk there (list: damage list)
 *
 * What only an attacker or a bad medium can do is done to the bytes; what only a faulty program can do
 * is sealed anew with the key: journal, WAL or SSTable are read, changed, and written in their place.
 */
#include "tests/fsck/damage.h"

#include <stdio.h>
#include <string.h>

static void nothing(struct lab *l) { (void)l; }

static const struct damage_kind damage_none[] = { { "nothing", nothing }, { NULL, NULL } };
static const struct damage_kind *const lists[] = { damage_none, damage_outer, damage_inner };

#define NR_LISTS (sizeof lists / sizeof lists[0])

static void print_kinds(void)
{
	for (size_t i = 0; i < NR_LISTS; i++)
		for (const struct damage_kind *kind = lists[i]; kind->name; kind++)
			puts(kind->name);
}

static const struct damage_kind *find_kind(const char *name)
{
	for (size_t i = 0; i < NR_LISTS; i++)
		for (const struct damage_kind *kind = lists[i]; kind->name; kind++)
			if (strcmp(kind->name, name) == 0)
				return kind;
	lab_require(false, "no such kind");
	return NULL;
}

int main(int argc, char **argv)
{
	struct lab l = { .dev = NULL };

	if (argc == 2 && strcmp(argv[1], "list") == 0) {
		print_kinds();
		return 0;
	}
	lab_require(argc == 3 && strlen(argv[2]) < 400, "usage: damage {base|KIND} DIR, or damage list");
	snprintf(l.image, sizeof l.image, "%s/disk.img", argv[2]);
	snprintf(l.store_path, sizeof l.store_path, "%s/store", argv[2]);
	if (strcmp(argv[1], "base") == 0) {
		lab_make_base(&l);
	} else {
		const struct damage_kind *kind = find_kind(argv[1]);

		lab_open(&l, 0);
		lab_look(&l);
		kind->damage(&l);
	}
	lab_close(&l);
	return 0;
}
