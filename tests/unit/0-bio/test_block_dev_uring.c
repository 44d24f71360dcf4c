/* SPDX-License-Identifier: MPL-2.0 */
/* A file (and, for root, a loop device) as a block device: what is written, locked, short, refused. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "0-bio/block_dev.h"
#include "base/buf.h"
#include "tests/lib/check_run.h"
#include "tests/lib/test_rand.h"

#define FILE_BLOCKS 1024u
#define FILE_BYTES ((uint64_t)FILE_BLOCKS * MLS_BLOCK_BYTES)

static char dir[256], path[300];
static char last_message[1024];

static void remember(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	if (level <= MLS_LOG_WARNING)
		snprintf(last_message, sizeof last_message, "%s", message);
}

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/mls-uring-XXXXXX", tmp ? tmp : "/var/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/backing", dir);
}

static void teardown(void)
{
	unlink(path);
	rmdir(dir);
}

static struct mls_block_dev *open_dev(unsigned flags)
{
	struct mls_block_dev *dev = NULL;

	ck_assert_int_eq(mls_block_dev_open(&dev, path, flags, FILE_BYTES), 0);
	ck_assert_ptr_nonnull(dev);
	return dev;
}

/* Write and read back batches of random shape, compare with a copy in memory. */
static void exercise(struct mls_block_dev *dev, uint64_t seed, uint64_t first, uint64_t nr_blocks, unsigned rounds)
{
	enum { NR = 150 };		/* more than a ring holds */
	uint8_t *model = mls_blocks_zalloc(nr_blocks), *data = mls_blocks_alloc(NR * 4);
	struct mls_io ios[NR];
	struct test_rand r;

	ck_assert(model && data);
	test_rand_seed(&r, seed);
	ck_assert_int_eq(mls_block_dev_read(dev, first, (uint32_t)nr_blocks, model), 0);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned nr = test_rand_chance(&r, 1, 4) ? NR : (unsigned)test_rand_between(&r, 1, 9);
		bool is_write = test_rand_chance(&r, 1, 2);
		uint64_t hba = test_rand_below(&r, 3);

		test_rand_fill(&r, data, 64);
		for (unsigned i = 0; i < nr; i++) {	/* ascending, so that no two overlap */
			uint32_t len = (uint32_t)test_rand_between(&r, 1, 3);

			if (hba + len > nr_blocks) {
				nr = i;
				break;
			}
			ios[i] = (struct mls_io){ .hba = first + hba, .nr_blocks = len, .err = 1,
						  .data = mls_block_at(data, i * 4) };
			if (is_write) {
				memset(ios[i].data, (int)test_rand_u64(&r), len * MLS_BLOCK_BYTES);
				memcpy(mls_block_at(model, hba), ios[i].data, len * MLS_BLOCK_BYTES);
			}
			hba += len + test_rand_below(&r, 2);
		}
		ck_assert_int_eq(is_write ? mls_block_dev_writev(dev, ios, nr) : mls_block_dev_readv(dev, ios, nr), 0);
		for (unsigned i = 0; i < nr; i++) {
			ck_assert_int_eq(ios[i].err, 0);
			ck_assert_mem_eq(ios[i].data, mls_block_at(model, ios[i].hba - first),
					 ios[i].nr_blocks * MLS_BLOCK_BYTES);
		}
	}
	mls_blocks_free(model);
	mls_blocks_free(data);
}

START_TEST(a_new_file_is_private_sparse_and_zero)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	uint8_t *block = mls_blocks_alloc(1);
	struct stat st;

	ck_assert_uint_eq(dev->nr_blocks, FILE_BLOCKS);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_eq(st.st_size, (off_t)FILE_BYTES);
	ck_assert_int_lt(st.st_blocks, 64);
	ck_assert_int_eq(mls_block_dev_read(dev, FILE_BLOCKS - 1, 1, block), 0);
	ck_assert(block[0] == 0 && block[4095] == 0);
	mls_blocks_free(block);
	mls_block_dev_destroy(dev);
}
END_TEST

START_TEST(what_is_written_is_there_after_a_reopen)
{
	struct mls_block_dev *dev = open_dev(_i ? MLS_DEV_CREATE | MLS_DEV_NO_DIRECT : MLS_DEV_CREATE);
	uint8_t *block = mls_blocks_alloc(1);

	exercise(dev, 1, 0, FILE_BLOCKS, 100);
	memset(block, 7, MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_block_dev_write(dev, 5, 1, block), 0);
	ck_assert_int_eq(mls_block_dev_flush(dev), 0);
	ck_assert_int_eq(mls_block_dev_flush(dev), 0);
	mls_block_dev_destroy(dev);
	dev = open_dev(MLS_DEV_READ_ONLY);
	block[1] = 0;
	ck_assert_int_eq(mls_block_dev_read(dev, 5, 1, block), 0);
	ck_assert(block[0] == 7 && block[1] == 7);
	ck_assert_int_eq(mls_block_dev_write(dev, 5, 1, block), MLS_EROFS);
	ck_assert_int_eq(mls_block_dev_discard(dev, 5, 1), MLS_EROFS);
	mls_blocks_free(block);
	mls_block_dev_destroy(dev);
}
END_TEST

START_TEST(create_grows_and_never_shrinks)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);

	mls_block_dev_destroy(dev);
	ck_assert_int_eq(mls_block_dev_open(&dev, path, MLS_DEV_CREATE, 4096), 0);
	ck_assert_uint_eq(dev->nr_blocks, FILE_BLOCKS);
	mls_block_dev_destroy(dev);
	ck_assert_int_eq(mls_block_dev_open(&dev, path, MLS_DEV_CREATE, FILE_BYTES + 1), 0);
	ck_assert_uint_eq(dev->nr_blocks, FILE_BLOCKS + 1);
	mls_block_dev_destroy(dev);
	ck_assert_int_eq(mls_block_dev_open(&dev, path, 0, FILE_BYTES * 2), 0);	/* size ignored */
	ck_assert_uint_eq(dev->nr_blocks, FILE_BLOCKS + 1);
	mls_block_dev_destroy(dev);
}
END_TEST

START_TEST(open_refuses_what_it_must)
{
	struct mls_block_dev *dev = NULL;

	ck_assert_int_eq(mls_block_dev_open(&dev, path, 0, 0), MLS_ENOENT);
	ck_assert_int_eq(mls_block_dev_open(&dev, dir, 0, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_open(&dev, "/dev/null", 0, 0), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_open(&dev, path, MLS_DEV_CREATE | MLS_DEV_READ_ONLY, 4096), MLS_EINVAL);
	ck_assert_int_eq(mls_block_dev_open(&dev, path, MLS_DEV_CREATE, UINT64_MAX), MLS_EINVAL);
	ck_assert_ptr_null(dev);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* flock belongs to the open file, so a second open in this process is as good as one in another. */
START_TEST(a_second_opener_is_kept_out)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE), *other = NULL;
	int status;
	pid_t pid;

	ck_assert_int_eq(mls_block_dev_open(&other, path, 0, 0), MLS_EBUSY);
	ck_assert_int_eq(mls_block_dev_open(&other, path, MLS_DEV_READ_ONLY, 0), MLS_EBUSY);
	pid = fork();
	if (pid == 0)
		_exit(mls_block_dev_open(&other, path, MLS_DEV_CREATE, FILE_BYTES * 2) == MLS_EBUSY ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	mls_block_dev_destroy(dev);

	dev = open_dev(MLS_DEV_READ_ONLY);
	other = open_dev(MLS_DEV_READ_ONLY);		/* readers share */
	mls_block_dev_destroy(other);
	ck_assert_int_eq(mls_block_dev_open(&other, path, 0, 0), MLS_EBUSY);
	mls_block_dev_destroy(dev);
	mls_block_dev_destroy(open_dev(0));
}
END_TEST

static pid_t child_that(void (*does)(void))
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		does();
		_exit(0);
	}
	return pid;
}

static void wait_to_be_killed(void)
{
	pause();
}

/* As after kill -9: the kernel still has the other's file for a moment. */
static void hold_for_a_moment(void)
{
	int fd = open(path, O_RDWR);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		_exit(1);
	usleep(200000);
}

/* Goal: who closes gives the lock back, though others still have the open file. */
START_TEST(closing_gives_the_lock_back)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	pid_t pid = child_that(wait_to_be_killed);

	mls_block_dev_destroy(dev);
	mls_block_dev_destroy(open_dev(0));
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

START_TEST(a_lock_held_for_a_moment_is_waited_for)
{
	int status;
	pid_t pid;

	mls_block_dev_destroy(open_dev(MLS_DEV_CREATE));
	pid = child_that(hold_for_a_moment);
	usleep(50000);
	mls_block_dev_destroy(open_dev(0));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_file_cut_short_by_the_host_is_an_error)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	uint8_t *blocks = mls_blocks_zalloc(8);
	struct mls_io ios[3];

	ck_assert_int_eq(truncate(path, 10 * 4096 + 512), 0);
	ck_assert_int_eq(mls_block_dev_read(dev, 6, 4, blocks), 0);
	last_message[0] = 0;
	ck_assert_int_eq(mls_block_dev_read(dev, 8, 4, blocks), MLS_EIO);
	ck_assert_ptr_nonnull(strstr(last_message, "HBA 8"));
	for (unsigned i = 0; i < 3; i++)
		ios[i] = (struct mls_io){ .hba = 8 + i, .nr_blocks = 1, .data = mls_block_at(blocks, i) };
	ck_assert_int_eq(mls_block_dev_readv(dev, ios, 3), MLS_EIO);
	ck_assert(ios[0].err == 0 && ios[1].err == 0 && ios[2].err == MLS_EIO);
	mls_blocks_free(blocks);
	mls_block_dev_destroy(dev);
}
END_TEST

START_TEST(a_full_host_is_no_space)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	uint8_t *blocks = mls_blocks_zalloc(8);
	struct rlimit old, low = { .rlim_cur = 100 * 4096 };
	struct mls_io ios[2] = {
		{ .hba = 98, .nr_blocks = 4, .data = blocks },
		{ .hba = 4, .nr_blocks = 1, .data = blocks },
	};

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	low.rlim_max = old.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
	ck_assert_int_eq(mls_block_dev_write(dev, 98, 4, blocks), MLS_ENOSPC);
	ck_assert_int_eq(mls_block_dev_writev(dev, ios, 2), MLS_ENOSPC);
	ck_assert_int_eq(ios[1].err, 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	mls_blocks_free(blocks);
	mls_block_dev_destroy(dev);
}
END_TEST

START_TEST(a_discard_gives_space_back)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	uint8_t *blocks = mls_blocks_alloc(256);
	struct stat before, after;

	memset(blocks, 1, 256 * MLS_BLOCK_BYTES);
	ck_assert_int_eq(mls_block_dev_write(dev, 0, 256, blocks), 0);
	ck_assert_int_eq(mls_block_dev_flush(dev), 0);
	ck_assert_int_eq(stat(path, &before), 0);
	ck_assert_int_eq(mls_block_dev_discard(dev, 10, 200), 0);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_int_le(after.st_blocks, before.st_blocks);
	ck_assert_int_eq(after.st_size, before.st_size);
	ck_assert_int_eq(mls_block_dev_read(dev, 9, 1, blocks), 0);
	ck_assert(blocks[0] == 1);
	ck_assert_int_eq(mls_block_dev_read(dev, 210, 1, blocks), 0);
	ck_assert(blocks[0] == 1);
	mls_blocks_free(blocks);
	mls_block_dev_destroy(dev);
}
END_TEST

/* ---- Threads, forks ---- */

#define NR_THREADS 16u

struct worker {
	pthread_t thread;
	struct mls_block_dev *dev;
	uint64_t index;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	exercise(w->dev, w->index, w->index * (FILE_BLOCKS / NR_THREADS), FILE_BLOCKS / NR_THREADS, 50);
	return NULL;
}

START_TEST(many_threads_share_a_device)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	struct worker workers[NR_THREADS];

	for (unsigned i = 0; i < NR_THREADS; i++) {
		workers[i] = (struct worker){ .dev = dev, .index = i };
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	mls_block_dev_destroy(dev);
}
END_TEST

/* A daemon forks after it has opened its disk. */
START_TEST(a_forked_child_gets_a_ring_of_its_own)
{
	struct mls_block_dev *dev = open_dev(MLS_DEV_CREATE);
	int status;
	pid_t pid;

	exercise(dev, 3, 0, FILE_BLOCKS, 10);
	pid = fork();
	if (pid == 0) {
		exercise(dev, 4, 0, FILE_BLOCKS, 10);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	exercise(dev, 5, 0, FILE_BLOCKS, 10);
	mls_block_dev_destroy(dev);
}
END_TEST

/* ---- A block device (root only) ---- */

static int attach_loop(char *loop_path, size_t room)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, loop, nr;

	if (control < 0)
		return -1;
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (nr < 0)
		return -1;
	snprintf(loop_path, room, "/dev/loop%d", nr);
	loop = open(loop_path, O_RDWR | O_CLOEXEC);
	file = open(path, O_RDWR | O_CLOEXEC);
	if (loop < 0 || file < 0 || ioctl(loop, LOOP_SET_FD, file)) {
		if (loop >= 0)
			close(loop);
		loop = -1;
	}
	if (file >= 0)
		close(file);
	return loop;
}

START_TEST(a_block_device_works_and_is_exclusive)
{
	struct mls_block_dev *dev, *other = NULL;
	char loop_path[32];
	int loop;

	mls_block_dev_destroy(open_dev(MLS_DEV_CREATE));
	loop = geteuid() == 0 ? attach_loop(loop_path, sizeof loop_path) : -1;
	if (loop < 0)
		return;			/* not root, or no loop devices here */
	ck_assert_int_eq(mls_block_dev_open(&dev, loop_path, 0, 0), 0);
	ck_assert_uint_eq(dev->nr_blocks, FILE_BLOCKS);
	ck_assert_int_eq(mls_block_dev_open(&other, loop_path, 0, 0), MLS_EBUSY);
	exercise(dev, 6, 0, FILE_BLOCKS, 30);
	ck_assert_int_eq(mls_block_dev_discard(dev, 0, 64), 0);
	ck_assert_int_eq(mls_block_dev_flush(dev), 0);
	mls_block_dev_destroy(dev);
	ioctl(loop, LOOP_CLR_FD);
	close(loop);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("0-bio/block_dev_uring");
	TCase *tc = tcase_create("all");

	mls_set_logger(remember, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_new_file_is_private_sparse_and_zero);
	tcase_add_loop_test(tc, what_is_written_is_there_after_a_reopen, 0, 2);
	tcase_add_test(tc, create_grows_and_never_shrinks);
	tcase_add_test(tc, open_refuses_what_it_must);
	tcase_add_test(tc, a_second_opener_is_kept_out);
	tcase_add_test(tc, closing_gives_the_lock_back);
	tcase_add_test(tc, a_lock_held_for_a_moment_is_waited_for);
	tcase_add_test(tc, a_file_cut_short_by_the_host_is_an_error);
	tcase_add_test(tc, a_full_host_is_no_space);
	tcase_add_test(tc, a_discard_gives_space_back);
	tcase_add_test(tc, many_threads_share_a_device);
	tcase_add_test(tc, a_forked_child_gets_a_ring_of_its_own);
	tcase_add_test(tc, a_block_device_works_and_is_exclusive);
	suite_add_tcase(suite, tc);
	return check_run(suite);
}
