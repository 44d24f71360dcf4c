/* SPDX-License-Identifier: MPL-2.0 */
/*
 * adversary.c - the owner of BACKING changes, swaps, puts back and splices, and must get nothing but
 * errors.
 *
 * Goal     Guarantees 2, 3 and 6: whatever is done to BACKING, a read returns the truth or an error. An
 *          old image is refused as such. Nothing is written, and the register isn't moved, when the disk
 *          refuses to open.
 * Method   Each disk of adversary_disks.c is attacked in each class below, case by case, the change
 *          undone after each. Several processes share the cases. What a case is, and how it is looked at:
 *          adversary_lib.h.
 *
 *	MLS_SEED     default 1
 *	MLS_ALL=1    every case; else of each class the share that is named there (another seed, other cases)
 *	MLS_THIN     of that share one of so many; default 2, under a sanitizer 16
 *	MLS_JOBS     processes; default 2
 *	MLS_DISK, MLS_CLASS, MLS_CASE   only this disk, class, case: what a failure prints
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/crash/adversary_lib.h"
#include "tests/lib/test_sanitizer.h"

#define JOBS_MAX 64u

#define THIN_DEFAULT (TEST_SANITIZER ? 16u : 2u)

static const struct {
	const char *name;
	adv_class_fn *run;
} classes[] = {
	{"flip-data", adv_flip_data},
	{"flip-table", adv_flip_table},
	{"flip-open", adv_flip_open},
	{"flip-rest", adv_flip_rest},
	{"wipe", adv_wipe},
	{"swap-data", adv_swap_data},
	{"swap-table", adv_swap_table},
	{"swap-open", adv_swap_open},
	{"swap-any", adv_swap_any},
	{"replay-block", adv_replay_block},
	{"replay-run", adv_replay_run},
	{"replay-log", adv_replay_log},
	{"replay-parts", adv_replay_parts},
	{"replay-mixed", adv_replay_mixed},
	{"replay-image", adv_replay_image},
	{"splice-twin", adv_splice_twin},
	{"splice-clone", adv_splice_clone},
	{"shared-store", adv_shared_store},
	{"size", adv_size},
	{"lies", adv_lies},
	{"summaries", adv_summaries},
};

#define NR_CLASSES (sizeof classes / sizeof classes[0])

/* [job][class], shared by the processes. */
static struct adv_count (*counts)[NR_CLASSES];

static bool wanted(const char *only, const char *name)
{
	return !only || strcmp(only, name) == 0;
}

static void attack(struct adv *a, const struct adv_life *life)
{
	struct adv_disk *d = adv_disk_new(a, life);

	for (unsigned c = 0; c < NR_CLASSES; c++) {
		if (!wanted(a->only_class, classes[c].name))
			continue;
		a->class = classes[c].name;
		a->count = &counts[a->job][c];
		a->case_nr = 0;
		a->what = NULL;
		classes[c].run(a);
		a->class = NULL;
	}
	adv_disk_free(d);
	a->d = NULL;
}

static void run(struct adv *a)
{
	adv_init(a);
	for (unsigned i = 0; i < adv_nr_lives; i++)
		if (wanted(a->only_disk, adv_lives[i].name))
			attack(a, &adv_lives[i]);
}

static int run_jobs(struct adv *a)
{
	int failed = 0, status;

	for (a->job = 0; a->job < a->nr_jobs; a->job++) {
		pid_t pid = fork();

		MLS_INVARIANT(pid >= 0);
		if (pid == 0) {
			run(a);
			exit(0);
		}
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	return failed;
}

static void print_counts(unsigned nr_jobs)
{
	struct adv_count sum = {0};

	printf("%-14s %10s %10s %10s %10s\n", "class", "attacks", "refused", "errors", "harmless");
	for (unsigned c = 0; c <= NR_CLASSES; c++) {
		struct adv_count count = c < NR_CLASSES ? counts[0][c] : sum;

		for (unsigned job = 1; job < nr_jobs && c < NR_CLASSES; job++) {
			count.tried += counts[job][c].tried;
			count.refused += counts[job][c].refused;
			count.errors += counts[job][c].errors;
			count.harmless += counts[job][c].harmless;
		}
		if (c < NR_CLASSES) {
			sum.tried += count.tried;
			sum.refused += count.refused;
			sum.errors += count.errors;
			sum.harmless += count.harmless;
		}
		printf("%-14s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n",
		       c < NR_CLASSES ? classes[c].name : "all", count.tried, count.refused, count.errors,
		       count.harmless);
	}
}

int main(void)
{
	struct adv a = {.seed = test_env_u64("MLS_SEED", 1),
			.only_case = test_env_u64("MLS_CASE", ADV_EVERY_CASE),
			.only_disk = getenv("MLS_DISK"),
			.only_class = getenv("MLS_CLASS"),
			.all = test_env_u64("MLS_ALL", 0),
			.thin = test_env_u64("MLS_THIN", THIN_DEFAULT)};
	int failed = 0;

	a.thin = a.thin ? a.thin : 1;
	a.nr_jobs = (unsigned)test_env_u64("MLS_JOBS", 2);
	if (a.nr_jobs < 1 || a.nr_jobs > JOBS_MAX || a.only_case != ADV_EVERY_CASE)
		a.nr_jobs = 1;
	mallopt(M_MMAP_THRESHOLD,
		256 << 20); /* an open's buffers come from the heap, without faults, each time */
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	counts = mmap(NULL, JOBS_MAX * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	MLS_INVARIANT(counts != MAP_FAILED);
	if (a.nr_jobs == 1)
		run(&a);
	else
		failed = run_jobs(&a);
	print_counts(a.nr_jobs);
	return failed;
}
