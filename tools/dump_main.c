/* SPDX-License-Identifier: MPL-2.0 */
/*
 * dump_main.c - mlsdisk-dump: look at a disk, with or without its key.
 *
 * Nothing is ever written: the device is opened read-only, with a shared lock, and a trusted store is only
 * read. What is damaged becomes a finding, told at once in words and, with --json, at the end; the exit
 * status is that of the worst.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_secret.h"
#include "tools/dump_args.h"

#define FINDINGS_MAX 10000u

struct findings {
	struct mls_finding *list;
	size_t nr, nr_left_out;
	int status;			/* exit status of the worst */
};

/* ---- Findings ---- */

static int status_of(enum mls_finding_code code)
{
	enum mls_severity severity = mls_finding_severity(code);

	if (severity < MLS_SEV_ERROR)
		return MLS_CLI_DONE;
	switch (code) {
	case MLS_FOUND_ROLLBACK:
	case MLS_FOUND_STORE_MISMATCH:
	case MLS_FOUND_STORE_FOREIGN:
	case MLS_FOUND_STORE_EMPTY:
	case MLS_FOUND_SB_STALE:
		return MLS_CLI_STALE;
	case MLS_FOUND_STORE_UNREADABLE:
	case MLS_FOUND_JOURNAL_AREA_UNREADABLE:
	case MLS_FOUND_WAL_UNREADABLE:
	case MLS_FOUND_LOG_UNREADABLE:
	case MLS_FOUND_DATA_UNREADABLE:
		return MLS_CLI_FAILED;
	default:
		return MLS_CLI_TAMPERED;
	}
}

/* Damage is worse than age, and age than what couldn't be read. */
static int worse(int a, int b)
{
	static const int order[] = { MLS_CLI_TAMPERED, MLS_CLI_STALE, MLS_CLI_FAILED };

	for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return a ? a : b;
}

static void say_finding(const struct mls_finding *f)
{
	char place[128] = "";
	size_t nr = 0;

	if (f->hba != MLS_FINDING_NOWHERE)
		nr += (size_t)snprintf(place + nr, sizeof place - nr, ", HBA %" PRIu64, f->hba);
	if (f->lba != MLS_FINDING_NOWHERE)
		nr += (size_t)snprintf(place + nr, sizeof place - nr, ", LBA %" PRIu64, f->lba);
	if (f->log_id != MLS_FINDING_NOWHERE)
		nr += (size_t)snprintf(place + nr, sizeof place - nr, ", log %" PRIu64, f->log_id);
	if (f->run != MLS_FINDING_NOWHERE)
		snprintf(place + nr, sizeof place - nr, ", run %" PRIu64, f->run);
	mls_cli_error("%s: %s%s%s%s", mls_severity_name(mls_finding_severity(f->code)),
		      mls_finding_text(f->code), place, f->detail[0] ? ": " : "", f->detail);
}

static void note_finding(void *arg, const struct mls_finding *finding)
{
	struct findings *all = arg;
	struct mls_finding *grown;

	all->status = worse(all->status, status_of(finding->code));
	if (all->nr < FINDINGS_MAX) {
		say_finding(finding);
		if (all->nr % 64 == 0) {
			grown = realloc(all->list, (all->nr + 64) * sizeof *grown);
			if (!grown) {
				all->nr_left_out++;
				return;
			}
			all->list = grown;
		}
		all->list[all->nr++] = *finding;
	} else if (all->nr_left_out++ == 0) {
		mls_cli_error("more than %u findings; the rest is left out", FINDINGS_MAX);
	}
}

static void print_place(struct dump_out *o, const char *key, uint64_t place)
{
	out_number_if(o, key, place != MLS_FINDING_NOWHERE, place);
}

static void print_findings(struct dump_out *o, const struct findings *all)
{
	static const struct out_column columns[] = {
		{ "code", 1 }, { "severity", 1 }, { "hba", 1 }, { "blocks", 1 }, { "lba", 1 }, { "lbas", 1 },
		{ "log", 1 }, { "run", 1 }, { "text", 1 }, { "detail", 1 },
	};

	out_table(o, "findings", columns, NR_COLUMNS(columns));
	for (size_t i = 0; i < all->nr; i++) {
		const struct mls_finding *f = &all->list[i];

		out_row(o);
		out_text(o, "code", mls_finding_name(f->code));
		out_text(o, "severity", mls_severity_name(mls_finding_severity(f->code)));
		print_place(o, "hba", f->hba);
		out_number_if(o, "blocks", f->hba != MLS_FINDING_NOWHERE, f->nr_blocks);
		print_place(o, "lba", f->lba);
		out_number_if(o, "lbas", f->lba != MLS_FINDING_NOWHERE, f->nr_lbas);
		print_place(o, "log", f->log_id);
		print_place(o, "run", f->run);
		out_text(o, "text", mls_finding_text(f->code));
		out_text(o, "detail", f->detail[0] ? f->detail : NULL);
		out_row_end(o);
	}
	out_table_end(o);
	out_number(o, "findings_left_out", all->nr_left_out);
}

/* ---- Sections ---- */

/* A walk over the index leaves damaged blocks out without a word: name them. */
static int name_damage(struct mls_inspect *x)
{
	if (!x->index_damaged)
		return 0;
	mls_cli_warn("the index is damaged: records are missing from what was shown");
	return mls_inspect_check_logs(x, NULL, NULL);
}

static int run_sections(struct dump *d, const struct dump_section *only)
{
	int err = 0;

	for (size_t i = 0; i < dump_nr_sections && !err; i++)
		if (only ? only == &dump_sections[i] : dump_sections[i].in_overview)
			err = dump_sections[i].run(d);
	return err;
}

/* The layers' own words about bad blocks: the findings, and what is shown, tell the same and more. */
static void say_nothing(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	(void)message;
}

static bool arg_fits(const struct mls_inspect *x, const struct dump_args *args)
{
	uint64_t limit = args->section && args->section->arg ? args->section->limit(x) : UINT64_MAX;

	if (args->arg < limit)
		return true;
	mls_cli_error("%s %" PRIu64 ": expected less than %" PRIu64, args->section->arg, args->arg, limit);
	return false;
}

static int show(struct mls_inspect *x, const struct dump_args *args, struct findings *findings, bool *told)
{
	struct dump_out out;
	struct dump d = { .x = x, .out = &out, .backing = args->backing, .svg = args->svg, .arg = args->arg,
			  .data = args->data };
	int err;

	*told = !arg_fits(x, args);
	if (*told)
		return MLS_EINVAL;
	mls_set_logger(say_nothing, NULL);
	out_start(&out, stdout, args->json);
	if (args->json) {
		out_number(&out, "schema", 1);
		out_text(&out, "backing", args->backing);
		out_bool(&out, "authentic", x->authentic);
	}
	err = run_sections(&d, args->section);
	if (!err)
		err = name_damage(x);
	*told = d.told;
	if (err)
		return err;
	if (args->json)
		print_findings(&out, findings);
	out_finish(&out);
	return 0;
}

/* ---- Opening ---- */

static bool has_passphrase(struct mls_block_dev *dev)
{
	struct mls_key_info info[MLS_NR_KEY_SLOTS];

	if (mls_key_list(dev, info))
		return false;
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++)
		if (info[i].used && info[i].passphrase)
			return true;
	return false;
}

static bool has_terminal(void)
{
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (tty < 0)
		return false;
	close(tty);
	return true;
}

/* *has false: there is none, which is fine. */
static int get_secret(const struct dump_args *args, struct mls_block_dev *dev, struct mls_secret *secret,
		      bool *has)
{
	char prompt[256];
	int err = MLS_EINVAL;

	*has = false;
	if (args->key_file || (has_passphrase(dev) && has_terminal())) {
		snprintf(prompt, sizeof prompt, "Passphrase for %s (empty: go on without)", args->backing);
		err = mls_cli_read_secret(secret, args->key_file, prompt, false);
		*has = !err;
		if (err && args->key_file)
			return err;
	}
	if (!*has)
		mls_cli_warn("without a key: nothing of what follows is authenticated");
	return err == MLS_EINVAL ? 0 : err;
}

/* A store that can't be opened was told of; the rest of the disk is there to be seen all the same. */
static int get_store(const struct dump_args *args, struct mls_block_dev *dev, struct mls_trusted_store **store,
		     int *status)
{
	struct mls_probe probe;
	int err = mls_probe(dev, &probe);

	*store = NULL;
	if (err || !probe.is_mlsdisk)
		return 0;	/* the inspection will say why */
	err = mls_trusted_store_open(store, args->store_uri, probe.uuid);
	if (err == MLS_EINVAL && args->store_uri)
		return err;
	if (err)
		*status = mls_exit_status(err);
	return 0;
}

/* *told: what it answers has been said. */
static int inspect(const struct dump_args *args, struct mls_block_dev *dev, struct findings *findings,
		   bool *told)
{
	struct mls_trusted_store *store = NULL;
	struct mls_secret secret = { 0 };
	struct mls_inspect *x = NULL;
	bool has_secret;
	int err;

	err = get_secret(args, dev, &secret, &has_secret);
	if (!err && has_secret)
		err = get_store(args, dev, &store, &findings->status);
	if (!err)
		err = mls_inspect_open(&x, dev, store, has_secret ? &secret : NULL, note_finding, findings);
	mls_cli_secret_release(&secret);
	if (!err)
		err = show(x, args, findings, told);
	mls_inspect_close(x);
	mls_trusted_store_destroy(store);
	return err;
}

static int run(const struct dump_args *args)
{
	struct findings findings = { .status = MLS_CLI_DONE };
	struct mls_block_dev *dev = NULL;
	bool told = false;
	int err, status;

	err = mls_block_dev_open(&dev, args->backing, MLS_DEV_READ_ONLY, 0);
	if (!err)
		err = inspect(args, dev, &findings, &told);
	mls_block_dev_destroy(dev);
	free(findings.list);
	if (err && !told)
		mls_cli_error("%s: %s", args->backing, mls_strerror(err));
	status = mls_cli_end_stdout();
	if (err)
		return mls_exit_status(err);
	return status ? status : findings.status;
}

int main(int argc, char **argv)
{
	struct dump_args args = { .backing = NULL };
	bool go_on;
	int status;

	mls_cli_start("mlsdisk-dump");
	mls_cli_no_new_privileges();
	status = dump_args_parse(&args, argc, argv, &go_on);
	return go_on ? run(&args) : status;
}
