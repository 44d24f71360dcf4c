/* SPDX-License-Identifier: MPL-2.0 */
/* toy.c - tests of layer 2: an owner whose state is easy to compare. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "tests/unit/2-edit/toy.h"

static void toy_reset(void *arg)
{
	struct toy *toy = arg;

	memset(toy->cells, 0, sizeof toy->cells);
}

static int toy_apply(void *arg, const uint8_t *edit, size_t bytes)
{
	struct toy *toy = arg;
	uint32_t cell;

	if (bytes != 12)
		return MLS_EFORMAT;
	cell = mls_get_le32(edit);
	if (cell >= TOY_CELLS)
		return MLS_EFORMAT;
	toy->cells[cell] = mls_get_le64(edit + 4);
	return 0;
}

void toy_add(struct mls_edit_group *group, enum mls_edit_owner_id owner, uint32_t cell, uint64_t value)
{
	uint8_t edit[12];

	mls_put_le32(edit, cell);
	mls_put_le64(edit + 4, value);
	ck_assert_int_eq(mls_edit_add(group, owner, edit, sizeof edit), 0);
}

static void toy_snapshot(const struct toy *toy, enum mls_edit_owner_id owner, struct mls_edit_group *group)
{
	for (uint32_t i = 0; i < TOY_CELLS; i++)
		if (toy->cells[i])
			toy_add(group, owner, i, toy->cells[i]);
	for (uint64_t i = 0; i < toy->fat; i++)
		toy_add(group, owner, 0, toy->cells[0]);
}

static int lsm_snapshot(void *arg, struct mls_edit_group *group)
{
	toy_snapshot(arg, MLS_OWNER_LSM, group);
	return 0;
}

static int segments_snapshot(void *arg, struct mls_edit_group *group)
{
	toy_snapshot(arg, MLS_OWNER_SEGMENTS, group);
	return 0;
}

struct world *world_open(struct mls_block_dev *dev)
{
	static const uint8_t master[MLS_KEY_BYTES] = "an example of a master key";
	static const uint8_t uuid[MLS_UUID_BYTES] = "disk";
	struct world *world = calloc(1, sizeof *world);
	struct mls_edit_owner lsm = { toy_reset, toy_apply, lsm_snapshot, &world->toys[0] };
	struct mls_edit_owner segments = { toy_reset, toy_apply, segments_snapshot, &world->toys[1] };

	world->dev = dev;
	ck_assert_int_eq(mls_keyring_new(&world->keys, master, uuid), 0);
	ck_assert_int_eq(mls_journal_new(&world->journal, dev, world->keys, TOY_HBA, TOY_AREA_BLOCKS), 0);
	mls_journal_set_owner(world->journal, MLS_OWNER_LSM, &lsm);
	mls_journal_set_owner(world->journal, MLS_OWNER_SEGMENTS, &segments);
	return world;
}

void world_close(struct world *world)
{
	mls_journal_free(world->journal);
	mls_keyring_free(world->keys);
	free(world);
}

static uint32_t cell_of(uint64_t number)
{
	return 1 + (uint32_t)(number * 2654435761u % 150);
}

int toy_commit(struct world *world, uint64_t base, uint64_t n)
{
	struct mls_edit_group *group;
	int err;

	ck_assert_int_eq(mls_edit_group_new(&group), 0);
	toy_add(group, MLS_OWNER_LSM, 0, base + n);
	toy_add(group, MLS_OWNER_SEGMENTS, cell_of(base + n), base + n);
	toy_add(group, MLS_OWNER_LSM, cell_of(base + n) + 1, base + n);
	toy_add(group, MLS_OWNER_SEGMENTS, 0, base + n);
	err = mls_journal_commit(world->journal, group);
	mls_edit_group_free(group);
	return err;
}

bool toy_is(const struct world *world, uint64_t base, uint64_t n)
{
	struct toy *model = calloc(2, sizeof *model);
	uint64_t last = base + n;
	bool same;

	model[0].cells[0] = model[1].cells[0] = last;
	/* Cells repeat every 150 numbers, so older ones are overwritten. */
	for (uint64_t i = last > 300 ? last - 300 : 1; i <= last; i++) {
		model[1].cells[cell_of(i)] = i;
		model[0].cells[cell_of(i) + 1] = i;
	}
	same = memcmp(model[0].cells, world->toys[0].cells, sizeof model->cells) == 0 &&
	       memcmp(model[1].cells, world->toys[1].cells, sizeof model->cells) == 0;
	free(model);
	return same;
}

int toy_start(struct world *world, uint8_t session)
{
	uint8_t name[MLS_SESSION_BYTES];

	memset(name, session, sizeof name);
	return mls_journal_start(world->journal, name);
}

int toy_load_newest(struct world *world, struct mls_journal_info *info)
{
	unsigned areas[MLS_NR_JOURNAL_AREAS], nr;
	int err;

	err = mls_journal_candidates(world->journal, areas, &nr);
	if (err)
		return err;
	err = MLS_ENOENT;
	for (unsigned i = 0; i < nr && err; i++)
		err = mls_journal_load(world->journal, areas[i], info);
	return err;
}
