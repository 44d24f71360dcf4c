/* SPDX-License-Identifier: MPL-2.0 */
/* damage_lab.c - a small disk in files, and hands to change any byte of it; see damage_lab.h. */
#include "tests/fsck/damage_lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "2-edit/journal_reader.h"
#include "3-log/stored_log.h"
#include "5-disk/location.h"
#include "base/buf.h"

static char key[32] = "a key of thirty-two bytes, fixed";
const struct mls_secret lab_secret = { key, sizeof key, false };
static const uint8_t uuid[MLS_UUID_BYTES] = "golden tests 0";

void lab_must(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "damage: %s: %s\n", what, mls_strerror(err));
		exit(99);
	}
}

void lab_require(bool condition, const char *what)
{
	if (!condition) {
		fprintf(stderr, "damage: %s\n", what);
		exit(99);
	}
}

/* ---- The disk ---- */

void lab_open(struct lab *l, unsigned flags)
{
	char uri[600];

	snprintf(uri, sizeof uri, "file:%s", l->store_path);
	lab_must(mls_block_dev_open(&l->dev, l->image, flags, mls_backing_bytes((uint64_t)LAB_DISK_BLOCKS * MLS_BLOCK_BYTES)),
	     "open image");
	lab_must(mls_trusted_store_open(&l->store, uri, uuid), "open store");
}

void lab_close(struct lab *l)
{
	mls_inspect_close(l->x);
	mls_trusted_store_destroy(l->store);
	mls_block_dev_destroy(l->dev);
	l->x = NULL;
	l->store = NULL;
	l->dev = NULL;
}

void lab_look(struct lab *l)
{
	mls_inspect_close(l->x);
	lab_must(mls_inspect_open(&l->x, l->dev, l->store, &lab_secret, NULL, NULL), "inspect");
	lab_require(l->x->area >= 0, "the base can't be inspected");
}

struct mls_disk *lab_open_disk(struct lab *l)
{
	struct mls_open_opts opts = { .inline_work = true, .memtable_records = LAB_MEMTABLE_RECORDS };
	struct mls_disk *disk;

	mls_inspect_close(l->x);
	l->x = NULL;
	lab_must(mls_disk_open(&disk, l->dev, l->store, &lab_secret, &opts), "open disk");
	return disk;
}

void lab_write_lba(struct mls_disk *disk, uint64_t lba, unsigned version)
{
	uint8_t block[MLS_BLOCK_BYTES];

	for (unsigned i = 0; i < sizeof block; i++)
		block[i] = (uint8_t)(lba * 7 + version * 31 + i);
	lab_must(mls_disk_write(disk, lba * MLS_BLOCK_BYTES, block, sizeof block), "write");
}

void lab_write_range(struct mls_disk *disk, uint64_t from, uint64_t upto, unsigned version)
{
	for (uint64_t lba = from; lba < upto; lba++)
		lab_write_lba(disk, lba, version);
}

void lab_make_base(struct lab *l)
{
	struct mls_format_opts opts = { .disk_bytes = (uint64_t)LAB_DISK_BLOCKS * MLS_BLOCK_BYTES, .run_blocks = 32 };
	struct mls_disk *disk;
	FILE *file;
	char path[600];

	snprintf(path, sizeof path, "%.*s/key", (int)(strrchr(l->image, '/') - l->image), l->image);
	file = fopen(path, "w");
	lab_require(file && fwrite(key, sizeof key, 1, file) == 1 && fclose(file) == 0, "key file");
	lab_open(l, MLS_DEV_CREATE);
	lab_must(mls_disk_format(l->dev, l->store, &lab_secret, uuid, &opts), "format");
	disk = lab_open_disk(l);
	for (unsigned round = 0; round < 8; round++) {
		lab_write_range(disk, round * 200, round * 200 + 400, round);
		lab_must(mls_disk_sync(disk), "sync");
	}
	lab_must(mls_disk_close(disk), "close");
	disk = lab_open_disk(l);
	for (uint64_t lba = 3; lba < LAB_DISK_BLOCKS; lba += 5)
		lab_write_lba(disk, lba, 10);		/* more than a memtable: tables of many LBAs */
	lab_must(mls_disk_sync(disk), "sync");
	for (unsigned round = 0; round < 4; round++) {
		lab_write_range(disk, 3000 + round * 8, 3000 + round * 8 + 12, 20 + round);
		lab_must(mls_disk_sync(disk), "sync");
	}
	lab_must(mls_disk_close(disk), "close");
	lab_look(l);
	lab_require(l->x->nr_groups >= 3, "the base has too few WAL groups");
	lab_require(l->x->lsm.nr_tables >= 2, "the base has too few tables");
	lab_require(l->x->lsm.tables[l->x->lsm.nr_tables - 1].level > 0, "the base has one level only");
}

/* ---- Bytes ---- */

void lab_flip(struct lab *l, uint64_t hba, unsigned byte)
{
	uint8_t *block = mls_blocks_alloc(1);

	lab_must(mls_block_dev_read(l->dev, hba, 1, block), "read");
	block[byte] ^= 0x10;
	lab_must(mls_block_dev_write(l->dev, hba, 1, block), "write");
	mls_blocks_free(block);
}

void lab_zero(struct lab *l, uint64_t hba, uint64_t nr_blocks)
{
	void *block = mls_blocks_zalloc(1);

	for (uint64_t i = 0; i < nr_blocks; i++)
		lab_must(mls_block_dev_write(l->dev, hba + i, 1, block), "write");
	mls_blocks_free(block);
}

void lab_copy_blocks(struct lab *l, uint64_t from, uint64_t to, uint64_t nr_blocks)
{
	void *block = mls_blocks_alloc(1);

	for (uint64_t i = 0; i < nr_blocks; i++) {
		lab_must(mls_block_dev_read(l->dev, from + i, 1, block), "read");
		lab_must(mls_block_dev_write(l->dev, to + i, 1, block), "write");
	}
	mls_blocks_free(block);
}

void lab_copy_file(const char *from, const char *to)
{
	char command[1200];

	snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
	lab_require(system(command) == 0, "cp");
}

void lab_flip_in_file(const char *path, off_t at, uint8_t mask)
{
	int fd = open(path, O_RDWR);
	uint8_t byte = 0;

	lab_require(fd >= 0 && pread(fd, &byte, 1, at) == 1, path);
	byte ^= mask;
	lab_require(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0, path);
}

/* ---- Things to damage ---- */

struct mls_inspect_log *lab_some_log(struct lab *l)
{
	const struct mls_table_meta *table = &l->x->lsm.tables[l->x->lsm.nr_tables - 1];
	size_t i = 0;

	while (i < l->x->nr_logs && l->x->logs[i].id != table->info.log_id)
		i++;
	lab_require(i < l->x->nr_logs, "no log");
	return &l->x->logs[i];
}

uint64_t lab_log_block(struct lab *l, const struct mls_inspect_log *log, uint64_t pos)
{
	return mls_inspect_run_hba(l->x, log->runs[pos / l->x->run_blocks]) + pos % l->x->run_blocks;
}

uint64_t lab_free_run(struct lab *l)
{
	uint64_t run = l->x->nr_runs - 1;

	while (l->x->runs[run].kind != MLS_RUN_FREE || l->x->runs[run].birth)
		lab_require(run-- > 0, "no free run");
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

struct mls_index_rec lab_live_rec(struct lab *l, bool of_table, unsigned skip)
{
	struct pick pick = { .of_table = of_table, .skip = skip };

	if (mls_inspect_records(l->x, 0, UINT64_MAX, pick_one, &pick) < 0)
		exit(99);
	lab_require(pick.found, "no live record");
	return pick.rec;
}

uint64_t lab_live_run(struct lab *l)
{
	return mls_inspect_place(l->x, mls_loc_hba(lab_live_rec(l, true, 5).hba)).index;
}

/* ---- The journal, sealed anew ---- */

static void seal_journal(struct lab *l, const struct mls_block_ring *ring, const struct mls_journal_info *info,
			 const struct mls_edit_group *group)
{
	const struct mls_chain_pos birth = { 0 };
	struct mls_journal_hdr_disk hdr = { .kind = MLS_JOURNAL_SNAPSHOT };
	struct mls_chain_writer *writer;

	memcpy(hdr.session, info->session, sizeof hdr.session);
	mls_put_le64(hdr.commit, info->commit);
	mls_put_le64(hdr.ordinal, info->ordinal);
	lab_must(mls_chain_writer_new(&writer, ring, l->x->keys, MLS_JOURNAL_LABEL, &birth), "chain");
	lab_must(mls_chain_begin(writer), "chain");
	lab_must(mls_chain_put(writer, &hdr, sizeof hdr), "chain");
	lab_must(mls_chain_put(writer, mls_edit_group_data(group), mls_edit_group_bytes(group)), "chain");
	lab_must(mls_chain_end(writer), "chain");
	mls_chain_writer_free(writer);
}

void lab_change_journal(struct lab *l, lab_edit_fn *fn, void *arg)
{
	const struct mls_inspect_area *area = &l->x->areas[l->x->area];
	struct mls_journal_reader *reader;
	struct mls_journal_group in;
	struct mls_edit_group *out;
	struct mls_block_ring ring;

	lab_must(mls_edit_group_new(&out), "group");
	lab_must(mls_block_ring_init(&ring, l->dev, area->hba, area->nr_blocks), "ring");
	lab_must(mls_journal_reader_new(&reader, &ring, l->x->keys), "reader");
	while (mls_journal_reader_next(reader, &in) == 0) {
		const uint8_t *at = in.edits;
		size_t left = in.edit_bytes;
		struct mls_edit edit;

		while (mls_edit_next(&at, &left, &edit) == 0) {
			uint8_t *copy = malloc(edit.bytes);

			memcpy(copy, edit.data, edit.bytes);
			if (!fn || !fn(l, out, edit.owner, copy, edit.bytes, arg))
				lab_must(mls_edit_add(out, edit.owner, copy, edit.bytes), "edit");
			free(copy);
		}
	}
	mls_journal_reader_free(reader);
	if (fn)
		fn(l, out, MLS_NR_OWNERS, NULL, 0, arg);	/* the end: add what you like */
	seal_journal(l, &ring, &area->info, out);
	mls_edit_group_free(out);
}

bool lab_is_create(enum mls_edit_owner_id owner, const uint8_t *edit, uint64_t id)
{
	return owner == MLS_OWNER_LOGS && edit[0] == MLS_LOG_EDIT_CREATE &&
	       mls_get_le64(((const struct mls_log_create_disk *)(const void *)edit)->id) == id;
}

/* ---- The WAL, sealed anew; the trusted store follows ---- */

void lab_change_wal(struct lab *l)
{
	struct mls_trust trust = l->x->trust;
	struct mls_chain_writer *writer;
	struct mls_block_ring ring;

	lab_must(mls_block_ring_init(&ring, l->dev, l->x->wal_hba, l->x->wal_blocks), "ring");
	lab_must(mls_chain_writer_new(&writer, &ring, l->x->keys, MLS_WAL_LABEL, &l->x->lsm.wal_start.pos), "chain");
	for (size_t i = 0; i < l->x->nr_groups; i++)
		lab_must(mls_wal_write_group(writer, &l->x->groups[i].group), "WAL");
	memcpy(trust.digest, mls_chain_writer_pos(writer)->tag, sizeof trust.digest);
	mls_chain_writer_free(writer);
	lab_must(l->store->ops->advance(l->store, &trust), "store");
}

struct mls_index_rec *lab_wal_rec(struct lab *l, size_t at)
{
	for (size_t i = l->x->nr_groups; i-- > 0;) {
		const struct mls_wal_group *group = &l->x->groups[i].group;

		if (group->nr_recs > at)
			return (struct mls_index_rec *)(uintptr_t)&group->recs[at];
	}
	lab_require(false, "no record in the WAL");
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
	if (edit && lab_is_create(owner, edit, r->log->id)) {
		memcpy(create->salt, r->root.salt, sizeof create->salt);
		memcpy(create->tag, r->root.tag, sizeof create->tag);
	}
	return false;
}

void lab_change_table(struct lab *l, void (*fn)(struct mls_sst_block_disk *blocks))
{
	struct reseal r = { .l = l, .log = lab_some_log(l) };
	uint64_t nr = r.log->root.nr_data_blocks;
	uint64_t *hbas = calloc(r.log->nr_chunks, sizeof *hbas);
	void *blocks = mls_blocks_alloc(nr);
	struct mls_crypto_log_builder *builder;
	struct mls_crypto_log *crypto;
	struct mls_block_log raw;

	for (uint32_t i = 0; i < r.log->nr_chunks; i++)
		hbas[i] = mls_inspect_run_hba(l->x, r.log->runs[i]);
	lab_must(mls_block_log_init_existing(&raw, l->dev, l->x->run_blocks, hbas, r.log->nr_chunks,
					 mls_crypto_log_total_blocks(nr)), "log");
	lab_must(mls_crypto_log_open(&crypto, &raw, l->x->keys, &r.log->root), "log");
	lab_must(mls_crypto_log_read(crypto, 0, (uint32_t)nr, blocks), "log");
	mls_crypto_log_close(crypto);
	mls_block_log_release(&raw);
	fn(blocks);
	mls_block_log_init(&raw, l->dev, l->x->run_blocks, same_chunks, &r);
	lab_must(mls_crypto_log_builder_new(&builder, &raw, l->x->keys), "log");
	lab_must(mls_crypto_log_append(builder, blocks, (uint32_t)nr), "log");
	lab_must(mls_crypto_log_finish(builder, &r.root), "log");
	mls_crypto_log_builder_free(builder);
	mls_block_log_release(&raw);
	mls_blocks_free(blocks);
	free(hbas);
	lab_change_journal(l, new_root, &r);
}
