/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fsck_main.c - mlsdisk-fsck: check a secure disk, and repair what can be.
 *
 * Passes, each on top of what the ones before established:
 *   0 superblocks, key slots, trusted store     4 each live LBA points into a segment
 *   1 journal and WAL                           5 live counts and summaries of the segments
 *   2 logs and runs                             6 (--data) each live block authenticates
 *   3 SSTables
 * All of them look before anything is repaired; after a repair passes 0 to 5 look again, silently, and
 * what they still find is what is left.
 *
 * With -n the device is opened read-only, and the trusted store is only read.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/repair.h"
#include "check/salvage.h"
#include "cli/cli.h"
#include "cli/cli_secret.h"
#include "fsck_args.h"
#include "fsck_problem.h"
#include "fsck_progress.h"

struct fsck {
	struct fsck_args args;
	struct mls_secret secret;
	struct mls_block_dev *dev;
	struct mls_trusted_store *store;
	bool store_foreign;
	struct fsck_progress progress;
	struct fsck_problems problems;		/* of the first look */
	struct fsck_problems again;		/* of the look after a repair */
	struct mls_inspect *x;			/* of the last look */
	unsigned nr_headings;			/* passes announced so far */
	bool repaired, data_done;
	struct mls_salvage salvage;
	int salvage_err;			/* noting what is lost failed */
};

static volatile sig_atomic_t cancelled;

static void on_signal(int number)
{
	(void)number;
	cancelled = 1;
}

static bool is_cancelled(void *arg)
{
	(void)arg;
	return cancelled;
}

/* ---- Telling ---- */

static void begin_passes(struct fsck *f, unsigned upto)
{
	static const char *const what[] = {
		"superblocks, key slots, trusted store", "journal and WAL", "logs and runs", "SSTables",
		"what LBAs point to", "segments", "data",
	};

	for (; f->nr_headings <= upto; f->nr_headings++)
		fsck_pass_begin(&f->problems, f->nr_headings, what[f->nr_headings]);
}

/* Findings of passes 3 and 4 that say which LBAs can't be read. */
static void note_lost(struct fsck *f, const struct mls_finding *finding)
{
	switch (finding->code) {
	case MLS_FOUND_LOG_DAMAGED:
	case MLS_FOUND_LOG_UNREADABLE:
	case MLS_FOUND_LOG_MALFORMED:
	case MLS_FOUND_TABLE_NO_LOG:
	case MLS_FOUND_TABLE_MALFORMED:
	case MLS_FOUND_LBA_NOWHERE:
	case MLS_FOUND_LBA_DEAD:
		break;
	default:
		return;
	}
	if (f->args.salvage && !f->repaired && finding->lba != MLS_FINDING_NOWHERE && finding->nr_lbas && !f->salvage_err)
		f->salvage_err = mls_salvage_lose(&f->salvage, finding->lba, finding->nr_lbas, finding->code);
}

static void report(void *arg, const struct mls_finding *finding)
{
	struct fsck *f = arg;

	note_lost(f, finding);

	fsck_progress_wipe(&f->progress);
	begin_passes(f, mls_finding_pass(finding->code));
	fsck_problem_report(f->repaired ? &f->again : &f->problems, finding);
}

static void tell_progress(void *arg, unsigned pass, uint64_t done, uint64_t all)
{
	struct fsck *f = arg;

	fsck_progress_tell(&f->progress, pass, done, all);
}

/* The library's messages say what the findings say; only while repairing they are news. And what is the
 * matter with the trusted store is more than a finding can say. */
static void log_to_stderr(void *arg, enum mls_log_level level, const char *message)
{
	const struct fsck *f = arg;

	if (level <= MLS_LOG_WARNING && (f->repaired || strncmp(message, "trusted store ", 14) == 0))
		mls_cli_error("%s", message);
}

/* 8 or 32, with a message. */
static int failed(struct fsck *f, const char *what, int err)
{
	fsck_progress_wipe(&f->progress);
	if (err == MLS_EABORTED)
		return FSCK_CANCELLED;
	if (err == MLS_EBUSY)
		mls_cli_error("%s: in use by another process; it can be checked once that has ended", what);
	else if (err == MLS_EKEY)
		mls_cli_error("%s: wrong key: no key slot opens with this one", what);
	else if (err == MLS_EFORMAT)
		mls_cli_error("%s: not an MlsDisk, or of a version that this program doesn't know", what);
	else
		mls_cli_error("%s: %s", what, mls_strerror(err));
	return FSCK_FAILED;
}

/* ---- Looking ---- */

static void store_is_foreign(struct fsck *f)
{
	struct mls_finding finding = mls_finding_init(MLS_FOUND_STORE_FOREIGN);

	snprintf(finding.detail, sizeof finding.detail, "checked without it");
	report(f, &finding);
}

/* Passes 0 to 5. */
static int look(struct fsck *f)
{
	int err;

	mls_inspect_close(f->x);
	f->x = NULL;
	begin_passes(f, 0);
	if (f->store_foreign)
		store_is_foreign(f);
	err = mls_inspect_open_until(&f->x, f->dev, f->store, &f->secret, report, f, is_cancelled, NULL);
	if (err)
		return err;
	begin_passes(f, 1);
	if (!f->x->consistent)
		return 0;
	begin_passes(f, 2);
	begin_passes(f, 3);
	err = mls_inspect_check_logs(f->x, tell_progress, f);
	if (!err) {
		begin_passes(f, 4);
		err = mls_inspect_check_records(f->x, tell_progress, f);
	}
	if (!err) {
		begin_passes(f, 5);
		err = mls_inspect_check_runs(f->x, tell_progress, f);
	}
	return err;
}

static int look_at_data(struct fsck *f)
{
	if (!f->x->consistent)
		return 0;
	begin_passes(f, 6);
	f->data_done = true;
	return mls_inspect_check_data(f->x, NULL, NULL, tell_progress, f);
}

/* ---- Salvage ---- */

static int write_map(const struct fsck *f, const char *path)
{
	const struct mls_salvage *s = &f->salvage;
	FILE *map = fopen(path, "wxe");
	bool failed_to_write;

	if (!map)
		return MLS_EIO;
	fprintf(map, "# %s: %" PRIu64 " blocks saved, %" PRIu64 " lost or in ranges that may be lost; from the %s\n",
		f->args.backing, s->nr_saved, s->nr_lost, s->from_summaries ? "segments: freshness isn't proven" : "index");
	if (s->nr_rebuilt)
		fprintf(map, "# %" PRIu64 " of them found by the segments' summaries: discarded ones may have come back\n",
			s->nr_rebuilt);
	fprintf(map, "# first LBA, last LBA, reason\n");
	for (size_t i = 0; i < s->nr_ranges; i++)
		fprintf(map, "%" PRIu64 " %" PRIu64 " %s\n", s->lost[i].lba, s->lost[i].lba + s->lost[i].nr_lbas - 1,
			mls_finding_name(s->lost[i].why));
	failed_to_write = ferror(map);
	return fclose(map) || failed_to_write ? MLS_EIO : 0;
}

static int salvage_to(struct fsck *f, const char *map_path)
{
	struct mls_salvage *s = &f->salvage;
	off_t bytes = (off_t)(f->x->sb.geo.disk_blocks * MLS_BLOCK_BYTES);
	int err = f->salvage_err;

	if (!err && ftruncate(s->image_fd, bytes) < 0)
		err = MLS_EIO;
	if (!err)
		err = mls_salvage_run(s);
	if (!err && fsync(s->image_fd) < 0)
		err = MLS_EIO;
	if (!err)
		err = write_map(f, map_path);
	if (!err && !f->args.json)
		printf("Salvaged %" PRIu64 " blocks to %s; %" PRIu64 " lost, see %s\n", s->nr_saved, f->args.salvage,
		       s->nr_lost, map_path);
	return err;
}

/* Instead of the data pass: it reads the same, and tells the same. */
static int salvage(struct fsck *f)
{
	char map_path[4096];
	int err;

	if (!f->x->authentic) {
		mls_cli_error("%s: nothing can be salvaged without a superblock that can be believed", f->args.backing);
		return 0;
	}
	snprintf(map_path, sizeof map_path, "%s.map", f->args.salvage);
	f->salvage.x = f->x;
	f->salvage.progress = tell_progress;
	f->salvage.progress_arg = f;
	f->salvage.image_fd = open(f->args.salvage, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->salvage.image_fd < 0) {
		mls_cli_error("%s: %s", f->args.salvage, strerror(errno));
		return MLS_EEXIST;
	}
	begin_passes(f, 6);
	f->data_done = f->x->consistent;
	err = salvage_to(f, map_path);
	close(f->salvage.image_fd);
	if (err == MLS_EABORTED)
		mls_cli_error("%s isn't complete, and there is no map", f->args.salvage);
	return err;
}

/* ---- Repairing ---- */

static bool found_any(const struct fsck *f, enum mls_finding_code first, enum mls_finding_code last)
{
	for (int code = (int)first; code <= (int)last; code++)
		if (f->problems.nr_by_code[code])
			return true;
	return false;
}

static bool found(const struct fsck *f, enum mls_finding_code code)
{
	return f->problems.nr_by_code[code] > 0;
}

static int repair_step(struct fsck *f, const char *what, int err)
{
	if (!f->args.json)
		printf("%s: %s\n", what, err ? mls_strerror(err) : "done");
	return err;
}

/* Everything that can be; then look again. */
static int repair(struct fsck *f)
{
	bool superblock = f->x->authentic && found_any(f, MLS_FOUND_SB_COPY_UNREADABLE, MLS_FOUND_SB_COPY_OLD);
	bool state = f->x->verdict != MLS_INSPECT_REFUSED && !f->x->index_damaged && !f->store_foreign &&
		     (found(f, MLS_FOUND_RECOVERY_PENDING) || found(f, MLS_FOUND_LOG_LEAKED) ||
		      found(f, MLS_FOUND_SEG_COUNT));
	bool store = f->x->has_trust && found(f, MLS_FOUND_STORE_COPY_DAMAGED);
	int err = 0;

	if (!superblock && !state && !store)
		return 0;
	if (cancelled)
		return MLS_EABORTED;
	f->repaired = true;
	f->again.muted = true;
	if (superblock)
		err = repair_step(f, "Writing the superblocks anew", mls_repair_superblock(f->x));
	if (!err && store)
		err = repair_step(f, "Writing the trusted store anew", mls_repair_store(f->x, f->store));
	if (!err && state)
		err = repair_step(f, "Recovering, counting anew", mls_repair_state(f->x, f->store, &f->secret));
	return err ? err : look(f);
}

/* ---- The end ---- */

/* Faults that are still there. Those of the data pass can't be repaired, nor are they looked for again. */
static uint64_t nr_left(const struct fsck *f)
{
	uint64_t nr = f->repaired ? f->again.nr_faults : f->problems.nr_faults;

	for (int code = 0; code < MLS_NR_FINDINGS && f->repaired; code++)
		if (mls_finding_pass((enum mls_finding_code)code) == 6)
			nr += f->problems.nr_by_code[code];
	return nr;
}

static const char *verdict_name(const struct mls_inspect *x)
{
	static const char *const names[] = {
		[MLS_INSPECT_UNKNOWN] = "unknown", [MLS_INSPECT_CLEAN] = "clean",
		[MLS_INSPECT_NEEDS_RECOVERY] = "needs-recovery", [MLS_INSPECT_REFUSED] = "refused",
	};

	return names[x->verdict];
}

static uint64_t nr_live(const struct mls_inspect *x)
{
	uint64_t nr = 0;

	for (uint64_t run = 0; x->runs && run < x->nr_runs; run++)
		nr += x->runs[run].nr_live;
	return nr;
}

static void summary_json(const struct fsck *f, int status)
{
	const struct mls_inspect *x = f->x;
	char uuid[MLS_UUID_TEXT_BYTES];

	mls_uuid_format(uuid, x->sb.uuid);
	printf("{\"type\":\"summary\",\"backing\":\"");
	fsck_json_text(f->args.backing);
	printf("\",\"uuid\":\"%s\",\"verdict\":\"%s\",\"sync\":%" PRIu64 ",\"runs\":%" PRIu64 ",\"free_runs\":%" PRIu64
	       ",\"segments\":%" PRIu64 ",\"chunks\":%" PRIu64 ",\"live_blocks\":%" PRIu64 ",\"data_checked\":%s",
	       uuid, verdict_name(x), x->accepted.sync_id, x->nr_runs, x->nr_free_runs, x->nr_segments, x->nr_chunks,
	       nr_live(x), f->data_done ? "true" : "false");
	printf(",\"notes\":%" PRIu64 ",\"faults\":%" PRIu64 ",\"violations\":%" PRIu64 ",\"left\":%" PRIu64
	       ",\"status\":%d}\n", f->problems.nr_notes, f->problems.nr_faults, f->problems.nr_violations, nr_left(f),
	       status);
}

static void summary_text(const struct fsck *f, int status)
{
	const struct mls_inspect *x = f->x;

	printf("%s: ", f->args.backing);
	if (status & FSCK_LEFT)
		printf("%" PRIu64 " faults left%s", nr_left(f), f->problems.nr_violations ? ", INTEGRITY VIOLATED" : "");
	else if (status & FSCK_CORRECTED)
		printf("corrected");
	else if (x->verdict == MLS_INSPECT_NEEDS_RECOVERY)
		printf("sound, needs recovery (%s)", x->recovery);
	else
		printf("clean");
	if (x->runs)
		printf("; sync %" PRIu64 ", %" PRIu64 " blocks live, %" PRIu64 " of %" PRIu64 " runs free",
		       x->accepted.sync_id, nr_live(x), x->nr_free_runs, x->nr_runs);
	printf("\n");
}

static int end(struct fsck *f)
{
	int status = (f->repaired ? FSCK_CORRECTED : 0) | (nr_left(f) ? FSCK_LEFT : 0);

	fsck_progress_wipe(&f->progress);
	if (f->args.json)
		summary_json(f, status);
	else
		summary_text(f, status);
	return mls_cli_end_stdout() ? status | FSCK_FAILED : status;
}

/* ---- From the beginning ---- */

static int open_all(struct fsck *f)
{
	unsigned flags = f->args.mode == FSCK_LOOK ? MLS_DEV_READ_ONLY : 0;
	struct mls_probe probe;
	int err = mls_block_dev_open(&f->dev, f->args.backing, flags, 0);

	if (!err)
		err = mls_probe(f->dev, &probe);
	if (!err && !probe.is_mlsdisk)
		err = MLS_EFORMAT;
	if (err)
		return failed(f, f->args.backing, err);
	err = mls_trusted_store_open(&f->store, f->args.store_uri, probe.uuid);
	if (err == MLS_EINVAL)
		return FSCK_USAGE;
	f->store_foreign = err == MLS_ESTALE;
	return err && !f->store_foreign ? failed(f, "trusted store", err) : FSCK_CLEAN;
}

static int check(struct fsck *f)
{
	int status = open_all(f), err;

	if (status)
		return status;
	err = look(f);
	if (!err && f->args.salvage)
		err = salvage(f);
	else if (!err && f->args.data)
		err = look_at_data(f);
	if (err)
		return failed(f, f->args.salvage && err == MLS_EEXIST ? f->args.salvage : f->args.backing, err);
	if (f->args.mode != FSCK_LOOK) {
		err = repair(f);
		if (err)
			return failed(f, "repair", err) | (err == MLS_EABORTED ? 0 : FSCK_LEFT);
	}
	return end(f);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct fsck f = { 0 };
	char prompt[256];
	bool go_on;
	int status;

	mls_cli_start("mlsdisk-fsck");
	mls_cli_no_new_privileges();
	status = fsck_args_parse(&f.args, argc, argv, &go_on);
	if (!go_on)
		return status;
	snprintf(prompt, sizeof prompt, "Passphrase for %s", f.args.backing);
	if (mls_cli_read_secret(&f.secret, f.args.key_file, prompt, false))
		return FSCK_FAILED;
	mls_set_logger(log_to_stderr, &f);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	f.problems.json = f.again.json = f.args.json;
	fsck_progress_init(&f.progress, f.args.progress_fd, f.args.backing);
	status = check(&f);
	mls_salvage_release(&f.salvage);
	mls_inspect_close(f.x);
	mls_trusted_store_destroy(f.store);
	mls_block_dev_destroy(f.dev);
	mls_cli_secret_release(&f.secret);
	return status;
}
