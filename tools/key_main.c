/* SPDX-License-Identifier: MPL-2.0 */
/*
 * key_main.c - mlsdisk-key: which secrets open a disk.
 *
 * Slots are listed without a key; to change them takes a secret that opens the disk now, and the disk
 * for ourselves: BACKING stays locked from before the question for the secret to the last write.
 *
 * A superblock from before the change still opens with a secret that was taken away, until the trusted store knows of
 * the new one; an opening for writing tells it. So that is done at once, if a secret that still opens the disk is at
 * hand and the store can be found.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cli_options.h"
#include "cli/cli_secret.h"
#include "cli/cli_size.h"

static const char help_text[] =
	"Usage: mlsdisk-key {list|add|remove|change} [--key-file=FILE] [--new-key-file=FILE]\n"
	"                   [--slot=N] [--label=TEXT] [--trusted-store=URI] BACKING\n"
	"List or change the secrets that open the disk on BACKING. The disk must not be in use.\n"
	"\n"
	"  list     show the key slots; needs no secret\n"
	"  add      let one more secret open the disk\n"
	"  remove   free a slot (never the last one)\n"
	"  change   replace the secret of a slot\n"
	"\n"
	"  --key-file=FILE        a secret that opens the disk now: the whole file ('-': standard input);\n"
	"                         default: ask for a passphrase\n"
	"  --new-key-file=FILE    the secret to add or to change to; default: ask for a passphrase, twice\n"
	"  --slot=N               slot 0 to 7; default: add takes the first free one, remove and change\n"
	"                         the one that the secret opens\n"
	"  --label=TEXT           what list shows for the new secret, not secret itself; default: the date\n"
	"  --trusted-store=URI    file:PATH, tpm2:INDEX or none: is told at once that a secret was removed or\n"
	"                         changed; default: the one in its usual place, if it's there\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 I/O or system error, or no such slot to add to or remove, 2 usage, 3 wrong\n"
	"key or not an MlsDisk, 4 integrity violation, 6 in use.\n";

enum { OPT_NEW_KEY_FILE = 256, OPT_SLOT, OPT_LABEL };

static const struct option long_options[] = {
	MLS_CLI_OPTION_KEY_FILE,
	MLS_CLI_OPTION_TRUSTED_STORE,
	{ "new-key-file", required_argument, NULL, OPT_NEW_KEY_FILE },
	{ "slot", required_argument, NULL, OPT_SLOT },
	{ "label", required_argument, NULL, OPT_LABEL },
	MLS_CLI_OPTIONS_END,
};

struct key_job {
	const struct key_action *action;
	const char *backing, *key_file, *new_key_file, *trusted_store;
	int slot;
	struct mls_block_dev *dev;
	struct mls_secret secret, new_secret;
	char label[MLS_KEY_LABEL_BYTES];
	unsigned changed;
};

struct key_action {
	const char *name;
	bool wants_secret, wants_new_secret;
	int (*run)(struct key_job *job);
};

/* ---- The trusted store ---- */

static bool store_is_there(const struct mls_probe *probe)
{
	char path[PATH_MAX];

	return mls_trusted_store_default_path(path, sizeof path, probe->uuid) == 0 && access(path, F_OK) == 0;
}

/* The store that there is; *store NULL: none. */
static int find_store(struct key_job *job, struct mls_trusted_store **store)
{
	struct mls_probe probe;
	int err = mls_probe(job->dev, &probe);

	*store = NULL;
	if (err || (!job->trusted_store && !store_is_there(&probe)))
		return err;
	return mls_trusted_store_open(store, job->trusted_store, probe.uuid);
}

/* err: why the store wasn't told. */
static void say_refused(struct key_job *job, const char *done, bool has_store, int err)
{
	if (err)
		mls_cli_warn("%s: the trusted store wasn't told: %s", job->backing, mls_strerror(err));
	if (has_store && !err)
		printf("Slot %u: %s. The trusted store refuses an old superblock from now on.\n", job->changed, done);
	else
		printf("Slot %u: %s. Mount %s once, so that an old superblock is refused.\n", job->changed, done, job->backing);
}

/* ---- The four actions: an enum mls_err ---- */

/* The label is the host's to choose: nothing of it may reach the terminal as more than text. */
static void print_label(const char *label)
{
	for (; *label; label++)
		putchar(*label >= 0x20 && *label < 0x7f ? *label : '?');
	putchar('\n');
}

static int run_list(struct key_job *job)
{
	struct mls_key_info info[MLS_NR_KEY_SLOTS];
	char memory[MLS_CLI_SIZE_TEXT_BYTES], kind[64];
	int err = mls_key_list(job->dev, info);

	if (err)
		return err;
	printf("slot  %-30s  label\n", "secret");
	for (unsigned i = 0; i < MLS_NR_KEY_SLOTS; i++) {
		if (!info[i].used)
			continue;
		if (info[i].passphrase && info[i].scrypt_log_n < 32)
			snprintf(kind, sizeof kind, "passphrase (scrypt, %s)",
				 mls_cli_format_size(memory, (uint64_t)1024 << info[i].scrypt_log_n));
		else
			snprintf(kind, sizeof kind, "%s", info[i].passphrase ? "passphrase" : "key file");
		printf("%-4u  %-30s  ", i, kind);
		print_label(info[i].label);
	}
	return 0;
}

static int run_add(struct key_job *job)
{
	int err = mls_key_add(job->dev, &job->secret, &job->new_secret, job->slot, job->label, &job->changed);

	if (!err)
		printf("Slot %u: added. It opens %s, as the others do.\n", job->changed, job->backing);
	return err;
}

static int run_remove(struct key_job *job)
{
	struct mls_trusted_store *store;
	int told = find_store(job, &store);
	int err = mls_key_remove_told(job->dev, store, &job->secret, job->slot, &job->changed, &told);

	if (!err)
		say_refused(job, "removed", store != NULL, told);
	mls_trusted_store_destroy(store);
	return err;
}

static int run_change(struct key_job *job)
{
	struct mls_trusted_store *store;
	int told = find_store(job, &store);
	int err = mls_key_change_told(job->dev, store, &job->secret, &job->new_secret, job->slot, job->label,
				      &job->changed, &told);

	if (!err)
		say_refused(job, "changed", store != NULL, told);
	mls_trusted_store_destroy(store);
	return err;
}

static const struct key_action actions[] = {
	{ "list", false, false, run_list },
	{ "add", true, true, run_add },
	{ "remove", true, false, run_remove },
	{ "change", true, true, run_change },
};

/* ---- The command line ---- */

static int parse_slot(struct key_job *job, const char *text)
{
	if (text[0] < '0' || text[0] >= (char)('0' + MLS_NR_KEY_SLOTS) || text[1] != '\0')
		return mls_cli_usage("--slot=%s: expected 0 to %u", text, MLS_NR_KEY_SLOTS - 1);
	job->slot = text[0] - '0';
	return MLS_CLI_DONE;
}

/* What would be shown otherwise than it was given isn't taken. */
static int parse_label(struct key_job *job, const char *text)
{
	size_t bytes = strlen(text);

	if (bytes == 0 || bytes >= sizeof job->label)
		return mls_cli_usage("--label=%s: expected 1 to %zu characters", text, sizeof job->label - 1);
	for (size_t i = 0; i < bytes; i++)
		if (text[i] < 0x20 || text[i] >= 0x7f)
			return mls_cli_usage("--label: expected printable ASCII characters");
	memcpy(job->label, text, bytes + 1);
	return MLS_CLI_DONE;
}

static int parse_operands(struct key_job *job, int nr, char **operands)
{
	if (nr == 0)
		return mls_cli_usage("what to do is missing: list, add, remove or change");
	for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
		if (strcmp(operands[0], actions[i].name) == 0)
			job->action = &actions[i];
	if (!job->action)
		return mls_cli_usage("'%s': expected list, add, remove or change", operands[0]);
	if (nr == 1)
		return mls_cli_usage("BACKING is missing");
	if (nr > 2)
		return mls_cli_usage("too many arguments: '%s'", operands[2]);
	job->backing = operands[1];
	if (job->new_key_file && !job->action->wants_new_secret)
		return mls_cli_usage("--new-key-file has no meaning for %s", job->action->name);
	if (job->trusted_store && (!job->action->wants_secret || job->action->run == run_add))
		return mls_cli_usage("--trusted-store has no meaning for %s", job->action->name);
	if (job->label[0] && !job->action->wants_new_secret)
		return mls_cli_usage("--label has no meaning for %s", job->action->name);
	if ((job->key_file || job->slot != MLS_KEY_SLOT_ANY) && !job->action->wants_secret)
		return mls_cli_usage("%s takes neither --key-file nor --slot", job->action->name);
	if (job->key_file && job->new_key_file && !strcmp(job->key_file, "-") && !strcmp(job->new_key_file, "-"))
		return mls_cli_usage("only one of the two key files can be standard input");
	return MLS_CLI_DONE;
}

/* Returns an exit status; *go_on is false if all is done (--help) or wrong. */
static int parse(struct key_job *job, int argc, char **argv, bool *go_on)
{
	struct mls_cli_options shared = { .help_text = help_text };
	int option, status = MLS_CLI_DONE;

	*go_on = false;
	while (!status && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case OPT_NEW_KEY_FILE:
			job->new_key_file = optarg;
			break;
		case OPT_SLOT:
			status = parse_slot(job, optarg);
			break;
		case OPT_LABEL:
			status = parse_label(job, optarg);
			break;
		default:
			if (mls_cli_take_option(&shared, option, &status) == MLS_CLI_EXIT)
				return status;
		}
	}
	job->key_file = shared.key_file;
	job->trusted_store = shared.trusted_store;
	if (!status)
		status = parse_operands(job, argc - optind, argv + optind);
	*go_on = !status;
	return status;
}

/* ---- Doing it ---- */

static int read_secrets(struct key_job *job)
{
	char prompt[256];
	int err = 0;

	if (job->action->wants_secret) {
		snprintf(prompt, sizeof prompt, "Passphrase for %s", job->backing);
		err = mls_cli_read_secret(&job->secret, job->key_file, prompt, false);
	}
	if (!err && job->action->wants_new_secret) {
		snprintf(prompt, sizeof prompt, "New passphrase for %s", job->backing);
		err = mls_cli_read_secret(&job->new_secret, job->new_key_file, prompt, true);
	}
	return err;
}

/* When the slot was filled: all that is known of it without asking more. */
static void make_label(char label[MLS_KEY_LABEL_BYTES])
{
	time_t now = time(NULL);
	struct tm utc;

	if (!gmtime_r(&now, &utc) || strftime(label, MLS_KEY_LABEL_BYTES, "mlsdisk-key %Y-%m-%d", &utc) == 0)
		label[0] = '\0';
}

static int run(struct key_job *job)
{
	int err, status;

	err = mls_block_dev_open(&job->dev, job->backing, job->action->wants_secret ? 0 : MLS_DEV_READ_ONLY, 0);
	if (!err)
		err = read_secrets(job);
	if (!err) {
		if (!job->label[0])
			make_label(job->label);
		err = job->action->run(job);
	}
	mls_block_dev_destroy(job->dev);
	mls_cli_secret_release(&job->secret);
	mls_cli_secret_release(&job->new_secret);
	if (err)
		mls_cli_error("%s: %s failed: %s", job->backing, job->action->name, mls_strerror(err));
	status = mls_cli_end_stdout();
	return err ? mls_exit_status(err) : status;
}

int main(int argc, char **argv)
{
	struct key_job job = { .slot = MLS_KEY_SLOT_ANY };
	bool go_on;
	int status;

	mls_cli_start("mlsdisk-key");
	mls_cli_no_new_privileges();
	status = parse(&job, argc, argv, &go_on);
	return go_on ? run(&job) : status;
}
