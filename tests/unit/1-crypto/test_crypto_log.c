/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_crypto_log.c - each read gives the block that was appended at that position, or an error.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "1-crypto/crypto_log.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "1-crypto/crypto_log_layout.h"
#include "base/buf.h"
#include "base/endian.h"
#include "base/rand.h"
#include "tests/lib/check_run.h"
#include "tests/unit/1-crypto/crypto_test.h"

#define F ((uint64_t)MLS_MHT_FANOUT)

/* ---- Layout: the formulas against the plain rule, played through ---- */

struct placed {
	int level;		/* -1: data */
	uint64_t index;
};

/* "A node follows its last child; unfilled ones at the end, lowest first." */
static uint64_t play_layout(uint64_t nr_data, struct placed *out)
{
	uint64_t open[5] = { 0 }, index[5] = { 0 }, pos = 0, i;
	unsigned level, top = 0;

	for (uint64_t n = (nr_data + F - 1) / F; n > 1; n = (n + F - 1) / F)
		top++;
	for (i = 0; i < nr_data; i++) {
		out[pos++] = (struct placed){ -1, i };
		open[0]++;
		for (level = 0; level <= top && open[level] == F; level++) {
			out[pos++] = (struct placed){ (int)level, index[level]++ };
			open[level] = 0;
			open[level + 1]++;
		}
	}
	for (level = 0; level <= top; level++) {
		if (open[level] > 0) {
			out[pos++] = (struct placed){ (int)level, index[level]++ };
			open[level + 1]++;
		}
	}
	return pos;
}

static void check_layout(uint64_t nr_data, struct placed *room)
{
	uint64_t total = play_layout(nr_data, room), nr_wrong = 0;

	ck_assert_uint_eq(mls_crypto_log_total_blocks(nr_data), total);
	for (uint64_t pos = 0; pos < total; pos++) {
		if (room[pos].level < 0)
			nr_wrong += mls_mht_data_pos(room[pos].index) != pos;
		else
			nr_wrong += mls_mht_node_pos(nr_data, (unsigned)room[pos].level, room[pos].index) != pos;
	}
	ck_assert_uint_eq(nr_wrong, 0);
}

START_TEST(layout_follows_the_rule)
{
	static const uint64_t large[] = { F * F - 1, F * F, F * F + 1, F * F + F, F * F + F + 1, 2 * F * F,
					  2 * F * F + 1, 3 * F * F - F };
	struct placed *room = malloc((3 * F * F + 4 * F) * sizeof *room);

	for (uint64_t n = 1; n <= 3 * F + 2; n++)
		check_layout(n, room);
	for (size_t i = 0; i < sizeof large / sizeof *large; i++)
		check_layout(large[i], room);
	free(room);
}
END_TEST

START_TEST(layout_of_huge_logs)
{
	for (uint64_t n = 1; n <= MLS_MHT_DATA_BLOCKS_MAX; n = n * 3 + 1) {
		unsigned top = mls_mht_top_level(n);

		ck_assert_uint_eq(mls_mht_nr_nodes(n, top), 1);
		ck_assert_uint_eq(mls_mht_node_pos(n, top, 0) + 1, mls_crypto_log_total_blocks(n));
		for (unsigned level = 0; level < top; level++) {
			uint64_t nr = mls_mht_nr_nodes(n, level);

			ck_assert_uint_gt(nr, 1);
			ck_assert_uint_lt(mls_mht_node_pos(n, level, nr - 2), mls_mht_node_pos(n, level, nr - 1));
			ck_assert_uint_lt(mls_mht_node_pos(n, level, nr - 1),
					  mls_mht_node_pos(n, level + 1, (nr - 1) / F));
		}
	}
	ck_assert_uint_eq(mls_crypto_log_total_blocks(0), 0);
	ck_assert_uint_eq(mls_crypto_log_total_blocks(1), 2);
	ck_assert_uint_eq(mls_crypto_log_total_blocks(255), 256);
	ck_assert_uint_eq(mls_crypto_log_total_blocks(256), 259);
}
END_TEST

/* ---- A log on a device; its chunks lie from the end of the device to its beginning ---- */

#define CHUNK_BLOCKS 50u

struct fixture {
	struct mls_block_dev *dev;
	struct mls_keyring *keys;
	struct mls_block_log raw;
	uint64_t next_hba;	/* of the chunk given out last */
	uint64_t nr_data;
	struct mls_log_root root;
};

static int grow(void *arg, uint64_t *hba)
{
	struct fixture *f = arg;

	if (f->next_hba < CHUNK_BLOCKS)
		return MLS_ENOSPC;
	f->next_hba -= CHUNK_BLOCKS;
	*hba = f->next_hba;
	return 0;
}

static uint64_t blocks_for(uint64_t nr_data)
{
	return (mls_crypto_log_total_blocks(nr_data) / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS;
}

static void set_up_on(struct fixture *f, struct mls_block_dev *dev, uint64_t nr_data)
{
	*f = (struct fixture){ .dev = dev, .keys = test_keys(1, 1), .next_hba = dev->nr_blocks,
			       .nr_data = nr_data };
	mls_block_log_init(&f->raw, dev, CHUNK_BLOCKS, grow, f);
}

static void set_up(struct fixture *f, uint64_t nr_data)
{
	set_up_on(f, test_mem_dev(blocks_for(nr_data)), nr_data);
}

static void tear_down(struct fixture *f)
{
	mls_block_log_release(&f->raw);
	mls_keyring_free(f->keys);
	mls_block_dev_destroy(f->dev);
}

static uint64_t hba_at(const struct fixture *f, uint64_t pos)
{
	return f->raw.chunk_hbas[pos / CHUNK_BLOCKS] + pos % CHUNK_BLOCKS;
}

static void make_block(uint8_t *block, uint64_t index)
{
	memset(block, (int)(index * 13 + 5), MLS_BLOCK_BYTES);
	mls_put_le64(block, index);
	mls_put_le64(block + MLS_BLOCK_BYTES - 8, ~index);
}

static int build(struct fixture *f, uint32_t piece)
{
	struct mls_crypto_log_builder *builder;
	uint8_t *blocks = mls_blocks_alloc(piece);
	int err = mls_crypto_log_builder_new(&builder, &f->raw, f->keys);

	for (uint64_t i = 0; !err && i < f->nr_data;) {
		uint32_t n = 0;

		for (; n < piece && i < f->nr_data; n++, i++)
			make_block(mls_block_at(blocks, n), i);
		err = mls_crypto_log_append(builder, blocks, n);
	}
	if (!err)
		err = mls_crypto_log_finish(builder, &f->root);
	if (err) {	/* poisoned: nothing more is sealed */
		ck_assert_int_eq(mls_crypto_log_append(builder, blocks, 1), MLS_EPOISONED);
		ck_assert_int_eq(mls_crypto_log_finish(builder, &f->root), MLS_EPOISONED);
	}
	mls_crypto_log_builder_free(builder);
	mls_blocks_free(blocks);
	return err;
}

static void set_up_built(struct fixture *f, uint64_t nr_data, uint32_t piece)
{
	set_up(f, nr_data);
	ck_assert_int_eq(build(f, piece), 0);
	ck_assert_uint_eq(f->root.nr_data_blocks, nr_data);
	ck_assert_uint_eq(f->raw.nr_blocks, mls_crypto_log_total_blocks(nr_data));
}

static struct mls_crypto_log *open_log(struct fixture *f)
{
	struct mls_crypto_log *log;

	ck_assert_int_eq(mls_crypto_log_open(&log, &f->raw, f->keys, &f->root), 0);
	return log;
}

static bool is_block(const uint8_t *block, uint64_t index)
{
	uint8_t want[MLS_BLOCK_BYTES];

	make_block(want, index);
	return memcmp(block, want, sizeof want) == 0;
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0;
}

static int read_one(struct mls_crypto_log *log, uint64_t index, uint8_t *block)
{
	int err = mls_crypto_log_read(log, index, 1, block);

	ck_assert(err ? is_zero(block, MLS_BLOCK_BYTES) : is_block(block, index));
	return err;
}

/* Every position of logs of 1 to 600 blocks, one by one and all in one read. */
START_TEST(every_position_of_small_logs)
{
	uint8_t *blocks = mls_blocks_alloc(600);

	for (uint64_t n = (uint64_t)_i + 1; n <= 600; n += 4) {
		struct fixture f;
		struct mls_crypto_log *log;

		set_up_built(&f, n, (uint32_t)(n % 70 + 1));
		log = open_log(&f);
		for (uint64_t i = n; i-- > 0;)
			ck_assert_int_eq(read_one(log, i, blocks), 0);
		mls_crypto_log_close(log);
		log = open_log(&f);
		ck_assert_int_eq(mls_crypto_log_read(log, 0, (uint32_t)n, blocks), 0);
		for (uint64_t i = 0; i < n; i++)
			ck_assert(is_block(mls_block_at(blocks, i), i));
		ck_assert_int_eq(mls_crypto_log_read(log, n, 1, blocks), MLS_EINVAL);
		ck_assert_int_eq(mls_crypto_log_read(log, n - 1, 2, blocks), MLS_EINVAL);
		ck_assert_int_eq(mls_crypto_log_read(log, UINT64_MAX, 2, blocks), MLS_EINVAL);
		ck_assert_int_eq(mls_crypto_log_read(log, n, 0, blocks), 0);
		mls_crypto_log_close(log);
		tear_down(&f);
	}
	mls_blocks_free(blocks);
}
END_TEST

/* A device in an anonymous file: a large log in ordinary memory has a sanitizer keep its shadow too. */
struct memfd_dev {
	struct mls_block_dev base;
	int fd;
};

static int memfd_transfer(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr, bool write)
{
	int fd = ((struct memfd_dev *)dev)->fd;

	for (unsigned i = 0; i < nr; i++) {
		size_t bytes = (size_t)ios[i].nr_blocks * MLS_BLOCK_BYTES;
		off_t at = (off_t)(ios[i].hba * MLS_BLOCK_BYTES);
		ssize_t n = write ? pwrite(fd, ios[i].data, bytes, at) : pread(fd, ios[i].data, bytes, at);

		ck_assert_int_eq(n, (ssize_t)bytes);
		ios[i].err = 0;
	}
	return 0;
}

static int memfd_read(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return memfd_transfer(dev, ios, nr, false);
}

static int memfd_write(struct mls_block_dev *dev, struct mls_io *ios, unsigned nr)
{
	return memfd_transfer(dev, ios, nr, true);
}

static void memfd_destroy(struct mls_block_dev *dev)
{
	close(((struct memfd_dev *)dev)->fd);
	free(dev);
}

static struct mls_block_dev *memfd_new(uint64_t nr_blocks)
{
	static const struct mls_block_dev_ops ops = { .read = memfd_read, .write = memfd_write,
						      .destroy = memfd_destroy };
	struct memfd_dev *dev = malloc(sizeof *dev);

	dev->base = (struct mls_block_dev){ .ops = &ops, .nr_blocks = nr_blocks };
	dev->fd = memfd_create("log", MFD_CLOEXEC);
	ck_assert_int_ge(dev->fd, 0);
	ck_assert_int_eq(ftruncate(dev->fd, (off_t)(nr_blocks * MLS_BLOCK_BYTES)), 0);
	return &dev->base;
}

/* Three levels, more nodes than the cache has room for, many readers. */
struct reader {
	struct mls_crypto_log *log;
	uint64_t nr_data, seed;
	int nr_wrong;
};

static void *read_at_random(void *arg)
{
	struct reader *r = arg;
	uint8_t *blocks = mls_blocks_alloc(300);
	struct test_rand rand;

	test_rand_seed(&rand, r->seed);
	for (int k = 0; k < 250; k++) {
		uint32_t n = k % 10 == 0 ? 300 : 1;
		uint64_t pos = test_rand_below(&rand, r->nr_data - n + 1);

		if (mls_crypto_log_read(r->log, pos, n, blocks) != 0)
			r->nr_wrong++;
		for (uint32_t i = 0; i < n; i++)
			r->nr_wrong += !is_block(mls_block_at(blocks, i), pos + i);
	}
	mls_blocks_free(blocks);
	return NULL;
}

START_TEST(a_log_of_three_levels)
{
	const uint64_t n = F * F + 1;
	struct reader readers[6];
	pthread_t threads[6];
	struct mls_crypto_log *log;
	uint8_t *block = mls_blocks_alloc(1);
	struct fixture f;

	set_up_on(&f, memfd_new(blocks_for(n)), n);
	ck_assert_int_eq(build(&f, 510), 0);
	ck_assert_uint_eq(mls_mht_top_level(n), 2);
	log = open_log(&f);
	for (uint64_t i = 0; i < n; i += F)
		ck_assert_int_eq(read_one(log, i, block), 0);
	for (uint64_t i = n - 3; i < n; i++)
		ck_assert_int_eq(read_one(log, i, block), 0);
	for (int i = 0; i < 6; i++) {
		readers[i] = (struct reader){ .log = log, .nr_data = n, .seed = (uint64_t)i + 1 };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, read_at_random, &readers[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_int_eq(readers[i].nr_wrong, 0);
	}
	mls_crypto_log_close(log);
	mls_blocks_free(block);
	tear_down(&f);
}
END_TEST

/* ---- Tampering ---- */

/* One bit of each byte of each block of a log of three data blocks and their node. */
START_TEST(each_byte_counts)
{
	uint8_t *block = mls_blocks_alloc(1);
	struct fixture f;

	set_up_built(&f, 3, 3);
	for (uint64_t pos = 0; pos < 4; pos++) {
		for (uint32_t byte = 0; byte < MLS_BLOCK_BYTES; byte++) {
			struct mls_crypto_log *log = open_log(&f);

			tamper_flip_bit(f.dev, hba_at(&f, pos), byte * 8 + byte % 8);
			for (uint64_t i = 0; i < 3; i++)
				ck_assert_int_eq(read_one(log, i, block), pos == 3 || pos == i ? MLS_EAUTH : 0);
			tamper_flip_bit(f.dev, hba_at(&f, pos), byte * 8 + byte % 8);
			mls_crypto_log_close(log);
		}
	}
	mls_blocks_free(block);
	tear_down(&f);
}
END_TEST

/* A changed data block is lost alone; a changed node takes all under it; nothing else is. */
START_TEST(what_a_changed_block_takes_with_it)
{
	const uint64_t n = 300;
	struct placed placed[310];
	uint8_t *block = mls_blocks_alloc(1), *all = mls_blocks_alloc(n);
	struct fixture f;
	uint64_t total;

	set_up_built(&f, n, 64);
	total = play_layout(n, placed);
	for (uint64_t pos = 0; pos < total; pos++) {
		struct mls_crypto_log *log = open_log(&f);

		tamper_flip_bit(f.dev, hba_at(&f, pos), (uint32_t)(pos * 97 % 32768));
		for (uint64_t i = 0; i < n; i++) {
			bool lost = placed[pos].level < 0 ? placed[pos].index == i :
				    placed[pos].level == 0 ? placed[pos].index == i / F : true;

			ck_assert_int_eq(read_one(log, i, block), lost ? MLS_EAUTH : 0);
		}
		ck_assert_int_eq(mls_crypto_log_read(log, 0, (uint32_t)n, all), MLS_EAUTH);
		ck_assert(is_zero(all, n * MLS_BLOCK_BYTES));
		tamper_flip_bit(f.dev, hba_at(&f, pos), (uint32_t)(pos * 97 % 32768));
		mls_crypto_log_close(log);
	}
	mls_blocks_free(block);
	mls_blocks_free(all);
	tear_down(&f);
}
END_TEST

/* Data with data, data with node, node with node. Equal plaintexts don't help. */
START_TEST(swapped_blocks)
{
	const uint64_t n = 520;
	struct placed placed[530];
	uint8_t *block = mls_blocks_alloc(1);
	struct test_rand rand;
	struct fixture f;
	uint64_t total;

	set_up_built(&f, n, 64);
	total = play_layout(n, placed);
	test_rand_seed(&rand, 3);
	for (int round = 0; round < 400; round++) {
		uint64_t a = round < 6 ? mls_mht_node_pos(n, 0, (uint64_t)round % 3) : test_rand_below(&rand, total);
		uint64_t b = round < 6 ? mls_mht_node_pos(n, round / 3, 0) : test_rand_below(&rand, total);
		uint64_t swapped[2] = { a, b };
		struct mls_crypto_log *log = open_log(&f);

		tamper_swap(f.dev, hba_at(&f, a), hba_at(&f, b));
		for (int k = 0; k < 2; k++) {
			const struct placed *p = &placed[swapped[k]];
			uint64_t first = p->level < 0 ? p->index : p->level == 0 ? p->index * F : 0;

			ck_assert_int_eq(read_one(log, first, block), a == b ? 0 : MLS_EAUTH);
		}
		tamper_swap(f.dev, hba_at(&f, a), hba_at(&f, b));
		mls_crypto_log_close(log);
	}
	mls_blocks_free(block);
	tear_down(&f);
}
END_TEST

/* Two logs of the same content in the same place, one after the other. */
START_TEST(blocks_of_an_older_log)
{
	const uint64_t n = 260;
	uint8_t *block = mls_blocks_alloc(1);
	struct tamper_image old_image, new_image;
	struct mls_log_root old_root;
	struct mls_crypto_log *log;
	struct fixture f;

	set_up_built(&f, n, 64);
	old_root = f.root;
	tamper_image_take(&old_image, f.dev);
	mls_block_log_release(&f.raw);
	f.next_hba = f.dev->nr_blocks;
	mls_block_log_init(&f.raw, f.dev, CHUNK_BLOCKS, grow, &f);
	ck_assert_int_eq(build(&f, 64), 0);
	tamper_image_take(&new_image, f.dev);
	ck_assert_mem_ne(f.root.salt, old_root.salt, MLS_SALT_BYTES);
	for (uint64_t pos = 0; pos < f.raw.nr_blocks; pos++)
		ck_assert(!tamper_image_block_same(&old_image, &new_image, hba_at(&f, pos)));

	for (uint64_t i = 0; i < n; i++) {
		log = open_log(&f);
		tamper_image_put_back_range(&old_image, f.dev, hba_at(&f, mls_mht_data_pos(i)), 1);
		ck_assert_int_eq(read_one(log, i, block), MLS_EAUTH);
		tamper_image_put_back_range(&new_image, f.dev, hba_at(&f, mls_mht_data_pos(i)), 1);
		ck_assert_int_eq(read_one(log, i, block), 0);
		mls_crypto_log_close(log);
	}
	/* The whole old log under the new root, and the new one under a mixed root. */
	log = open_log(&f);
	tamper_image_put_back(&old_image, f.dev);
	for (uint64_t i = 0; i < n; i++)
		ck_assert_int_eq(read_one(log, i, block), MLS_EAUTH);
	mls_crypto_log_close(log);
	memcpy(f.root.salt, old_root.salt, MLS_SALT_BYTES);
	log = open_log(&f);
	ck_assert_int_eq(read_one(log, 0, block), MLS_EAUTH);
	mls_crypto_log_close(log);
	f.root = old_root;
	log = open_log(&f);
	ck_assert_int_eq(read_one(log, 0, block), 0);
	mls_crypto_log_close(log);
	tamper_image_release(&old_image);
	tamper_image_release(&new_image);
	mls_blocks_free(block);
	tear_down(&f);
}
END_TEST

START_TEST(wrong_roots_and_keys)
{
	uint8_t *block = mls_blocks_alloc(1);
	struct mls_crypto_log *log;
	struct mls_log_root root;
	struct fixture f;

	set_up_built(&f, 256, 64);
	root = f.root;
	for (uint64_t n = 0; n < 300; n++) {
		root.nr_data_blocks = n;
		if (n != 256)
			ck_assert_int_eq(mls_crypto_log_open(&log, &f.raw, f.keys, &root), MLS_EINVAL);
	}
	root.nr_data_blocks = UINT64_MAX;
	ck_assert_int_eq(mls_crypto_log_open(&log, &f.raw, f.keys, &root), MLS_EINVAL);
	root = f.root;
	for (int i = 0; i < 3; i++) {
		if (i == 0) {
			f.root.tag[15] ^= 0x80;
		} else {
			f.root = root;
			mls_keyring_free(f.keys);
			f.keys = i == 1 ? test_keys(2, 1) : test_keys(1, 2);
		}
		log = open_log(&f);
		ck_assert_int_eq(read_one(log, 17, block), MLS_EAUTH);
		mls_crypto_log_close(log);
	}
	mls_crypto_log_close(NULL);
	mls_blocks_free(block);
	tear_down(&f);
}
END_TEST

/* ---- Errors ---- */

START_TEST(an_empty_log_is_none)
{
	struct mls_crypto_log_builder *builder;
	struct mls_log_root root;
	struct fixture f;

	set_up(&f, 1);
	ck_assert_int_eq(mls_crypto_log_builder_new(&builder, &f.raw, f.keys), 0);
	ck_assert_int_eq(mls_crypto_log_append(builder, NULL, 0), 0);
	ck_assert_int_eq(mls_crypto_log_finish(builder, &root), MLS_EINVAL);
	mls_crypto_log_builder_free(builder);
	mls_crypto_log_builder_free(NULL);
	tear_down(&f);
}
END_TEST

START_TEST(any_write_fails)
{
	static struct test_audit audit;
	bool fired = true;

	mls_aead_set_audit(test_audit, &audit);
	for (uint64_t n = 1; fired; n++) {
		struct fault_dev *flaky;
		struct fixture f;

		memset(&audit, 0, sizeof audit);
		set_up(&f, 520);
		flaky = fault_dev_new(f.dev, FAULT_WRITE);
		fault_dev_arm(flaky, n, MLS_EIO, false);
		f.raw.dev = &flaky->base;
		ck_assert_int_eq(build(&f, 100), flaky->fired ? MLS_EIO : 0);
		fired = flaky->fired;
		ck_assert_uint_eq(audit.nr_twice, 0);
		mls_block_dev_destroy(&flaky->base);
		tear_down(&f);
	}
	mls_aead_set_audit(NULL, NULL);
}
END_TEST

START_TEST(no_chunk_no_log)
{
	struct fixture f;

	set_up(&f, 520);
	f.next_hba = 3 * CHUNK_BLOCKS;
	ck_assert_int_eq(build(&f, 100), MLS_ENOSPC);
	tear_down(&f);
}
END_TEST

/* An error of the device comes out as one, and does no harm to later reads. */
START_TEST(any_read_fails)
{
	uint8_t *blocks = mls_blocks_alloc(520);
	bool fired = true;
	struct fixture f;

	set_up_built(&f, 520, 64);
	for (uint64_t n = 1; fired; n++) {
		struct fault_dev *flaky = fault_dev_new(f.dev, FAULT_READ);
		struct mls_crypto_log *log;

		fault_dev_arm(flaky, n, MLS_EIO, false);
		f.raw.dev = &flaky->base;
		log = open_log(&f);
		ck_assert_int_eq(mls_crypto_log_read(log, 0, 520, blocks), flaky->fired ? MLS_EIO : 0);
		fired = flaky->fired;
		fault_dev_arm(flaky, 0, 0, false);
		ck_assert_int_eq(mls_crypto_log_read(log, 0, 520, blocks), 0);
		for (uint64_t i = 0; i < 520; i++)
			ck_assert(is_block(mls_block_at(blocks, i), i));
		mls_crypto_log_close(log);
		mls_block_dev_destroy(&flaky->base);
		f.raw.dev = f.dev;
	}
	mls_blocks_free(blocks);
	tear_down(&f);
}
END_TEST

static int no_random(void *arg, void *out, size_t bytes)
{
	(void)arg, (void)out, (void)bytes;
	return MLS_EIO;
}

START_TEST(no_salt_no_builder)
{
	struct mls_crypto_log_builder *builder;
	struct fixture f;

	set_up(&f, 1);
	mls_rand_set_source(no_random, NULL);
	ck_assert_int_eq(mls_crypto_log_builder_new(&builder, &f.raw, f.keys), MLS_EIO);
	mls_rand_set_source(NULL, NULL);
	tear_down(&f);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crypto_log");
	TCase *tc = tcase_create("all");

	mls_set_logger(test_log_quiet, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, layout_follows_the_rule);
	tcase_add_test(tc, layout_of_huge_logs);
	tcase_add_loop_test(tc, every_position_of_small_logs, 0, 4);
	tcase_add_test(tc, a_log_of_three_levels);
	tcase_add_test(tc, each_byte_counts);
	tcase_add_test(tc, what_a_changed_block_takes_with_it);
	tcase_add_test(tc, swapped_blocks);
	tcase_add_test(tc, blocks_of_an_older_log);
	tcase_add_test(tc, wrong_roots_and_keys);
	tcase_add_test(tc, an_empty_log_is_none);
	tcase_add_test(tc, any_write_fails);
	tcase_add_test(tc, no_chunk_no_log);
	tcase_add_test(tc, any_read_fails);
	tcase_add_test(tc, no_salt_no_builder);
	suite_add_tcase(suite, tc);	return check_run(suite);
}
