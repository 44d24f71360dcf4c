/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_crypto_chain.c - a group comes back as it was put, whole, in order, or not at all.
 */
#include "1-crypto/crypto_chain.h"

#include "base/rand.h"
#include "format/mlsdisk_format.h"
#include "tests/lib/check_run.h"
#include "tests/unit/1-crypto/crypto_test.h"

#define ROOM MLS_CHAIN_ROOM_BYTES
#define LABEL "chain test"
#define RING_HBA 3u

static struct mls_block_dev *dev;
static struct mls_block_ring ring;
static struct mls_keyring *keys;
static const struct mls_chain_pos birth;

static void set_up(uint64_t ring_blocks)
{
	dev = test_mem_dev(ring_blocks + RING_HBA + 2);
	ck_assert_int_eq(mls_block_ring_init(&ring, dev, RING_HBA, ring_blocks), 0);
	keys = test_keys(1, 1);
}

static void tear_down(void)
{
	mls_keyring_free(keys);
	mls_block_dev_destroy(dev);
}

static struct mls_chain_writer *writer_at(const struct mls_chain_pos *pos)
{
	struct mls_chain_writer *writer;

	ck_assert_int_eq(mls_chain_writer_new(&writer, &ring, keys, LABEL, pos), 0);
	return writer;
}

static struct mls_chain_reader *reader_at(const struct mls_chain_pos *pos)
{
	struct mls_chain_reader *reader;

	ck_assert_int_eq(mls_chain_reader_new(&reader, &ring, keys, LABEL, pos), 0);
	return reader;
}

/* Each group's bytes follow from its number and length. */
static uint8_t byte_of(unsigned group, size_t i)
{
	return (uint8_t)(group * 37 + i + i / 251);
}

static int put_group(struct mls_chain_writer *writer, unsigned group, size_t nr_bytes, size_t piece)
{
	uint8_t *bytes = malloc(nr_bytes + 1);
	int err = mls_chain_begin(writer);

	for (size_t i = 0; i < nr_bytes; i++)
		bytes[i] = byte_of(group, i);
	for (size_t done = 0; !err && done < nr_bytes; done += piece)
		err = mls_chain_put(writer, bytes + done, nr_bytes - done < piece ? nr_bytes - done : piece);
	if (!err)
		err = mls_chain_end(writer);
	free(bytes);
	return err;
}

static void must_put(struct mls_chain_writer *writer, unsigned group, size_t nr_bytes)
{
	ck_assert_int_eq(put_group(writer, group, nr_bytes, nr_bytes + 1), 0);
}

static void must_get(struct mls_chain_reader *reader, unsigned group, size_t nr_bytes)
{
	size_t n, nr_wrong = 0;
	const uint8_t *bytes;

	ck_assert_int_eq(mls_chain_reader_next(reader, &bytes, &n), 0);
	ck_assert_uint_eq(n, nr_bytes);
	for (size_t i = 0; i < n; i++)
		nr_wrong += bytes[i] != byte_of(group, i);
	ck_assert_uint_eq(nr_wrong, 0);
}

static void must_end(struct mls_chain_reader *reader)
{
	const uint8_t *bytes;
	size_t n;

	ck_assert_int_eq(mls_chain_reader_next(reader, &bytes, &n), MLS_ENOENT);
}

static void same_pos(const struct mls_chain_pos *a, const struct mls_chain_pos *b)
{
	ck_assert_uint_eq(a->seq, b->seq);
	ck_assert_mem_eq(a->tag, b->tag, MLS_TAG_BYTES);
}

/* How many whole groups does a reader find from pos on? */
static unsigned groups_from(const struct mls_chain_pos *pos)
{
	struct mls_chain_reader *reader = reader_at(pos);
	const uint8_t *bytes;
	unsigned nr = 0;
	size_t n;

	while (mls_chain_reader_next(reader, &bytes, &n) == 0)
		nr++;
	mls_chain_reader_free(reader);
	return nr;
}

START_TEST(blocks_of_a_group)
{
	ck_assert_uint_eq(mls_chain_blocks(0), 1);
	ck_assert_uint_eq(mls_chain_blocks(1), 1);
	ck_assert_uint_eq(mls_chain_blocks(ROOM), 1);
	ck_assert_uint_eq(mls_chain_blocks(ROOM + 1), 2);
	ck_assert_uint_eq(mls_chain_blocks(UINT64_MAX), UINT64_MAX / ROOM + 1);
}
END_TEST

static const size_t sizes[] = {
	0, 1, 79, 80, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 3 * ROOM + 5, 63 * ROOM, 64 * ROOM - 1, 64 * ROOM,
	64 * ROOM + 1, 65 * ROOM, 128 * ROOM, 128 * ROOM + 1, 200 * ROOM + 77,
};
#define NR_SIZES (sizeof sizes / sizeof *sizes)

START_TEST(groups_come_back)
{
	static const size_t pieces[] = { 1u << 30, ROOM, 4096, 997, 16 };
	struct mls_chain_writer *writer;
	struct mls_chain_reader *reader;
	struct mls_chain_pos pos;

	set_up(1200);
	writer = writer_at(&birth);
	for (unsigned i = 0; i < NR_SIZES; i++) {
		uint64_t before = mls_chain_writer_pos(writer)->seq;

		ck_assert_int_eq(put_group(writer, i, sizes[i], pieces[_i]), 0);
		ck_assert_uint_eq(mls_chain_writer_pos(writer)->seq - before, mls_chain_blocks(sizes[i]));
	}
	pos = *mls_chain_writer_pos(writer);
	mls_chain_writer_free(writer);

	reader = reader_at(&birth);
	for (unsigned i = 0; i < NR_SIZES; i++)
		must_get(reader, i, sizes[i]);
	same_pos(mls_chain_reader_pos(reader), &pos);
	must_end(reader);
	must_end(reader);
	same_pos(mls_chain_reader_pos(reader), &pos);
	ck_assert(!mls_chain_reader_more_behind(reader));
	mls_chain_reader_free(reader);
	tear_down();
}
END_TEST

/* Many sessions, each with a writer of its own, go round a small ring; readers start anywhere. */
START_TEST(sessions_go_round_the_ring)
{
	const uint64_t ring_blocks[] = { 1, 2, 5, 17, 100 };
	struct mls_chain_pos pos = birth, starts[200];
	size_t bytes[200];
	struct test_rand rand;

	set_up(ring_blocks[_i]);
	test_rand_seed(&rand, 7);
	for (unsigned g = 0; g < 200;) {
		struct mls_chain_writer *writer = writer_at(&pos);

		for (unsigned n = 0; n < 5; n++, g++) {
			starts[g] = *mls_chain_writer_pos(writer);
			bytes[g] = test_rand_below(&rand, ring.nr_blocks * ROOM / 3 + 1);
			must_put(writer, g, bytes[g]);
		}
		pos = *mls_chain_writer_pos(writer);
		mls_chain_writer_free(writer);
	}
	for (unsigned g = 200; g-- > 0 && pos.seq - starts[g].seq <= ring.nr_blocks;) {
		struct mls_chain_reader *reader = reader_at(&starts[g]);

		for (unsigned k = g; k < 200; k++)
			must_get(reader, k, bytes[k]);
		same_pos(mls_chain_reader_pos(reader), &pos);
		must_end(reader);
		mls_chain_reader_free(reader);
	}
	tear_down();
}
END_TEST

START_TEST(a_reader_sees_what_comes_later)
{
	struct mls_chain_writer *writer;
	struct mls_chain_reader *reader;

	set_up(50);
	writer = writer_at(&birth);
	reader = reader_at(&birth);
	must_end(reader);
	for (unsigned g = 0; g < 5; g++) {
		must_put(writer, g, 2 * ROOM);
		must_get(reader, g, 2 * ROOM);
		must_end(reader);
	}
	mls_chain_reader_free(reader);
	mls_chain_writer_free(writer);
	tear_down();
}
END_TEST

/* Three groups of 1, 3 and 1 blocks at HBA 3, 4..6, 7 of a ring of 8. */
static struct mls_chain_pos write_three(void)
{
	struct mls_chain_writer *writer = writer_at(&birth);
	struct mls_chain_pos pos;

	must_put(writer, 0, 10);
	must_put(writer, 1, 2 * ROOM + 100);
	must_put(writer, 2, 10);
	pos = *mls_chain_writer_pos(writer);
	mls_chain_writer_free(writer);
	return pos;
}

/* Goal: no byte of a block may change unnoticed. One bit of each byte of each block, in turn. */
START_TEST(each_byte_counts)
{
	set_up(8);
	write_three();
	ck_assert_uint_eq(groups_from(&birth), 3);
	for (uint64_t hba = RING_HBA; hba < RING_HBA + 5; hba++) {
		unsigned before = hba == RING_HBA ? 0 : hba < RING_HBA + 4 ? 1 : 2;

		for (uint32_t byte = 0; byte < MLS_BLOCK_BYTES; byte++) {
			uint32_t bit = byte * 8 + byte % 8;

			tamper_flip_bit(dev, hba, bit);
			ck_assert_uint_eq(groups_from(&birth), before);
			tamper_flip_bit(dev, hba, bit);
		}
	}
	ck_assert_uint_eq(groups_from(&birth), 3);
	tear_down();
}
END_TEST

/* A group whose last blocks never came isn't there, however many of its blocks are. */
START_TEST(a_group_cut_short_is_not_there)
{
	struct tamper_image whole, empty;

	set_up(8);
	tamper_image_take(&empty, dev);
	write_three();
	tamper_image_take(&whole, dev);
	for (uint64_t missing = 1; missing <= 3; missing++) {
		tamper_image_put_back_range(&empty, dev, RING_HBA + missing, 1);
		ck_assert_uint_eq(groups_from(&birth), 1);
		tamper_image_put_back(&whole, dev);
	}
	for (uint64_t kept = 0; kept <= 5; kept++) {
		tamper_image_put_back(&whole, dev);
		tamper_image_put_back_range(&empty, dev, RING_HBA + kept, 5 - kept);
		ck_assert_uint_eq(groups_from(&birth), kept < 1 ? 0 : kept < 4 ? 1 : kept < 5 ? 2 : 3);
	}
	tamper_image_release(&whole);
	tamper_image_release(&empty);
	tear_down();
}
END_TEST

START_TEST(swapped_blocks)
{
	set_up(8);
	write_three();
	for (uint64_t a = 0; a < 5; a++) {
		for (uint64_t b = a + 1; b < 5; b++) {
			tamper_swap(dev, RING_HBA + a, RING_HBA + b);
			ck_assert_uint_eq(groups_from(&birth), a < 1 ? 0 : a < 4 ? 1 : 2);
			tamper_swap(dev, RING_HBA + a, RING_HBA + b);
			tamper_copy(dev, RING_HBA + a, RING_HBA + 5);	/* an old block behind the end */
			ck_assert_uint_eq(groups_from(&birth), 3);
		}
	}
	tear_down();
}
END_TEST

/* The last lap's block has the wrong seq; another branch's block follows the wrong tag. */
START_TEST(older_groups_put_back)
{
	struct mls_chain_pos pos, second;
	struct mls_chain_writer *writer;
	struct tamper_image lap_0, branch;

	set_up(4);
	writer = writer_at(&birth);
	for (unsigned g = 0; g < 4; g++)
		must_put(writer, g, 50);
	tamper_image_take(&lap_0, dev);
	second = *mls_chain_writer_pos(writer);
	for (unsigned g = 4; g < 8; g++) {
		pos = *mls_chain_writer_pos(writer);
		must_put(writer, g, 50);
		ck_assert_uint_eq(groups_from(&pos), 1);
		tamper_image_put_back_range(&lap_0, dev, RING_HBA + g % 4, 1);
		ck_assert_uint_eq(groups_from(&pos), 0);
		mls_chain_writer_free(writer);
		writer = writer_at(&pos);
		must_put(writer, g, 50);
	}
	mls_chain_writer_free(writer);

	/* A session that was given up left seq 5 and 6; the next writes 5 anew. */
	writer = writer_at(&second);
	must_put(writer, 10, 50);
	must_put(writer, 11, 50);
	must_put(writer, 12, 50);
	tamper_image_take(&branch, dev);
	mls_chain_writer_free(writer);
	writer = writer_at(&second);
	must_put(writer, 20, 50);
	pos = *mls_chain_writer_pos(writer);
	mls_chain_writer_free(writer);
	ck_assert_uint_eq(groups_from(&second), 1);
	ck_assert_uint_eq(groups_from(&pos), 0);	/* though 5 and 6 of the other branch lie there */

	/* Put back from the fork on, the other branch is a chain again: only who keeps the digest sees. */
	tamper_image_put_back(&branch, dev);
	ck_assert_uint_eq(groups_from(&second), 3);
	ck_assert_uint_eq(groups_from(&pos), 0);
	tamper_image_release(&lap_0);
	tamper_image_release(&branch);
	tear_down();
}
END_TEST

/* Blocks of other keys: another master key, disk or label. And another salt in the header. */
START_TEST(other_chains)
{
	struct mls_keyring *mine;
	struct mls_chain_reader *reader;
	struct tamper_image first;

	set_up(8);
	write_three();
	mine = keys;
	keys = test_keys(2, 1);
	ck_assert_uint_eq(groups_from(&birth), 0);
	mls_keyring_free(keys);
	keys = test_keys(1, 2);
	ck_assert_uint_eq(groups_from(&birth), 0);
	mls_keyring_free(keys);
	keys = mine;
	ck_assert_int_eq(mls_chain_reader_new(&reader, &ring, keys, "chain tesT", &birth), 0);
	must_end(reader);
	ck_assert(!mls_chain_reader_more_behind(reader));
	mls_chain_reader_free(reader);

	/* Two chains from one birth with equal content: no block of one fits into the other. */
	tamper_image_take(&first, dev);
	write_three();
	for (uint64_t i = 1; i < 5; i++) {
		tamper_image_put_back_range(&first, dev, RING_HBA + i, 1);
		ck_assert_uint_lt(groups_from(&birth), 3);
		write_three();
	}
	tamper_image_release(&first);
	tear_down();
}
END_TEST

START_TEST(wrong_start)
{
	struct mls_chain_pos pos = birth;
	struct mls_chain_hdr_disk hdr;
	uint8_t *block = NULL;

	set_up(8);
	write_three();
	pos.tag[15] = 1;
	ck_assert_uint_eq(groups_from(&pos), 0);
	pos = birth;
	pos.seq = 8;	/* the same place, a lap later */
	ck_assert_uint_eq(groups_from(&pos), 0);

	/* In the middle of the group of three: right seq and tag, but no first block. */
	ck_assert_int_eq(posix_memalign((void **)&block, MLS_BLOCK_BYTES, MLS_BLOCK_BYTES), 0);
	for (uint64_t seq = 0; seq < 5; seq++) {
		ck_assert_int_eq(mls_block_ring_read(&ring, seq, 1, block), 0);
		memcpy(&hdr, block, sizeof hdr);
		pos.seq = seq + 1;
		memcpy(pos.tag, hdr.tag, MLS_TAG_BYTES);
		ck_assert_uint_eq(groups_from(&pos), seq == 0 ? 2 : seq == 3 ? 1 : 0);
	}
	free(block);
	tear_down();
}
END_TEST

START_TEST(more_behind_tells_damage_from_the_end)
{
	struct mls_chain_reader *reader;

	set_up(8);
	write_three();
	reader = reader_at(&birth);
	tamper_flip_bit(dev, RING_HBA + 2, 800);
	must_get(reader, 0, 10);
	must_end(reader);
	ck_assert(mls_chain_reader_more_behind(reader));
	tamper_flip_bit(dev, RING_HBA + 2, 800);
	must_get(reader, 1, 2 * ROOM + 100);	/* and the reader goes on where it was */
	must_get(reader, 2, 10);
	must_end(reader);
	ck_assert(!mls_chain_reader_more_behind(reader));
	mls_chain_reader_free(reader);
	tear_down();
}
END_TEST

START_TEST(a_group_of_the_whole_ring_and_no_more)
{
	struct mls_chain_writer *writer;
	struct mls_chain_reader *reader;

	set_up(70);
	writer = writer_at(&birth);
	must_put(writer, 0, 70 * ROOM);
	reader = reader_at(&birth);
	must_get(reader, 0, 70 * ROOM);
	must_end(reader);
	mls_chain_reader_free(reader);
	ck_assert_int_eq(put_group(writer, 1, 70 * ROOM + 1, ROOM), MLS_ENOSPC);
	ck_assert_uint_eq(mls_chain_writer_pos(writer)->seq, 70);
	ck_assert_int_eq(mls_chain_begin(writer), MLS_EPOISONED);
	ck_assert_int_eq(mls_chain_put(writer, "x", 1), MLS_EPOISONED);
	ck_assert_int_eq(mls_chain_end(writer), MLS_EPOISONED);
	mls_chain_writer_free(writer);
	tear_down();
}
END_TEST

/* Goal: a failed write poisons; what was ended before is there, the group that failed isn't claimed;
 * no nonce comes twice, whichever write failed and whoever writes next. */
START_TEST(any_write_fails)
{
	static struct test_audit audit;
	bool fired = true;

	mls_aead_set_audit(test_audit, &audit);
	for (uint64_t n = 1; fired; n++) {
		struct mls_chain_writer *writer;
		struct fault_dev *flaky;
		struct mls_chain_pos pos;
		unsigned ended = 0;
		int err = 0;

		set_up(140);
		flaky = fault_dev_new(dev, FAULT_WRITE);
		ring.dev = &flaky->base;
		fault_dev_arm(flaky, n, MLS_EIO, false);
		memset(&audit, 0, sizeof audit);
		writer = writer_at(&birth);
		while (!err && ended < 3) {
			err = put_group(writer, ended, ended == 1 ? 130 * ROOM : 10, ROOM);
			ended += !err;
		}
		fired = flaky->fired;
		fault_dev_arm(flaky, 0, 0, false);
		ck_assert_int_eq(err, fired ? MLS_EIO : 0);
		pos = *mls_chain_writer_pos(writer);
		if (fired)
			ck_assert_int_eq(mls_chain_begin(writer), MLS_EPOISONED);
		mls_chain_writer_free(writer);
		ck_assert_uint_ge(groups_from(&birth), ended);
		ck_assert_uint_eq(groups_from(&pos), 0);

		writer = writer_at(&pos);	/* the next session goes on from what it accepted */
		must_put(writer, 9, 3 * ROOM);
		mls_chain_writer_free(writer);
		ck_assert_uint_eq(groups_from(&birth), ended + 1);
		ck_assert_uint_eq(audit.nr_twice, 0);
		mls_block_dev_destroy(&flaky->base);
		tear_down();
	}
	mls_aead_set_audit(NULL, NULL);
}
END_TEST

/* A read error is one, not the end of the chain; but reading ahead past the end may fail. */
START_TEST(any_read_fails)
{
	bool fired = true;

	for (uint64_t n = 1; fired; n++) {
		struct mls_chain_writer *writer;
		struct mls_chain_reader *reader;
		struct fault_dev *flaky;
		const uint8_t *bytes;
		unsigned got = 0;
		size_t nr_bytes;
		int err;

		set_up(200);
		writer = writer_at(&birth);
		for (unsigned g = 0; g < 30; g++)
			must_put(writer, g, 5 * ROOM);
		mls_chain_writer_free(writer);
		flaky = fault_dev_new(dev, FAULT_READ);
		ring.dev = &flaky->base;
		reader = reader_at(&birth);
		fault_dev_arm(flaky, n, MLS_EIO, true);
		while ((err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0)
			got++;
		fired = flaky->fired;
		ck_assert_int_eq(err, fired ? MLS_EIO : MLS_ENOENT);
		fault_dev_arm(flaky, 0, 0, false);
		while ((err = mls_chain_reader_next(reader, &bytes, &nr_bytes)) == 0)
			got++;
		ck_assert_int_eq(err, MLS_ENOENT);
		ck_assert_uint_eq(got, 30);

		/* One failure of a large read is made good by smaller ones. */
		mls_chain_reader_free(reader);
		fault_dev_arm(flaky, n, MLS_EIO, false);
		ck_assert_uint_eq(groups_from(&birth), 30);
		mls_block_dev_destroy(&flaky->base);
		tear_down();
	}
}
END_TEST

static int no_random(void *arg, void *out, size_t bytes)
{
	(void)arg, (void)out, (void)bytes;
	return MLS_EIO;
}

START_TEST(no_salt_no_writer)
{
	struct mls_chain_writer *writer;

	set_up(8);
	mls_rand_set_source(no_random, NULL);
	ck_assert_int_eq(mls_chain_writer_new(&writer, &ring, keys, LABEL, &birth), MLS_EIO);
	mls_rand_set_source(NULL, NULL);
	mls_chain_writer_free(NULL);
	mls_chain_reader_free(NULL);
	tear_down();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crypto_chain");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, blocks_of_a_group);
	tcase_add_loop_test(tc, groups_come_back, 0, 5);
	tcase_add_loop_test(tc, sessions_go_round_the_ring, 0, 5);
	tcase_add_test(tc, a_reader_sees_what_comes_later);
	tcase_add_test(tc, each_byte_counts);
	tcase_add_test(tc, a_group_cut_short_is_not_there);
	tcase_add_test(tc, swapped_blocks);
	tcase_add_test(tc, older_groups_put_back);
	tcase_add_test(tc, other_chains);
	tcase_add_test(tc, wrong_start);
	tcase_add_test(tc, more_behind_tells_damage_from_the_end);
	tcase_add_test(tc, a_group_of_the_whole_ring_and_no_more);
	tcase_add_test(tc, any_write_fails);
	tcase_add_test(tc, any_read_fails);
	tcase_add_test(tc, no_salt_no_writer);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
