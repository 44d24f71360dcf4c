/* SPDX-License-Identifier: MPL-2.0 */
/*
 * replay.c - drives a fuzz target without libFuzzer: its seeds, MLS_FUZZ_RUNS (default 300) mutations of
 * them, the corpus in the source tree ($srcdir/tests/fuzz/corpus/TARGET), or only the files named on the command
 * line. With --write DIR it writes the seeds there, for libFuzzer.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/lib/test_rand.h"

static uint8_t input[FUZZ_BYTES_MAX];

static int write_seeds(const char *dir)
{
	size_t bytes;

	for (unsigned i = 0; (bytes = fuzz_seed(i, input, sizeof input)) > 0; i++) {
		char path[4096];
		FILE *file;

		snprintf(path, sizeof path, "%s/seed-%u", dir, i);
		file = fopen(path, "wb");
		if (!file || fwrite(input, 1, bytes, file) != bytes || fclose(file) != 0) {
			perror(path);
			return 1;
		}
	}
	return 0;
}

static int run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	size_t bytes;

	if (!file) {
		perror(path);
		return 1;
	}
	bytes = fread(input, 1, sizeof input, file);
	fclose(file);
	LLVMFuzzerTestOneInput(input, bytes);
	return 0;
}

/* All of $srcdir/tests/fuzz/corpus/TARGET, TARGET being this program's name behind "fuzz_". */
static int run_corpus(const char *program, uint64_t *nr)
{
	const char *srcdir = getenv("srcdir"), *name = strstr(program, "fuzz_"), *next;
	char dir_path[2048], path[4096];
	struct dirent *entry;
	DIR *dir;
	int err = 0;

	while (name && (next = strstr(name + 1, "fuzz_")))
		name = next;
	snprintf(dir_path, sizeof dir_path, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".", name ? name + 5 : "");
	dir = opendir(dir_path);
	if (!dir) {
		perror(dir_path);
		return srcdir != NULL;	/* run by hand from somewhere else */
	}
	while (!err && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", dir_path, entry->d_name);
		err = run_file(path);
		++*nr;
	}
	closedir(dir);
	return err;
}

static size_t mutate(struct test_rand *r, size_t bytes)
{
	static const uint8_t telling[] = { 0, 1, 2, 3, 4, 0x7f, 0x80, 0xfe, 0xff };

	for (uint64_t n = test_rand_between(r, 1, 6); n > 0 && bytes > 0; n--) {
		size_t at = test_rand_below(r, test_rand_chance(r, 1, 2) ? bytes : bytes < 64 ? bytes : 64);

		switch (test_rand_below(r, 5)) {
		case 0:
			input[at] ^= (uint8_t)(1 << test_rand_below(r, 8));
			break;
		case 1:
			input[at] = telling[test_rand_below(r, sizeof telling)];
			break;
		case 2:
			memset(input + at, 0xff, bytes - at < 8 ? bytes - at : 8);
			break;
		case 3:
			memmove(input + at, input + bytes / 2, bytes - (at > bytes / 2 ? at : bytes / 2));
			break;
		default:
			if (test_rand_chance(r, 1, 4))
				bytes = at;
			else
				input[at] = (uint8_t)test_rand_u64(r);
		}
	}
	return bytes;
}

int main(int argc, char **argv)
{
	uint64_t runs = test_env_u64("MLS_FUZZ_RUNS", 300), nr_seeds = 0, nr_files = 0;
	struct test_rand r;

	if (argc == 3 && strcmp(argv[1], "--write") == 0)
		return write_seeds(argv[2]);
	for (int i = 1; i < argc; i++)
		if (run_file(argv[i]))
			return 1;
	if (argc > 1)
		return 0;
	if (run_corpus(argv[0], &nr_files))
		return 1;
	test_rand_seed(&r, test_env_u64("MLS_FUZZ_SEED", 1));
	for (unsigned i = 0; fuzz_seed(i, input, sizeof input) > 0; i++, nr_seeds++) {
		LLVMFuzzerTestOneInput(input, fuzz_seed(i, input, sizeof input));
		for (uint64_t n = 0; n < runs; n++)
			LLVMFuzzerTestOneInput(input, mutate(&r, fuzz_seed(i, input, sizeof input)));
	}
	printf("%llu files, %llu seeds, %llu mutations each\n", (unsigned long long)nr_files,
	       (unsigned long long)nr_seeds, (unsigned long long)runs);
	return nr_seeds == 0;
}
