/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fuzz_image.c - a whole small disk whose journal and WAL say anything, in well sealed words.
 *
 * Method   The journal area that is in force and the WAL from its start are read as groups, with the disk's
 *          key; the input edits the groups' bytes; they are sealed again as chains. The rest of the input
 *          changes raw blocks. Then the disk is opened without a store, read, written, synced, closed, and
 *          opened once more.
 * Input    a byte: edits of the journal (3 bytes each), a byte: edits of the WAL, those, then raw edits of
 *          (le16 block, le16 offset, byte).
 */
#include <stdlib.h>
#include <string.h>

#include "2-edit/journal_reader.h"
#include "4-lsm/wal.h"
#include "base/endian.h"
#include "format/mlsdisk_format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/test_rand.h"

#define DISK_BYTES (128u * MLS_BLOCK_BYTES)
#define GROUPS_MAX 64u
#define GROUPS_BYTES (1u << 19)

static const struct mls_secret secret = { "a key file of thirty-two bytes .", 32, false };
static const struct mls_open_opts open_opts = { .inline_work = true, .memtable_records = 64, .cache_bytes = 1 << 16 };

/* The groups of a chain, one after the other. */
struct groups {
	struct mls_block_ring ring;
	const char *label;
	struct mls_chain_pos start;
	uint8_t *bytes;
	size_t end[GROUPS_MAX];
	unsigned nr;
};

static struct {
	struct mls_block_dev *dev;
	struct mls_keyring *keys;
	struct groups journal, wal;
	uint8_t *scratch;
} good;

static _Alignas(MLS_BLOCK_BYTES) uint8_t buf[16 * MLS_BLOCK_BYTES];

static void read_disk(struct mls_disk *disk)
{
	uint64_t at;

	for (uint64_t offset = 0; offset < DISK_BYTES; offset += sizeof buf)
		(void)!mls_disk_read(disk, offset, buf, sizeof buf);
	(void)!mls_disk_seek(disk, 0, false, &at);
}

static void write_disk(struct mls_disk *disk)
{
	for (uint64_t offset = 0; offset < DISK_BYTES; offset += 3 * sizeof buf)
		(void)!mls_disk_write(disk, offset, buf, sizeof buf);
	(void)!mls_disk_discard(disk, 100, 20000);
	(void)!mls_disk_sync(disk);
	(void)!mls_disk_write(disk, 0, buf, sizeof buf);
}

static void groups_read(struct groups *g)
{
	struct mls_chain_reader *reader;
	const uint8_t *bytes;
	size_t nr_bytes, end = 0;

	g->bytes = malloc(GROUPS_BYTES);
	fuzz_must(!g->bytes);
	fuzz_must(mls_chain_reader_new(&reader, &g->ring, good.keys, g->label, &g->start));
	while (g->nr < GROUPS_MAX && mls_chain_reader_next(reader, &bytes, &nr_bytes) == 0) {
		fuzz_must(end + nr_bytes > GROUPS_BYTES);
		memcpy(g->bytes + end, bytes, nr_bytes);
		end += nr_bytes;
		g->end[g->nr++] = end;
	}
	mls_chain_reader_free(reader);
	fuzz_must(g->nr == 0);
}

/* The WAL's start, as the journal's groups have it. */
static void find_wal_start(void)
{
	for (unsigned i = 0; i < good.journal.nr; i++) {
		size_t from = i ? good.journal.end[i - 1] : 0;
		const uint8_t *at = good.journal.bytes + from + sizeof(struct mls_journal_hdr_disk);
		size_t left = good.journal.end[i] - from - sizeof(struct mls_journal_hdr_disk);

		while (left > 0) {
			size_t bytes = mls_get_le16(at + 2);
			const struct mls_wal_start_disk *start = (const void *)(at + 4);

			if (at[0] == MLS_OWNER_LSM && start->type == MLS_LSM_EDIT_WAL_START) {
				good.wal.start.seq = mls_get_le64(start->seq);
				memcpy(good.wal.start.tag, start->tag, MLS_TAG_BYTES);
			}
			at += 4 + bytes;
			left -= 4 + bytes;
		}
	}
}

static void make_disk(void)
{
	struct mls_format_opts opts = { .disk_bytes = DISK_BYTES };
	uint8_t uuid[MLS_UUID_BYTES] = { 8 };
	struct mls_disk *disk;
	struct test_rand r;

	test_rand_seed(&r, 2);
	good.dev = fuzz_dev_new(mls_backing_bytes(DISK_BYTES) / MLS_BLOCK_BYTES);
	fuzz_must(mls_disk_format(good.dev, NULL, &secret, uuid, &opts));
	fuzz_must(mls_disk_open(&disk, good.dev, NULL, &secret, &open_opts));
	for (unsigned i = 0; i < 400; i++) {
		uint8_t block[MLS_BLOCK_BYTES] = { (uint8_t)i, 1 };

		fuzz_must(mls_disk_write(disk, test_rand_below(&r, 120) * MLS_BLOCK_BYTES, block, sizeof block));
		if (i % 60 == 59)
			fuzz_must(mls_disk_sync(disk));
	}
	fuzz_must(mls_disk_close(disk));
}

static void prepare(void)
{
	uint64_t ordinal[MLS_NR_JOURNAL_AREAS] = { 0, 0 };
	struct mls_superblock sb;

	if (good.dev)
		return;
	(void)fuzz_keys();
	make_disk();
	fuzz_dev_keep(good.dev);
	fuzz_must(mls_superblock_read(good.dev, &secret, &sb, &good.keys));
	good.scratch = malloc(GROUPS_BYTES);
	fuzz_must(!good.scratch);
	for (unsigned area = 0; area < MLS_NR_JOURNAL_AREAS; area++) {
		struct groups g = { .label = MLS_JOURNAL_LABEL };

		fuzz_must(mls_block_ring_init(&g.ring, good.dev,
					      MLS_JOURNAL_HBA + area * sb.geo.journal_area_blocks,
					      sb.geo.journal_area_blocks));
		groups_read(&g);
		ordinal[area] = mls_get_le64(((struct mls_journal_hdr_disk *)(void *)g.bytes)->ordinal);
		if (area == 0 || ordinal[1] > ordinal[0]) {
			free(good.journal.bytes);
			good.journal = g;
		} else {
			free(g.bytes);
		}
	}
	find_wal_start();
	good.wal.label = MLS_WAL_LABEL;
	fuzz_must(mls_block_ring_init(&good.wal.ring, good.dev, mls_geometry_wal_hba(&sb.geo), sb.geo.wal_blocks));
	groups_read(&good.wal);
}

static void groups_write(struct groups *g, struct fuzz_input *edits)
{
	struct mls_chain_writer *writer;

	memcpy(good.scratch, g->bytes, g->end[g->nr - 1]);
	fuzz_edit(edits, good.scratch, g->end[g->nr - 1] < 65536 ? g->end[g->nr - 1] : 65536);
	fuzz_must(mls_chain_writer_new(&writer, &g->ring, good.keys, g->label, &g->start));
	for (unsigned i = 0; i < g->nr; i++) {
		size_t from = i ? g->end[i - 1] : 0;

		fuzz_must(mls_chain_begin(writer));
		fuzz_must(mls_chain_put(writer, good.scratch + from, g->end[i] - from));
		fuzz_must(mls_chain_end(writer));
	}
	mls_chain_writer_free(writer);
}

static struct fuzz_input part(struct fuzz_input *in, size_t bytes)
{
	struct fuzz_input p = { in->data, bytes < in->left ? bytes : in->left };

	in->data += p.left;
	in->left -= p.left;
	return p;
}

static void raw_edits(struct fuzz_input *in)
{
	static _Alignas(MLS_BLOCK_BYTES) uint8_t block[MLS_BLOCK_BYTES];

	while (in->left >= 5) {
		uint64_t hba = fuzz_take(in, 2) % good.dev->nr_blocks;
		size_t at = fuzz_take(in, 2) % MLS_BLOCK_BYTES;

		fuzz_must(mls_block_dev_read(good.dev, hba, 1, block));
		block[at] = (uint8_t)fuzz_take(in, 1);
		fuzz_must(mls_block_dev_write(good.dev, hba, 1, block));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size }, edits;
	size_t nr_journal, nr_wal;
	struct mls_disk *disk;

	prepare();
	fuzz_dev_reset(good.dev);
	nr_journal = fuzz_take(&in, 1);
	nr_wal = fuzz_take(&in, 1);
	edits = part(&in, 3 * nr_journal);
	groups_write(&good.journal, &edits);
	edits = part(&in, 3 * nr_wal);
	groups_write(&good.wal, &edits);
	raw_edits(&in);
	for (unsigned i = 0; i < 2; i++) {
		if (mls_disk_open(&disk, good.dev, NULL, &secret, &open_opts))
			break;		/* and would be again: nothing was written */
		read_disk(disk);
		if (i == 0)
			write_disk(disk);
		(void)!mls_disk_close(disk);
	}
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *out, size_t room)
{
	struct test_rand r;

	(void)room;
	if (i >= 8)
		return 0;
	test_rand_seed(&r, i);
	out[0] = i ? (uint8_t)(i & 3) : 0;
	out[1] = i ? (uint8_t)(i >> 1) : 0;
	test_rand_fill(&r, out + 2, 64);
	for (unsigned k = 3; k < 27; k += 3)		/* most state is near the front */
		out[k] &= 3;
	return i ? 2u + 3u * (out[0] + out[1]) + 5 * (i & 1) : 2;
}
