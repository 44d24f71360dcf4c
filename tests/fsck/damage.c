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
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "2-edit/edit_group.h"
#include "2-edit/journal_reader.h"
#include "3-log/stored_log.h"
#include "4-lsm/sst_block.h"
#include "5-disk/location.h"
#include "base/buf.h"
#include "check/inspect.h"

#define DISK_BLOCKS 4096u
#define MEMTABLE_RECORDS 256u

static char key[32] = "a key of thirty-two bytes, fixed";
static const struct mls_secret secret = { key, sizeof key, false };
static const uint8_t uuid[MLS_UUID_BYTES] = "golden tests 0";

struct lab {
	char image[512], store_path[512];
	struct mls_block_dev *dev;
	struct mls_trusted_store *store;
	struct mls_inspect *x;
};

static void must(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "damage: %s: %s\n", what, mls_strerror(err));
		exit(99);
	}
}

static void require(bool condition, const char *what)
{
	if (!condition) {
		fprintf(stderr, "damage: %s\n", what);
		exit(99);
	}
}

/* ---- The disk ---- */

static void open_files(struct lab *l, unsigned flags)
{
	char uri[600];

	snprintf(uri, sizeof uri, "file:%s", l->store_path);
	must(mls_block_dev_open(&l->dev, l->image, flags, mls_backing_bytes((uint64_t)DISK_BLOCKS * MLS_BLOCK_BYTES)),
	     "open image");
	must(mls_trusted_store_open(&l->store, uri, uuid), "open store");
}

static void close_files(struct lab *l)
{
	mls_inspect_close(l->x);
	mls_trusted_store_destroy(l->store);
	mls_block_dev_destroy(l->dev);
	l->x = NULL;
	l->store = NULL;
	l->dev = NULL;
}

static void look(struct lab *l)
{
	mls_inspect_close(l->x);
	must(mls_inspect_open(&l->x, l->dev, l->store, &secret, NULL, NULL), "inspect");
	require(l->x->area >= 0, "the base can't be inspected");
}

static struct mls_disk *open_disk(struct lab *l)
{
	struct mls_open_opts opts = { .inline_work = true, .memtable_records = MEMTABLE_RECORDS };
	struct mls_disk *disk;

	mls_inspect_close(l->x);
	l->x = NULL;
	must(mls_disk_open(&disk, l->dev, l->store, &secret, &opts), "open disk");
	return disk;
}

static void write_lba(struct mls_disk *disk, uint64_t lba, unsigned version)
{
	uint8_t block[MLS_BLOCK_BYTES];

	for (unsigned i = 0; i < sizeof block; i++)
		block[i] = (uint8_t)(lba * 7 + version * 31 + i);
	must(mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), "write");
}

static void write_range(struct mls_disk *disk, uint64_t from, uint64_t upto, unsigned version)
{
	for (uint64_t lba = from; lba < upto; lba++)
		write_lba(disk, lba, version);
}

/* Tables in two levels at least, a WAL of several groups, segments of old and new. */
static void make_base(struct lab *l)
{
	struct mls_format_opts opts = { .disk_bytes = (uint64_t)DISK_BLOCKS * MLS_BLOCK_BYTES, .run_blocks = 32 };
	struct mls_disk *disk;
	FILE *file;
	char path[600];

	snprintf(path, sizeof path, "%.*s/key", (int)(strrchr(l->image, '/') - l->image), l->image);
	file = fopen(path, "w");
	require(file && fwrite(key, sizeof key, 1, file) == 1 && fclose(file) == 0, "key file");
	open_files(l, MLS_DEV_CREATE);
	must(mls_disk_format(l->dev, l->store, &secret, uuid, &opts), "format");
	disk = open_disk(l);
	for (unsigned round = 0; round < 8; round++) {
		write_range(disk, round * 200, round * 200 + 400, round);
		must(mls_disk_sync(disk), "sync");
	}
	must(mls_disk_close(disk), "close");
	disk = open_disk(l);
	for (uint64_t lba = 3; lba < DISK_BLOCKS; lba += 5)
		write_lba(disk, lba, 10);		/* more than a memtable: tables of many LBAs */
	must(mls_disk_sync(disk), "sync");
	for (unsigned round = 0; round < 4; round++) {
		write_range(disk, 3000 + round * 8, 3000 + round * 8 + 12, 20 + round);
		must(mls_disk_sync(disk), "sync");
	}
	must(mls_disk_close(disk), "close");
	look(l);
	require(l->x->nr_groups >= 3, "the base has too few WAL groups");
	require(l->x->lsm.nr_tables >= 2, "the base has too few tables");
	require(l->x->lsm.tables[l->x->lsm.nr_tables - 1].level > 0, "the base has one level only");
}

/* ---- Bytes ---- */

static void flip(struct lab *l, uint64_t hba, unsigned byte)
{
	uint8_t *block = mls_blocks_alloc(1);

	must(mls_block_dev_read(l->dev, hba, 1, block), "read");
	block[byte] ^= 0x10;
	must(mls_block_dev_write(l->dev, hba, 1, block), "write");
	mls_blocks_free(block);
}

static void zero(struct lab *l, uint64_t hba, uint64_t nr_blocks)
{
	void *block = mls_blocks_zalloc(1);

	for (uint64_t i = 0; i < nr_blocks; i++)
		must(mls_block_dev_write(l->dev, hba + i, 1, block), "write");
	mls_blocks_free(block);
}

static void copy_blocks(struct lab *l, uint64_t from, uint64_t to, uint64_t nr_blocks)
{
	void *block = mls_blocks_alloc(1);

	for (uint64_t i = 0; i < nr_blocks; i++) {
		must(mls_block_dev_read(l->dev, from + i, 1, block), "read");
		must(mls_block_dev_write(l->dev, to + i, 1, block), "write");
	}
	mls_blocks_free(block);
}

static void copy_file(const char *from, const char *to)
{
	char command[1200];

	snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
	require(system(command) == 0, "cp");
}

static void put_byte_in_file(const char *path, off_t at, uint8_t mask)
{
	int fd = open(path, O_RDWR);
	uint8_t byte = 0;

	require(fd >= 0 && pread(fd, &byte, 1, at) == 1, path);
	byte ^= mask;
	require(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0, path);
}

/* ---- Things to damage ---- */

static struct mls_inspect_log *some_log(struct lab *l)
{
	const struct mls_table_meta *table = &l->x->lsm.tables[l->x->lsm.nr_tables - 1];
	size_t i = 0;

	while (i < l->x->nr_logs && l->x->logs[i].id != table->info.log_id)
		i++;
	require(i < l->x->nr_logs, "no log");
	return &l->x->logs[i];
}

static uint64_t log_block(struct lab *l, const struct mls_inspect_log *log, uint64_t pos)
{
	return mls_inspect_run_hba(l->x, log->runs[pos / l->x->run_blocks]) + pos % l->x->run_blocks;
}

static uint64_t free_run(struct lab *l)
{
	uint64_t run = l->x->nr_runs - 1;

	while (l->x->runs[run].kind != MLS_RUN_FREE || l->x->runs[run].birth)
		require(run-- > 0, "no free run");
	return run;
}

struct pick {
	bool of_table;
	unsigned skip;
	struct mls_index_rec rec;
	bool found;
};

static int pick_one(void *arg, const struct mls_inspect_rec *rec)
{
	struct pick *pick = arg;

	if (!rec->newest || rec->rec.hba == MLS_HBA_NONE || (rec->table != NULL) != pick->of_table || pick->skip-- > 0)
		return 0;
	pick->rec = rec->rec;
	pick->found = true;
	return 1;
}

static struct mls_index_rec live_rec(struct lab *l, bool of_table, unsigned skip)
{
	struct pick pick = { .of_table = of_table, .skip = skip };

	if (mls_inspect_records(l->x, 0, UINT64_MAX, pick_one, &pick) < 0)
		exit(99);
	require(pick.found, "no live record");
	return pick.rec;
}

static uint64_t live_run(struct lab *l)
{
	return mls_inspect_place(l->x, mls_loc_hba(live_rec(l, true, 5).hba)).index;
}

/* ---- The journal, sealed anew ---- */

/* Changes or drops (true) the edit in *bytes; may add others. */
typedef bool edit_fn(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		     size_t bytes, void *arg);

static void seal_journal(struct lab *l, const struct mls_block_ring *ring, const struct mls_journal_info *info,
			 const struct mls_edit_group *group)
{
	const struct mls_chain_pos birth = { 0 };
	struct mls_journal_hdr_disk hdr = { .kind = MLS_JOURNAL_SNAPSHOT };
	struct mls_chain_writer *writer;

	memcpy(hdr.session, info->session, sizeof hdr.session);
	mls_put_le64(hdr.commit, info->commit);
	mls_put_le64(hdr.ordinal, info->ordinal);
	must(mls_chain_writer_new(&writer, ring, l->x->keys, MLS_JOURNAL_LABEL, &birth), "chain");
	must(mls_chain_begin(writer), "chain");
	must(mls_chain_put(writer, &hdr, sizeof hdr), "chain");
	must(mls_chain_put(writer, mls_edit_group_data(group), mls_edit_group_bytes(group)), "chain");
	must(mls_chain_end(writer), "chain");
	mls_chain_writer_free(writer);
}

static void change_journal(struct lab *l, edit_fn *fn, void *arg)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];
	struct mls_journal_reader *reader;
	struct mls_journal_group in;
	struct mls_edit_group *out;
	struct mls_block_ring ring;

	must(mls_edit_group_new(&out), "group");
	must(mls_block_ring_init(&ring, l->dev, area->hba, area->nr_blocks), "ring");
	must(mls_journal_reader_new(&reader, &ring, l->x->keys), "reader");
	while (mls_journal_reader_next(reader, &in) == 0) {
		const uint8_t *at = in.edits;
		size_t left = in.edit_bytes;
		struct mls_edit edit;

		while (mls_edit_next(&at, &left, &edit) == 0) {
			uint8_t *copy = malloc(edit.bytes);

			memcpy(copy, edit.data, edit.bytes);
			if (!fn || !fn(l, out, edit.owner, copy, edit.bytes, arg))
				must(mls_edit_add(out, edit.owner, copy, edit.bytes), "edit");
			free(copy);
		}
	}
	mls_journal_reader_free(reader);
	if (fn)
		fn(l, out, MLS_NR_OWNERS, NULL, 0, arg);	/* the end: add what you like */
	seal_journal(l, &ring, &area->info, out);
	mls_edit_group_free(out);
}

static bool is_create(enum mls_edit_owner_id owner, const uint8_t *edit, uint64_t id)
{
	return owner == MLS_OWNER_LOGS && edit[0] == MLS_LOG_EDIT_CREATE &&
	       mls_get_le64(((const struct mls_log_create_disk *)(const void *)edit)->id) == id;
}

/* ---- The WAL, sealed anew; the trusted store follows ---- */

static void change_wal(struct lab *l)
{
	struct mls_trust trust = l->x->trust;
	struct mls_chain_writer *writer;
	struct mls_block_ring ring;

	must(mls_block_ring_init(&ring, l->dev, l->x->wal_hba, l->x->wal_blocks), "ring");
	must(mls_chain_writer_new(&writer, &ring, l->x->keys, MLS_WAL_LABEL, &l->x->lsm.wal_start.pos), "chain");
	for (size_t i = 0; i < l->x->nr_groups; i++)
		must(mls_wal_write_group(writer, &l->x->groups[i].group), "WAL");
	memcpy(trust.digest, mls_chain_writer_pos(writer)->tag, sizeof trust.digest);
	mls_chain_writer_free(writer);
	must(l->store->ops->advance(l->store, &trust), "store");
}

/* A record of the last group that has any. */
static struct mls_index_rec *wal_rec(struct lab *l, size_t at)
{
	for (size_t i = l->x->nr_groups; i-- > 0;) {
		const struct mls_wal_group *group = &l->x->groups[i].group;

		if (group->nr_recs > at)
			return (struct mls_index_rec *)(uintptr_t)&group->recs[at];
	}
	require(false, "no record in the WAL");
	return NULL;
}

/* ---- An SSTable, sealed anew ---- */

struct reseal {
	struct lab *l;
	const struct mls_inspect_log *log;
	struct mls_log_root root;
	uint32_t next_chunk;
};

static int same_chunks(void *arg, uint64_t *hba)
{
	struct reseal *r = arg;

	*hba = mls_inspect_run_hba(r->l->x, r->log->runs[r->next_chunk++]);
	return 0;
}

static bool new_root(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		     size_t bytes, void *arg)
{
	struct reseal *r = arg;
	struct mls_log_create_disk *create = (void *)edit;

	(void)l, (void)out, (void)bytes;
	if (edit && is_create(owner, edit, r->log->id)) {
		memcpy(create->salt, r->root.salt, sizeof create->salt);
		memcpy(create->tag, r->root.tag, sizeof create->tag);
	}
	return false;
}

static void change_table(struct lab *l, void (*fn)(struct mls_sst_block_disk *blocks))
{
	struct reseal r = { .l = l, .log = some_log(l) };
	uint64_t nr = r.log->root.nr_data_blocks;
	uint64_t *hbas = calloc(r.log->nr_chunks, sizeof *hbas);
	void *blocks = mls_blocks_alloc(nr);
	struct mls_crypto_log_builder *builder;
	struct mls_crypto_log *crypto;
	struct mls_block_log raw;

	for (uint32_t i = 0; i < r.log->nr_chunks; i++)
		hbas[i] = mls_inspect_run_hba(l->x, r.log->runs[i]);
	must(mls_block_log_init_existing(&raw, l->dev, l->x->run_blocks, hbas, r.log->nr_chunks,
					 mls_crypto_log_total_blocks(nr)), "log");
	must(mls_crypto_log_open(&crypto, &raw, l->x->keys, &r.log->root), "log");
	must(mls_crypto_log_read(crypto, 0, (uint32_t)nr, blocks), "log");
	mls_crypto_log_close(crypto);
	mls_block_log_release(&raw);
	fn(blocks);
	mls_block_log_init(&raw, l->dev, l->x->run_blocks, same_chunks, &r);
	must(mls_crypto_log_builder_new(&builder, &raw, l->x->keys), "log");
	must(mls_crypto_log_append(builder, blocks, (uint32_t)nr), "log");
	must(mls_crypto_log_finish(builder, &r.root), "log");
	mls_crypto_log_builder_free(builder);
	mls_block_log_release(&raw);
	mls_blocks_free(blocks);
	free(hbas);
	change_journal(l, new_root, &r);
}

/* ---- Kinds: superblock, store ---- */

static void sb0_flip(struct lab *l) { flip(l, MLS_SUPERBLOCK_HBA_0, 40); }
static void sb1_flip(struct lab *l) { flip(l, MLS_SUPERBLOCK_HBA_1, 2000); }
static void sb0_zero(struct lab *l) { zero(l, MLS_SUPERBLOCK_HBA_0, 1); }
static void sb0_version(struct lab *l) { flip(l, MLS_SUPERBLOCK_HBA_0, 9); }
static void sb1_forged(struct lab *l) { flip(l, MLS_SUPERBLOCK_HBA_1, 4070); }

static void sb_both(struct lab *l)
{
	sb0_flip(l);
	sb1_flip(l);
}

static void put_superblock(struct lab *l, const struct mls_superblock *sb, uint64_t hba)
{
	struct mls_superblock_disk *block = mls_blocks_alloc(1);

	must(mls_superblock_encode(block, sb, l->x->keys), "superblock");
	must(mls_block_dev_write(l->dev, hba, 1, block), "superblock");
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

	must(mls_key_add(l->dev, &secret, &second, MLS_KEY_SLOT_ANY, NULL, NULL), "key");
	must(mls_disk_close(open_disk(l)), "close");
	look(l);
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

	require(truncate(l->image, (off_t)(end * MLS_BLOCK_BYTES)) == 0, "truncate");
}

static void store_lost(struct lab *l) { require(unlink(l->store_path) == 0, "unlink"); }

static void store_damaged(struct lab *l)
{
	put_byte_in_file(l->store_path, 50, 1);
	put_byte_in_file(l->store_path, MLS_BLOCK_BYTES + 50, 1);
}

/* The copy with the larger counter is the one that counts. */
static unsigned newer_copy(const struct lab *l)
{
	uint64_t counter[2] = { 0, 0 };
	FILE *f = fopen(l->store_path, "r");

	require(f != NULL, "store");
	for (unsigned i = 0; i < 2; i++)
		require(fseek(f, (long)(i * MLS_BLOCK_BYTES + 16), SEEK_SET) == 0 &&
				fread(&counter[i], sizeof counter[i], 1, f) == 1,
			"store");
	fclose(f);
	return le64toh(counter[1]) > le64toh(counter[0]);
}

static void store_old_copy(struct lab *l)
{
	put_byte_in_file(l->store_path, (off_t)(!newer_copy(l) * MLS_BLOCK_BYTES + 50), 1);
}

static void store_new_copy(struct lab *l)
{
	put_byte_in_file(l->store_path, (off_t)(newer_copy(l) * MLS_BLOCK_BYTES + 480), 1);
}

static void store_foreign(struct lab *l)
{
	put_byte_in_file(l->store_path, 24, 1);
	put_byte_in_file(l->store_path, MLS_BLOCK_BYTES + 24, 1);
}

/* Go on with the disk: `more` syncs. */
static void go_on(struct lab *l, unsigned more)
{
	struct mls_disk *disk = open_disk(l);

	for (unsigned i = 0; i < more; i++) {
		write_lba(disk, 3900 + i, more);
		must(mls_disk_sync(disk), "sync");
	}
	must(mls_disk_close(disk), "close");
}

static void side_path(const struct lab *l, char path[600], const char *name)
{
	snprintf(path, 600, "%.*s/%s", (int)(strrchr(l->image, '/') - l->image), l->image, name);
}

static void rollback(struct lab *l)
{
	char old[600];

	side_path(l, old, "old.img");
	copy_file(l->image, old);
	go_on(l, 3);
	close_files(l);
	require(rename(old, l->image) == 0, "rename");
}

/* Two copies of the disk went on, each with a copy of the store. */
static void store_mismatch(struct lab *l)
{
	char image[600], store[600], other[600];

	side_path(l, image, "copy.img");
	side_path(l, store, "copy.store");
	side_path(l, other, "other.store");
	copy_file(l->image, image);
	copy_file(l->store_path, store);
	go_on(l, 1);
	close_files(l);
	copy_file(l->store_path, other);
	copy_file(image, l->image);
	copy_file(store, l->store_path);
	open_files(l, 0);
	go_on(l, 3);
	close_files(l);
	copy_file(other, l->store_path);
}

/* ---- Kinds: crashes (no faults) ---- */

/* The image of after a sync, the store of before it. */
static void crash_in_sync(struct lab *l)
{
	char image[600], store[600];
	struct mls_disk *disk = open_disk(l);

	side_path(l, image, "crash.img");
	side_path(l, store, "crash.store");
	write_range(disk, 100, 110, 77);
	must(mls_disk_sync(disk), "sync");
	copy_file(l->store_path, store);
	write_range(disk, 105, 120, 78);
	must(mls_disk_sync(disk), "sync");
	copy_file(l->image, image);
	must(mls_disk_close(disk), "close");
	close_files(l);
	require(rename(image, l->image) == 0 && rename(store, l->store_path) == 0, "rename");
}

static void crash_torn_sync(struct lab *l)
{
	const struct mls_wal_group *group;

	crash_in_sync(l);
	open_files(l, 0);
	look(l);
	group = &l->x->groups[l->x->nr_groups - 1].group;
	require(group->nr_recs > 3, "no records in the last group");
	flip(l, mls_loc_hba(group->recs[3].hba), 9);
}

static void crash_unsynced(struct lab *l)
{
	char image[600], store[600];
	struct mls_disk *disk = open_disk(l);

	side_path(l, image, "crash.img");
	side_path(l, store, "crash.store");
	write_range(disk, 0, 3 * MEMTABLE_RECORDS, 55);
	copy_file(l->image, image);
	copy_file(l->store_path, store);
	must(mls_disk_close(disk), "close");
	close_files(l);
	require(rename(image, l->image) == 0 && rename(store, l->store_path) == 0, "rename");
}

/* All is synced, but the open segment has no summary: only the WAL knows what is in it. */
static void crash_open_segment(struct lab *l)
{
	char image[600], store[600];
	struct mls_disk *disk = open_disk(l);

	side_path(l, image, "crash.img");
	side_path(l, store, "crash.store");
	write_range(disk, 50, 60, 91);
	must(mls_disk_sync(disk), "sync");
	copy_file(l->image, image);
	copy_file(l->store_path, store);
	must(mls_disk_close(disk), "close");
	close_files(l);
	require(rename(image, l->image) == 0 && rename(store, l->store_path) == 0, "rename");
}

/* ---- Kinds: journal, WAL ---- */

static void journal_flip(struct lab *l) { flip(l, l->x->areas[l->x->area].hba, 500); }
static void journal_other(struct lab *l) { flip(l, l->x->areas[!l->x->area].hba, 500); }

/* The last group's last block, as a torn write leaves it. */
static void journal_torn(struct lab *l)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];

	flip(l, area->hba + area->used_blocks - 2, 4000);
}

/* The last commit of a session only notes its totals; no sync needs it. */
static void journal_torn_end(struct lab *l)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];

	flip(l, area->hba + area->used_blocks - 1, 4000);
}

static uint64_t wal_block(struct lab *l, uint64_t seq) { return l->x->wal_hba + seq % l->x->wal_blocks; }

static void wal_first(struct lab *l) { flip(l, wal_block(l, l->x->groups[0].seq), 100); }
static void wal_last(struct lab *l) { flip(l, wal_block(l, l->x->groups[l->x->nr_groups - 1].seq), 100); }

static void wal_cut(struct lab *l)
{
	for (size_t i = 1; i < l->x->nr_groups; i++)
		for (uint64_t k = 0; k < l->x->groups[i].nr_blocks; k++)
			zero(l, wal_block(l, l->x->groups[i].seq + k), 1);
}

static void wal_malformed(struct lab *l)
{
	l->x->groups[l->x->nr_groups - 1].group.flags |= 0x80;
	change_wal(l);
}

static void wal_gap(struct lab *l)
{
	l->x->groups[l->x->nr_groups - 1].group.head.sync_id += 5;
	l->x->groups[l->x->nr_groups - 1].group.flags = 0;
	change_wal(l);
}

/* ---- Kinds: logs and runs ---- */

static void sst_record(struct lab *l) { flip(l, log_block(l, some_log(l), 0), 77); }

static void sst_footer(struct lab *l)
{
	const struct mls_inspect_log *log = some_log(l);
	uint64_t nr = mls_crypto_log_total_blocks(log->root.nr_data_blocks);

	flip(l, log_block(l, log, nr - 2), 77);		/* the tree's only node comes last */
}

static void sst_node(struct lab *l)
{
	const struct mls_inspect_log *log = some_log(l);

	flip(l, log_block(l, log, mls_crypto_log_total_blocks(log->root.nr_data_blocks) - 1), 77);
}

/* Another table's block in the place of ours. */
static void sst_replayed(struct lab *l)
{
	const struct mls_inspect_log *log = some_log(l);
	const struct mls_inspect_log *other = &l->x->logs[log == &l->x->logs[0]];

	require(log->id != other->id, "only one log");
	copy_blocks(l, log_block(l, other, 0), log_block(l, log, 0), 1);
}

static bool put_run(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const uint64_t *run = arg;

	(void)out, (void)bytes;
	if (edit && is_create(owner, edit, some_log(l)->id))
		mls_put_le64(edit + sizeof(struct mls_log_create_disk), *run);
	return false;
}

static void run_twice(struct lab *l)
{
	const struct mls_inspect_log *log = some_log(l);
	uint64_t run = l->x->logs[log == &l->x->logs[0]].runs[0];

	change_journal(l, put_run, &run);
}

static void run_range(struct lab *l)
{
	uint64_t run = l->x->nr_runs + 5;

	change_journal(l, put_run, &run);
}

static bool add_segment(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			size_t bytes, void *arg)
{
	const uint64_t *run_and_birth = arg;
	struct mls_seg_add_disk add = { .type = MLS_SEG_EDIT_ADD };

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le64(add.run, run_and_birth[0]);
	mls_put_le64(add.birth, run_and_birth[1]);
	mls_put_le32(add.key_id, l->x->data_keys[0].id);
	must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &add, sizeof add), "edit");
	return false;
}

static void run_chunk_and_segment(struct lab *l)
{
	uint64_t run_and_birth[2] = { some_log(l)->runs[0], 1000000 };

	change_journal(l, add_segment, run_and_birth);
}

static void birth_twice(struct lab *l)
{
	uint64_t run_and_birth[2] = { free_run(l), l->x->runs[live_run(l)].birth };

	change_journal(l, add_segment, run_and_birth);
}

/* A second log with the same blocks, in a run of its own. */
static bool add_log(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const uint64_t *run = arg;
	struct mls_log_create_disk *create = (void *)edit;
	uint8_t copy[MLS_BLOCK_BYTES];

	if (!edit || !is_create(owner, edit, some_log(l)->id))
		return false;
	memcpy(copy, edit, bytes);
	create = (void *)copy;
	mls_put_le64(create->id, l->x->logs[l->x->nr_logs - 1].id + 7);
	mls_put_le64(copy + sizeof *create, *run);
	must(mls_edit_add(out, owner, copy, bytes), "edit");
	return false;
}

static bool next_id_last(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			 size_t bytes, void *arg)
{
	uint8_t next[MLS_LOG_ID_EDIT_BYTES];

	if (owner == MLS_OWNER_LOGS && edit && edit[0] == MLS_LOG_EDIT_NEXT_ID)
		return true;		/* dropped: our log has a higher id */
	if (owner == MLS_NR_OWNERS) {
		mls_log_id_edit_encode(next, MLS_LOG_EDIT_NEXT_ID, l->x->logs[l->x->nr_logs - 1].id + 8);
		must(mls_edit_add(out, MLS_OWNER_LOGS, next, sizeof next), "edit");
		return false;
	}
	return add_log(l, out, owner, edit, bytes, arg);
}

static void log_leaked(struct lab *l)
{
	uint64_t run = free_run(l);

	require(some_log(l)->nr_chunks == 1, "the log has several chunks");
	copy_blocks(l, mls_inspect_run_hba(l->x, some_log(l)->runs[0]), mls_inspect_run_hba(l->x, run),
		    l->x->run_blocks);
	change_journal(l, next_id_last, &run);
}

static bool drop_create(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			size_t bytes, void *arg)
{
	(void)out, (void)bytes, (void)arg;
	return edit && is_create(owner, edit, some_log(l)->id);
}

static void log_deleted(struct lab *l) { change_journal(l, drop_create, NULL); }

/* ---- Kinds: tables ---- */

static struct mls_table_add_disk *table_add_of(struct lab *l, enum mls_edit_owner_id owner, uint8_t *edit)
{
	struct mls_table_add_disk *add = (void *)edit;

	return edit && owner == MLS_OWNER_LSM && edit[0] == MLS_LSM_EDIT_TABLE_ADD &&
	       mls_get_le64(add->log_id) == some_log(l)->id ? add : NULL;
}

static bool wider(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		  size_t bytes, void *arg)
{
	struct mls_table_add_disk *add = table_add_of(l, owner, edit);

	(void)out, (void)bytes, (void)arg;
	if (add)
		mls_put_le64(add->max_lba, mls_get_le64(add->max_lba) + 10);
	return false;
}

static bool same_level(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		       size_t bytes, void *arg)
{
	struct mls_table_add_disk *add = (void *)edit;

	(void)l, (void)out, (void)bytes, (void)arg;
	if (owner == MLS_OWNER_LSM && edit && edit[0] == MLS_LSM_EDIT_TABLE_ADD) {
		add->level = 3;
		mls_put_le64(add->max_lba, mls_get_le64(add->max_lba) + 300);
	}
	return false;
}

static void table_range(struct lab *l) { change_journal(l, wider, NULL); }
static void table_overlap(struct lab *l) { change_journal(l, same_level, NULL); }

static void swap_records(struct mls_sst_block_disk *block)
{
	struct mls_index_rec_disk rec = block->rec[3];

	block->rec[3] = block->rec[4];
	block->rec[4] = rec;
}

static void fewer_records(struct mls_sst_block_disk *block)
{
	mls_put_le16(block->nr_records, (uint16_t)(mls_get_le16(block->nr_records) - 1));
}

static void table_unsorted(struct lab *l) { change_table(l, swap_records); }
static void table_count(struct lab *l) { change_table(l, fewer_records); }

/* ---- Kinds: records and segments ---- */

static void lba_range(struct lab *l)
{
	wal_rec(l, 2)->lba = DISK_BLOCKS + 10;
	change_wal(l);
}

static void lba_nowhere(struct lab *l)
{
	struct mls_index_rec *rec = wal_rec(l, 2);

	rec->hba = (rec->hba & ~MLS_LOC_HBA_MASK) | l->x->wal_hba;
	change_wal(l);
}

static void slot_shared(struct lab *l)
{
	wal_rec(l, 2)->hba = wal_rec(l, 3)->hba;
	change_wal(l);
}

struct count_change {
	uint64_t run;
	int32_t delta;
};

static bool recount(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		    size_t bytes, void *arg)
{
	const struct count_change *change = arg;
	struct mls_seg_add_disk add = { .type = MLS_SEG_EDIT_ADD };

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le32(add.delta, (uint32_t)change->delta);
	mls_put_le64(add.run, change->run);
	mls_put_le64(add.birth, l->x->runs[change->run].birth);
	mls_put_le32(add.key_id, l->x->runs[change->run].key_id);
	must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &add, sizeof add), "edit");
	return false;
}

static void count_high(struct lab *l)
{
	struct count_change change = { live_run(l), 5 };

	change_journal(l, recount, &change);
}

static void count_zero(struct lab *l)
{
	struct count_change change = { live_run(l), -(int32_t)l->x->runs[live_run(l)].noted_live };

	change_journal(l, recount, &change);
}

static bool free_segment(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
			 size_t bytes, void *arg)
{
	struct mls_seg_add_disk end = { .type = MLS_SEG_EDIT_FREE };
	const uint64_t *run = arg;

	(void)edit, (void)bytes;
	if (owner != MLS_NR_OWNERS)
		return false;
	mls_put_le64(end.run, *run);
	mls_put_le64(end.birth, l->x->runs[*run].birth);
	must(mls_edit_add(out, MLS_OWNER_SEGMENTS, &end, sizeof end), "edit");
	return false;
}

static void segment_freed(struct lab *l)
{
	uint64_t run = live_run(l);

	change_journal(l, free_segment, &run);
}

static bool drop_keys(struct lab *l, struct mls_edit_group *out, enum mls_edit_owner_id owner, uint8_t *edit,
		      size_t bytes, void *arg)
{
	(void)l, (void)out, (void)bytes, (void)arg;
	return owner == MLS_OWNER_SEGMENTS && edit && edit[0] == MLS_SEG_EDIT_KEY;
}

static void keys_lost(struct lab *l) { change_journal(l, drop_keys, NULL); }

/* ---- Kinds: data ---- */

static void data_flip(struct lab *l) { flip(l, mls_loc_hba(live_rec(l, true, 9).hba), 4095); }
static void data_new_flip(struct lab *l) { flip(l, mls_loc_hba(live_rec(l, false, 1).hba), 0); }
static void data_zeroed(struct lab *l) { zero(l, mls_inspect_run_hba(l->x, live_run(l)), l->x->nr_slots); }

static void data_swapped(struct lab *l)
{
	uint64_t a = mls_loc_hba(live_rec(l, true, 2).hba), b = mls_loc_hba(live_rec(l, true, 3).hba);

	copy_blocks(l, a, mls_inspect_run_hba(l->x, free_run(l)), 1);
	copy_blocks(l, b, a, 1);
	copy_blocks(l, mls_inspect_run_hba(l->x, free_run(l)), b, 1);
}

static void summary_flip(struct lab *l)
{
	flip(l, mls_inspect_run_hba(l->x, live_run(l)) + l->x->nr_slots, 100);
}

static void nothing(struct lab *l) { (void)l; }

static const struct kind {
	const char *name;
	void (*damage)(struct lab *l);
} kinds[] = {
	{ "nothing", nothing },
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
	{ "sst-record", sst_record },
	{ "sst-footer", sst_footer },
	{ "sst-node", sst_node },
	{ "sst-replayed", sst_replayed },
	{ "run-twice", run_twice },
	{ "run-range", run_range },
	{ "run-chunk-and-segment", run_chunk_and_segment },
	{ "birth-twice", birth_twice },
	{ "log-leaked", log_leaked },
	{ "log-deleted", log_deleted },
	{ "table-range", table_range },
	{ "table-overlap", table_overlap },
	{ "table-unsorted", table_unsorted },
	{ "table-count", table_count },
	{ "lba-range", lba_range },
	{ "lba-nowhere", lba_nowhere },
	{ "slot-shared", slot_shared },
	{ "count-high", count_high },
	{ "count-zero", count_zero },
	{ "segment-freed", segment_freed },
	{ "keys-lost", keys_lost },
	{ "data-flip", data_flip },
	{ "data-new-flip", data_new_flip },
	{ "data-zeroed", data_zeroed },
	{ "data-swapped", data_swapped },
	{ "summary-flip", summary_flip },
};

int main(int argc, char **argv)
{
	struct lab l = { .dev = NULL };

	if (argc == 2 && strcmp(argv[1], "list") == 0) {
		for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
			puts(kinds[i].name);
		return 0;
	}
	require(argc == 3 && strlen(argv[2]) < 400, "usage: damage {base|KIND} DIR, or damage list");
	snprintf(l.image, sizeof l.image, "%s/disk.img", argv[2]);
	snprintf(l.store_path, sizeof l.store_path, "%s/store", argv[2]);
	if (strcmp(argv[1], "base") == 0) {
		make_base(&l);
		close_files(&l);
		return 0;
	}
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (strcmp(argv[1], kinds[i].name) != 0)
			continue;
		open_files(&l, 0);
		look(&l);
		kinds[i].damage(&l);
		close_files(&l);
		return 0;
	}
	require(false, "no such kind");
}
