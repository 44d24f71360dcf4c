/* SPDX-License-Identifier: MPL-2.0 */
/* damage_outer.c - what stands around the index: superblock, store, crashes, journal, WAL; see damage.c. */
#include "tests/fsck/damage.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "5-disk/location.h"
#include "base/buf.h"

/* ---- Kinds: superblock, store ---- */

static void sb0_flip(struct lab *l) { lab_flip(l, MLS_SUPERBLOCK_HBA_0, 40); }
static void sb1_flip(struct lab *l) { lab_flip(l, MLS_SUPERBLOCK_HBA_1, 2000); }
static void sb0_zero(struct lab *l) { lab_zero(l, MLS_SUPERBLOCK_HBA_0, 1); }
static void sb0_version(struct lab *l) { lab_flip(l, MLS_SUPERBLOCK_HBA_0, 9); }
static void sb1_forged(struct lab *l) { lab_flip(l, MLS_SUPERBLOCK_HBA_1, 4070); }

static void sb_both(struct lab *l)
{
	sb0_flip(l);
	sb1_flip(l);
}

static void put_superblock(struct lab *l, const struct mls_superblock *sb, uint64_t hba)
{
	struct mls_superblock_disk *block = mls_blocks_alloc(1);

	lab_must(mls_superblock_encode(block, sb, l->x->keys), "superblock");
	lab_must(mls_block_dev_write(l->dev, hba, 1, block), "superblock");
	mls_blocks_free(block);
}

static void sb1_old(struct lab *l)
{
	struct mls_superblock sb = l->x->sb;

	sb.generation++;
	put_superblock(l, &sb, MLS_SUPERBLOCK_HBA_0);
}

static void sb_stale(struct lab *l)
{
	struct mls_secret second = { "another key of thirty-two bytes!", 32, false };
	struct mls_superblock old = l->x->sb;

	lab_must(mls_key_add(l->dev, &lab_secret, &second, MLS_KEY_SLOT_ANY, NULL, NULL), "key");
	lab_must(mls_disk_close(lab_open_disk(l)), "close");
	lab_look(l);
	put_superblock(l, &old, MLS_SUPERBLOCK_HBA_0);
	put_superblock(l, &old, MLS_SUPERBLOCK_HBA_1);
}

static void slot_malformed(struct lab *l)
{
	struct mls_superblock sb = l->x->sb;

	sb.slots[3].state = 7;
	put_superblock(l, &sb, MLS_SUPERBLOCK_HBA_0);
	put_superblock(l, &sb, MLS_SUPERBLOCK_HBA_1);
}

static void device_short(struct lab *l)
{
	uint64_t end = mls_geometry_end(&l->x->sb.geo) - l->x->run_blocks;

	lab_require(truncate(l->image, (off_t)(end * MLS_BLOCK_BYTES)) == 0, "truncate");
}

static void store_lost(struct lab *l) { lab_require(unlink(l->store_path) == 0, "unlink"); }

static void store_damaged(struct lab *l)
{
	lab_flip_in_file(l->store_path, 50, 1);
	lab_flip_in_file(l->store_path, MLS_BLOCK_BYTES + 50, 1);
}

/* The copy with the larger counter is the one that counts. */
static unsigned newer_copy(const struct lab *l)
{
	uint64_t counter[2] = { 0, 0 };
	FILE *f = fopen(l->store_path, "r");

	lab_require(f != NULL, "store");
	for (unsigned i = 0; i < 2; i++)
		lab_require(fseek(f, (long)(i * MLS_BLOCK_BYTES + 16), SEEK_SET) == 0 &&
				fread(&counter[i], sizeof counter[i], 1, f) == 1,
			"store");
	fclose(f);
	return le64toh(counter[1]) > le64toh(counter[0]);
}

static void store_old_copy(struct lab *l)
{
	lab_flip_in_file(l->store_path, (off_t)(!newer_copy(l) * MLS_BLOCK_BYTES + 50), 1);
}

static void store_new_copy(struct lab *l)
{
	lab_flip_in_file(l->store_path, (off_t)(newer_copy(l) * MLS_BLOCK_BYTES + 480), 1);
}

static void store_foreign(struct lab *l)
{
	lab_flip_in_file(l->store_path, 24, 1);
	lab_flip_in_file(l->store_path, MLS_BLOCK_BYTES + 24, 1);
}

/* Go on with the disk: `more` syncs. */
static void go_on(struct lab *l, unsigned more)
{
	struct mls_disk *disk = lab_open_disk(l);

	for (unsigned i = 0; i < more; i++) {
		lab_write_lba(disk, 3900 + i, more);
		lab_must(mls_disk_sync(disk), "sync");
	}
	lab_must(mls_disk_close(disk), "close");
}

static void side_path(const struct lab *l, char path[600], const char *name)
{
	snprintf(path, 600, "%.*s/%s", (int)(strrchr(l->image, '/') - l->image), l->image, name);
}

static void rollback(struct lab *l)
{
	char old[600];

	side_path(l, old, "old.img");
	lab_copy_file(l->image, old);
	go_on(l, 3);
	lab_close(l);
	lab_require(rename(old, l->image) == 0, "rename");
}

/* Two copies of the disk went on, each with a copy of the store. */
static void store_mismatch(struct lab *l)
{
	char image[600], store[600], other[600];

	side_path(l, image, "copy.img");
	side_path(l, store, "copy.store");
	side_path(l, other, "other.store");
	lab_copy_file(l->image, image);
	lab_copy_file(l->store_path, store);
	go_on(l, 1);
	lab_close(l);
	lab_copy_file(l->store_path, other);
	lab_copy_file(image, l->image);
	lab_copy_file(store, l->store_path);
	lab_open(l, 0);
	go_on(l, 3);
	lab_close(l);
	lab_copy_file(other, l->store_path);
}

/* ---- Kinds: crashes (no faults) ---- */

/* The files are as they are now, whatever closing the disk may still write. */
static void cut_power(struct lab *l, struct mls_disk *disk)
{
	char image[600], store[600];

	side_path(l, image, "crash.img");
	side_path(l, store, "crash.store");
	lab_copy_file(l->image, image);
	lab_copy_file(l->store_path, store);
	lab_must(mls_disk_close(disk), "close");
	lab_close(l);
	lab_require(rename(image, l->image) == 0 && rename(store, l->store_path) == 0, "rename");
}

/* The image of after a sync, the store of before it. */
static void crash_in_sync(struct lab *l)
{
	struct mls_disk *disk = lab_open_disk(l);
	char before[600];

	side_path(l, before, "before.store");
	lab_write_range(disk, 100, 110, 77);
	lab_must(mls_disk_sync(disk), "sync");
	lab_copy_file(l->store_path, before);
	lab_write_range(disk, 105, 120, 78);
	lab_must(mls_disk_sync(disk), "sync");
	cut_power(l, disk);
	lab_require(rename(before, l->store_path) == 0, "rename");
}

static void crash_torn_sync(struct lab *l)
{
	const struct mls_wal_group *group;

	crash_in_sync(l);
	lab_open(l, 0);
	lab_look(l);
	group = &l->x->groups[l->x->nr_groups - 1].group;
	lab_require(group->nr_recs > 3, "no records in the last group");
	lab_flip(l, mls_loc_hba(group->recs[3].hba), 9);
}

static void crash_unsynced(struct lab *l)
{
	struct mls_disk *disk = lab_open_disk(l);

	lab_write_range(disk, 0, 3 * LAB_MEMTABLE_RECORDS, 55);
	cut_power(l, disk);
}

/* All is synced, but the open segment has no summary: only the WAL knows what is in it. */
static void crash_open_segment(struct lab *l)
{
	struct mls_disk *disk = lab_open_disk(l);

	lab_write_range(disk, 50, 60, 91);
	lab_must(mls_disk_sync(disk), "sync");
	cut_power(l, disk);
}

/* ---- Kinds: journal, WAL ---- */

static void journal_flip(struct lab *l) { lab_flip(l, l->x->areas[l->x->area].hba, 500); }
static void journal_other(struct lab *l) { lab_flip(l, l->x->areas[!l->x->area].hba, 500); }

/* The last group's last block, as a torn write leaves it. */
static void journal_torn(struct lab *l)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];

	lab_flip(l, area->hba + area->used_blocks - 2, 4000);
}

/* The last commit of a session only notes its totals; no sync needs it. */
static void journal_torn_end(struct lab *l)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];

	lab_flip(l, area->hba + area->used_blocks - 1, 4000);
}

static uint64_t wal_block(struct lab *l, uint64_t seq) { return l->x->wal_hba + seq % l->x->wal_blocks; }

static void wal_first(struct lab *l) { lab_flip(l, wal_block(l, l->x->groups[0].seq), 100); }
static void wal_last(struct lab *l) { lab_flip(l, wal_block(l, l->x->groups[l->x->nr_groups - 1].seq), 100); }

static void wal_cut(struct lab *l)
{
	for (size_t i = 1; i < l->x->nr_groups; i++)
		for (uint64_t k = 0; k < l->x->groups[i].nr_blocks; k++)
			lab_zero(l, wal_block(l, l->x->groups[i].seq + k), 1);
}

static void wal_malformed(struct lab *l)
{
	l->x->groups[l->x->nr_groups - 1].group.flags |= 0x80;
	lab_change_wal(l);
}

static void wal_gap(struct lab *l)
{
	l->x->groups[l->x->nr_groups - 1].group.head.sync_id += 5;
	l->x->groups[l->x->nr_groups - 1].group.flags = 0;
	lab_change_wal(l);
}

const struct damage_kind damage_outer[] = {
	{ "sb0-flip", sb0_flip },
	{ "sb1-flip", sb1_flip },
	{ "sb0-zero", sb0_zero },
	{ "sb0-version", sb0_version },
	{ "sb1-forged", sb1_forged },
	{ "sb1-old", sb1_old },
	{ "sb-both", sb_both },
	{ "sb-stale", sb_stale },
	{ "slot-malformed", slot_malformed },
	{ "device-short", device_short },
	{ "store-lost", store_lost },
	{ "store-damaged", store_damaged },
	{ "store-old-copy", store_old_copy },
	{ "store-new-copy", store_new_copy },
	{ "store-foreign", store_foreign },
	{ "rollback", rollback },
	{ "store-mismatch", store_mismatch },
	{ "crash-in-sync", crash_in_sync },
	{ "crash-torn-sync", crash_torn_sync },
	{ "crash-unsynced", crash_unsynced },
	{ "crash-open-segment", crash_open_segment },
	{ "journal-flip", journal_flip },
	{ "journal-other", journal_other },
	{ "journal-torn", journal_torn },
	{ "journal-torn-end", journal_torn_end },
	{ "wal-first", wal_first },
	{ "wal-last", wal_last },
	{ "wal-cut", wal_cut },
	{ "wal-malformed", wal_malformed },
	{ "wal-gap", wal_gap },
	{ NULL, NULL },
};
