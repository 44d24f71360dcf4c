/* SPDX-License-Identifier: MPL-2.0 */
/*
 * image_probe.c - looks at image.raw the way programs do; used by the end-to-end tests.
 *
 * Commands  semantics IMAGE            what a disk in a file must do, each a check with a line number
 *           fill IMAGE MODEL SEED      random bytes over all of both, synced
 *           storm IMAGE MODEL SEED     random writes to both, sync of IMAGE, a line "synced" on stdout,
 *                                      then writes to IMAGE only, until it fails or for ever
 *           after-storm IMAGE MODEL SEED   IMAGE is as of the storm's sync, or of one moment later;
 *                                      MODEL is brought there
 *           write IMAGE MODEL SEED     as storm, but without the sync and with an end; keeps IMAGE open
 *                                      until its standard input ends
 *           compare IMAGE MODEL        every block equal, or EIO; prints "same eio wrong"
 *           flush DEVICE N             N times: write a block, fsync, print a line
 * Status    0; 1: a check failed; 2: usage. compare: 1 if a block is wrong, 3 if some gave EIO.
 */
#define _GNU_SOURCE 1
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCK 4096u

#define CHECK(cond)                                                                                            \
	do {                                                                                                   \
		if (!(cond)) {                                                                                 \
			printf("image_probe.c:%d: not so: %s (errno %s)\n", __LINE__, #cond, strerror(errno)); \
			exit(1);                                                                               \
		}                                                                                              \
	} while (0)

/* xorshift: seeded, the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_random(void *buf, size_t bytes, uint64_t *state)
{
	for (size_t i = 0; i < bytes / 8; i++)
		((uint64_t *)buf)[i] = next_random(state);
}

static uint64_t seed_of(const char *text)
{
	return strtoull(text, NULL, 0) * 0x9E3779B97F4A7C15u + 1;
}

static void *blocks_alloc(size_t nr)
{
	void *blocks = aligned_alloc(BLOCK, nr * BLOCK);

	CHECK(blocks);
	memset(blocks, 0, nr * BLOCK);
	return blocks;
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

/* ---- semantics ----------------------------------------------------------------------------- */

static void check_attributes(const char *path, int fd)
{
	struct statvfs vfs;
	struct stat st;

	CHECK(fstat(fd, &st) == 0);
	CHECK(S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0600);
	CHECK(st.st_blksize == BLOCK && st.st_size > 0 && st.st_size % BLOCK == 0 && st.st_uid == getuid());
	CHECK(statvfs(path, &vfs) == 0 && vfs.f_bsize == BLOCK && vfs.f_bfree <= vfs.f_blocks &&
	      vfs.f_blocks > 0);
	CHECK(ftruncate(fd, st.st_size) == 0);
	CHECK(ftruncate(fd, st.st_size - 1) < 0 && errno == EPERM);
	CHECK(ftruncate(fd, st.st_size + 1) < 0 && errno == EINVAL);
	CHECK(futimens(fd, NULL) == 0);
	CHECK(fchmod(fd, 0644) < 0 && errno == EPERM);
}

static void check_other_names(const char *path)
{
	char other[4096], *slash;
	struct stat st;

	snprintf(other, sizeof other, "%s", path);
	slash = strrchr(other, '/');
	CHECK(slash);
	strcpy(slash, "/else");
	CHECK(stat(other, &st) < 0 && errno == ENOENT);
	CHECK(open(other, O_CREAT | O_WRONLY, 0600) < 0 && errno == EPERM);
	CHECK(mkdir(other, 0700) < 0 && errno == EPERM);
	CHECK(rename(path, other) < 0 && errno == EPERM);
	CHECK(link(path, other) < 0 && errno == EPERM);
	CHECK(symlink("x", other) < 0 && errno == EPERM);
	CHECK(unlink(path) < 0 && errno == EPERM);
}

static void check_end(int fd, off_t size)
{
	char *two = blocks_alloc(2);

	CHECK(pread(fd, two, 2 * BLOCK, size - BLOCK) == BLOCK);
	CHECK(pread(fd, two, BLOCK, size) == 0);
	CHECK(pwrite(fd, two, 2 * BLOCK, size - BLOCK) == BLOCK);
	CHECK(pwrite(fd, two, 1, size) < 0 && errno == ENOSPC);
	free(two);
}

/* A read over written and unwritten blocks returns both. */
static void check_mixed_read(int fd)
{
	uint8_t *out = blocks_alloc(8), *in = blocks_alloc(8);
	off_t at = 16 << 20;

	memset(out + 2 * BLOCK, 0xA1, BLOCK);
	memset(out + 5 * BLOCK + 100, 0xB2, 17);
	CHECK(pwrite(fd, out + 2 * BLOCK, BLOCK, at + 2 * BLOCK) == BLOCK);
	CHECK(pwrite(fd, out + 5 * BLOCK + 100, 17, at + 5 * BLOCK + 100) == 17);
	memset(in, 0xFF, 8 * BLOCK);
	CHECK(pread(fd, in, 8 * BLOCK, at) == 8 * BLOCK);
	CHECK(memcmp(in, out, 8 * BLOCK) == 0);
	memset(in, 0xFF, 8 * BLOCK);
	CHECK(pread(fd, in, 5 * BLOCK, at + 77) == 5 * BLOCK);
	CHECK(memcmp(in, out + 77, 5 * BLOCK) == 0);
	free(out);
	free(in);
}

static void check_direct_512(const char *path)
{
	uint8_t *out = blocks_alloc(4), *in = blocks_alloc(4);
	int fd = open_or_die(path, O_RDWR | O_DIRECT);
	off_t at = 20 << 20;
	uint64_t state = 7;

	fill_random(out, 4 * BLOCK, &state);
	CHECK(pwrite(fd, out, 4 * BLOCK, at) == 4 * BLOCK);
	for (unsigned i = 1; i < 32; i += 3) {
		memset(out + i * 512, (int)i, 512);
		CHECK(pwrite(fd, out + i * 512, 512, at + i * 512) == 512);
	}
	CHECK(pread(fd, in, 4 * BLOCK, at) == 4 * BLOCK && memcmp(in, out, 4 * BLOCK) == 0);
	CHECK(pread(fd, in, 1536, at + 512) == 1536 && memcmp(in, out + 512, 1536) == 0);
	close(fd);
	free(out);
	free(in);
}

static void check_mmap(const char *path, int rw)
{
	int ro = open_or_die(path, O_RDONLY);
	uint8_t *block = blocks_alloc(1);
	off_t at = 24 << 20;
	uint8_t *map;

	memset(block, 0x5C, BLOCK);
	CHECK(pwrite(rw, block, BLOCK, at) == BLOCK);
	map = mmap(NULL, 2 * BLOCK, PROT_READ, MAP_PRIVATE, ro, at);
	CHECK(map != MAP_FAILED && map[0] == 0x5C && map[BLOCK - 1] == 0x5C && map[BLOCK] == 0);
	munmap(map, 2 * BLOCK);

	map = mmap(NULL, 2 * BLOCK, PROT_READ, MAP_SHARED, ro, at);
	if (map == MAP_FAILED && errno == ENODEV) {
		puts("this kernel has no shared mappings of image.raw (Linux 6.6 has)");
	} else {
		CHECK(map != MAP_FAILED && map[0] == 0x5C && map[BLOCK] == 0);
		memset(block, 0x6D, BLOCK);
		CHECK(pwrite(rw, block, BLOCK, at) == BLOCK);
		CHECK(map[0] == 0x6D && map[BLOCK - 1] == 0x6D); /* what was mapped isn't stale */
		munmap(map, 2 * BLOCK);
		map = mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, rw, at);
		CHECK(map != MAP_FAILED && map[0] == 0x6D);
		munmap(map, BLOCK);
	}
	close(ro);
	free(block);
}

static void check_holes(int fd, off_t size)
{
	uint8_t *out = blocks_alloc(4), *in = blocks_alloc(4);
	off_t at = 28 << 20;

	memset(out, 0x77, 4 * BLOCK);
	CHECK(pwrite(fd, out, 4 * BLOCK, at) == 4 * BLOCK);
	CHECK(lseek(fd, at, SEEK_DATA) == at && lseek(fd, at, SEEK_HOLE) == at + 4 * BLOCK);
	CHECK(lseek(fd, size, SEEK_DATA) < 0 && errno == ENXIO);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at + BLOCK, BLOCK) == 0);
	CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at + 2 * BLOCK + 10, 20) == 0);
	CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE, at + 3 * BLOCK, BLOCK) == 0);
	memset(out + BLOCK, 0, BLOCK);
	memset(out + 2 * BLOCK + 10, 0, 20);
	memset(out + 3 * BLOCK, 0, BLOCK);
	CHECK(pread(fd, in, 4 * BLOCK, at) == 4 * BLOCK && memcmp(in, out, 4 * BLOCK) == 0);
	CHECK(lseek(fd, at, SEEK_HOLE) == at + BLOCK && lseek(fd, at + BLOCK, SEEK_DATA) == at + 2 * BLOCK);
	CHECK(fallocate(fd, 0, at, BLOCK) < 0 && errno == EOPNOTSUPP);
	CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE, size - BLOCK, 2 * BLOCK) < 0 && errno == EPERM);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size - BLOCK, 2 * BLOCK) == 0);
	free(out);
	free(in);
}

#define NR_WRITERS 8u
#define NR_ROUNDS 300u

struct writer {
	const char *path;
	unsigned sector;
};

/* Each thread owns one 512-byte sector of the same block. */
static void *sector_writer(void *arg)
{
	const struct writer *w = arg;
	int fd = open_or_die(w->path, O_RDWR | O_DIRECT);
	uint8_t *block = blocks_alloc(1);
	off_t at = (32 << 20) + w->sector * 512;

	for (unsigned round = 1; round <= NR_ROUNDS; round++) {
		memset(block, (int)(w->sector * 31 + round), 512);
		CHECK(pwrite(fd, block, 512, at) == 512);
		CHECK(pread(fd, block + 512, 512, at) == 512 && memcmp(block, block + 512, 512) == 0);
		if (round % 64 == 0)
			CHECK(fdatasync(fd) == 0);
	}
	close(fd);
	free(block);
	return NULL;
}

static void check_shared_block(const char *path, int fd)
{
	struct writer writers[NR_WRITERS];
	pthread_t threads[NR_WRITERS];
	uint8_t *block = blocks_alloc(1);

	for (unsigned i = 0; i < NR_WRITERS; i++) {
		writers[i] = (struct writer){.path = path, .sector = i};
		CHECK(pthread_create(&threads[i], NULL, sector_writer, &writers[i]) == 0);
	}
	for (unsigned i = 0; i < NR_WRITERS; i++)
		pthread_join(threads[i], NULL);
	CHECK(pread(fd, block, BLOCK, 32 << 20) == BLOCK);
	for (unsigned i = 0; i < BLOCK; i++)
		CHECK(block[i] == (uint8_t)(i / 512 * 31 + NR_ROUNDS));
	free(block);
}

/* More threads in fsync than the daemon has workers: reads must still be served. */
static void *syncer(void *arg)
{
	int fd = open_or_die(arg, O_RDWR);
	uint8_t *block = blocks_alloc(1);

	for (unsigned round = 0; round < 10; round++) {
		CHECK(pwrite(fd, block, BLOCK, 36 << 20) == BLOCK);
		CHECK(fsync(fd) == 0);
	}
	CHECK(close(fd) == 0);
	free(block);
	return NULL;
}

static void check_sync_storm(char *path)
{
	enum { NR_SYNCERS = 80 };
	pthread_t threads[NR_SYNCERS];
	uint8_t *block = blocks_alloc(1);
	int fd = open_or_die(path, O_RDONLY);

	for (unsigned i = 0; i < NR_SYNCERS; i++)
		CHECK(pthread_create(&threads[i], NULL, syncer, path) == 0);
	for (unsigned i = 0; i < 200; i++)
		CHECK(pread(fd, block, BLOCK, (off_t)i * BLOCK) == BLOCK);
	for (unsigned i = 0; i < NR_SYNCERS; i++)
		pthread_join(threads[i], NULL);
	close(fd);
	free(block);
}

/* IMAGE is a fresh disk of 64 MiB or more. */
static int semantics(char *path)
{
	int fd = open_or_die(path, O_RDWR);
	off_t size = lseek(fd, 0, SEEK_END);

	check_attributes(path, fd);
	check_other_names(path);
	check_end(fd, size);
	check_mixed_read(fd);
	check_direct_512(path);
	check_mmap(path, fd);
	check_holes(fd, size);
	check_shared_block(path, fd);
	check_sync_storm(path);
	CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && close(fd) == 0);
	return 0;
}

/* ---- writing and comparing ----------------------------------------------------------------- */

static int fill(const char *image, const char *model, uint64_t state)
{
	enum { NR = 64 };
	int fd = open_or_die(image, O_WRONLY), model_fd = open_or_die(model, O_WRONLY);
	off_t size = lseek(fd, 0, SEEK_END);
	void *blocks = blocks_alloc(NR);

	for (off_t at = 0; at + NR * BLOCK <= size; at += NR * BLOCK) {
		fill_random(blocks, NR * BLOCK, &state);
		CHECK(pwrite(fd, blocks, NR * BLOCK, at) == NR * BLOCK);
		CHECK(pwrite(model_fd, blocks, NR * BLOCK, at) == NR * BLOCK);
	}
	CHECK(fsync(fd) == 0 && close(fd) == 0 && close(model_fd) == 0);
	free(blocks);
	return 0;
}

/* The next write: half to 16 KiB at a multiple of 512. Returns where. */
static off_t write_make(off_t size, uint8_t *buf, size_t *bytes, uint64_t *state)
{
	off_t at;

	*bytes = 512 * (1 + next_random(state) % 32);
	at = (off_t)(next_random(state) % ((uint64_t)(size - 16384) / 512)) * 512;
	fill_random(buf, *bytes, state);
	return at;
}

/* Make a write and do it; also to the model if it's there. */
static bool write_once(int fd, int model_fd, off_t size, uint8_t *buf, uint64_t *state)
{
	size_t bytes;
	off_t at = write_make(size, buf, &bytes, state);

	if (pwrite(fd, buf, bytes, at) != (ssize_t)bytes)
		return false;
	if (model_fd >= 0)
		CHECK(pwrite(model_fd, buf, bytes, at) == (ssize_t)bytes);
	return true;
}

#define STORM_SYNCED 200u

static int storm(const char *image, const char *model, uint64_t state)
{
	int fd = open_or_die(image, O_RDWR), model_fd = open_or_die(model, O_RDWR);
	off_t size = lseek(fd, 0, SEEK_END);
	uint8_t *buf = blocks_alloc(4);

	for (unsigned i = 0; i < STORM_SYNCED; i++)
		CHECK(write_once(fd, model_fd, size, buf, &state));
	CHECK(fsync(fd) == 0);
	puts("synced");
	fflush(stdout);
	while (write_once(fd, -1, size, buf, &state))
		;
	CHECK(errno != ENOSPC); /* BACKING is large enough to be overwritten for ever */
	free(buf);
	return 0;
}

/* ---- after a storm ---- */

#define STORM_MAX 1000000u

static uint8_t *load(const char *path, off_t *size)
{
	int fd = open_or_die(path, O_RDONLY);
	uint8_t *bytes;

	*size = lseek(fd, 0, SEEK_END);
	bytes = blocks_alloc((size_t)*size / BLOCK);
	for (off_t at = 0; at < *size; at += 1 << 20)
		CHECK(pread(fd, bytes + at, 1 << 20, at) == 1 << 20);
	close(fd);
	return bytes;
}

/* Blocks from first to last that differ. */
static size_t nr_different(const uint8_t *a, const uint8_t *b, size_t first, size_t last)
{
	size_t nr = 0;

	for (size_t i = first; i <= last; i++)
		nr += memcmp(a + i * BLOCK, b + i * BLOCK, BLOCK) != 0;
	return nr;
}

/*
 * The disk must be as of the sync, or, if it synced early by itself, as of one moment later: the
 * writer was alone, so that is the synced state and the first k of its later writes, of which the
 * last may be there for some of its blocks (a block is atomic, a write of several isn't).
 */
static int after_storm(const char *image, const char *model_path, uint64_t state)
{
	off_t size, model_size;
	uint8_t *found = load(image, &size), *model = load(model_path, &model_size);
	size_t different = nr_different(found, model, 0, (size_t)size / BLOCK - 1);
	uint8_t *data = blocks_alloc(4);
	unsigned k = 0;
	int fd;

	CHECK(size == model_size);
	for (unsigned i = 0; i < STORM_SYNCED; i++) {
		size_t bytes;

		(void)write_make(size, data, &bytes, &state);
	}
	for (; different > 0 && k < STORM_MAX; k++) {
		size_t bytes, at = (size_t)write_make(size, data, &bytes, &state);
		size_t first = at / BLOCK, last = (at + bytes - 1) / BLOCK;
		size_t before = nr_different(found, model, first, last), mixed = 0;

		for (size_t i = first; i <= last; i++) {
			size_t from = i * BLOCK > at ? i * BLOCK : at;
			size_t to = (i + 1) * BLOCK < at + bytes ? (i + 1) * BLOCK : at + bytes;
			bool old = memcmp(found + i * BLOCK, model + i * BLOCK, BLOCK) == 0;

			memcpy(model + from, data + (from - at), to - from);
			mixed += !old && memcmp(found + i * BLOCK, model + i * BLOCK, BLOCK) != 0;
		}
		if (different == before && mixed == 0)
			memcpy(model + first * BLOCK, found + first * BLOCK, (last - first + 1) * BLOCK);
		different = different - before + nr_different(found, model, first, last);
	}
	printf("%u writes after the sync are there, %zu blocks are of no one moment\n", k, different);
	if (different > 0)
		return 1;
	fd = open_or_die(model_path, O_WRONLY);
	for (off_t at = 0; at < size; at += 1 << 20)
		CHECK(pwrite(fd, model + at, 1 << 20, at) == 1 << 20);
	free(found);
	free(model);
	free(data);
	return 0;
}

static int write_and_hold(const char *image, const char *model, uint64_t state)
{
	int fd = open_or_die(image, O_RDWR), model_fd = open_or_die(model, O_RDWR);
	off_t size = lseek(fd, 0, SEEK_END);
	uint8_t *buf = blocks_alloc(4);
	char c;

	for (unsigned i = 0; i < 200; i++)
		CHECK(write_once(fd, model_fd, size, buf, &state));
	puts("written");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	free(buf);
	return 0;
}

struct verdict {
	unsigned long same, eio, wrong;
};

/* Both buffers hold nr blocks; the image's are read in one go, or one by one where that fails. */
static void compare_run(struct verdict *v, int fd, off_t at, uint8_t *found, const uint8_t *expected, size_t nr)
{
	if (nr > 1 && pread(fd, found, nr * BLOCK, at) == (ssize_t)(nr * BLOCK) &&
	    memcmp(found, expected, nr * BLOCK) == 0) {
		v->same += nr;
		return;
	}
	for (size_t i = 0; i < nr; i++, at += BLOCK) {
		if (pread(fd, found, BLOCK, at) != BLOCK) {
			CHECK(errno == EIO);
			v->eio++;
		} else if (memcmp(found, expected + i * BLOCK, BLOCK) == 0) {
			v->same++;
		} else if (v->wrong++ == 0) {
			printf("block %llu is wrong\n", (unsigned long long)(at / BLOCK));
		}
	}
}

static int compare(const char *image, const char *model)
{
	enum { NR = 64 };
	int fd = open_or_die(image, O_RDONLY | O_DIRECT), model_fd = open_or_die(model, O_RDONLY);
	off_t size = lseek(model_fd, 0, SEEK_END);
	uint8_t *found = blocks_alloc(NR), *expected = blocks_alloc(NR);
	struct verdict v = {0};

	CHECK(lseek(fd, 0, SEEK_END) == size);
	for (off_t at = 0; at < size; at += NR * BLOCK) {
		size_t bytes = size - at < NR * BLOCK ? (size_t)(size - at) : NR * BLOCK;

		CHECK(pread(model_fd, expected, bytes, at) == (ssize_t)bytes);
		compare_run(&v, fd, at, found, expected, bytes / BLOCK);
	}
	printf("same %lu eio %lu wrong %lu\n", v.same, v.eio, v.wrong);
	free(found);
	free(expected);
	return v.wrong ? 1 : v.eio ? 3 : 0;
}

static int flush(const char *device, unsigned nr)
{
	int fd = open_or_die(device, O_RDWR | O_DIRECT);
	uint8_t *block = blocks_alloc(1);
	char c;

	for (unsigned i = 0; i < nr; i++) {
		memset(block, (int)i + 1, BLOCK);
		CHECK(pwrite(fd, block, BLOCK, (off_t)i * BLOCK) == BLOCK);
		CHECK(fsync(fd) == 0);
		puts("flushed");
		fflush(stdout);
		CHECK(read(STDIN_FILENO, &c, 1) == 1);
	}
	free(block);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 2 ? argv[1] : "";

	if (strcmp(command, "semantics") == 0 && argc == 3)
		return semantics(argv[2]);
	if (strcmp(command, "fill") == 0 && argc == 5)
		return fill(argv[2], argv[3], seed_of(argv[4]));
	if (strcmp(command, "storm") == 0 && argc == 5)
		return storm(argv[2], argv[3], seed_of(argv[4]));
	if (strcmp(command, "after-storm") == 0 && argc == 5)
		return after_storm(argv[2], argv[3], seed_of(argv[4]));
	if (strcmp(command, "write") == 0 && argc == 5)
		return write_and_hold(argv[2], argv[3], seed_of(argv[4]));
	if (strcmp(command, "compare") == 0 && argc == 4)
		return compare(argv[2], argv[3]);
	if (strcmp(command, "flush") == 0 && argc == 4)
		return flush(argv[2], (unsigned)strtoul(argv[3], NULL, 0));
	fprintf(stderr, "usage: image_probe semantics|fill|storm|write|compare|flush ...\n");
	return 2;
}
