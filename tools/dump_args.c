/* SPDX-License-Identifier: MPL-2.0 */
/* dump_args.c - the command line of mlsdisk-dump; see dump_args.h. mlsdisk-dump(8) has the same text. */
#include "tools/dump_args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/cli_options.h"

static const char help_text[] =
	"Usage: mlsdisk-dump [--json] [--key-file=FILE] [--trusted-store=URI] BACKING [SECTION [ARG]]\n"
	"Show what lies on BACKING. Never writes to it, nor to the trusted store, and never shows keys.\n"
	"\n"
	"  superblock     geometry, key slots, both copies\n"
	"  journal        trusted store, journal areas, groups of the WAL, and what an opening would do\n"
	"  chunks         who owns each run\n"
	"  logs           each log of the index\n"
	"  index          levels, and where the LBAs lie\n"
	"  lba LBA        all versions of one block of the disk\n"
	"  hba HBA        what one block of BACKING is, and who owns it\n"
	"  stats          live, dead and free space, levels, what cleaning would take\n"
	"  map            a picture of BACKING\n"
	"default: superblock, journal, logs and stats\n"
	"\n"
	"  --json                 one JSON object, as mlsdisk-dump(8) describes it\n"
	"  --key-file=FILE        the whole file is the secret ('-': standard input); default: ask for a\n"
	"                         passphrase if there is a terminal and the disk has one, else show what\n"
	"                         can be seen without a key\n"
	"  --trusted-store=URI    file:PATH, tpm2:INDEX or none; default: as mlsdisk-fuse\n"
	"  --data                 lba: the block's plaintext, too\n"
	"  --svg=FILE             map: draw it into FILE ('-': standard output)\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 done, 1 I/O or system error, 2 usage, 3 wrong key or not an MlsDisk, 4 integrity\n"
	"violation, 5 rollback or store mismatch, 6 in use. With 4 and 5, all that can be seen was shown.\n";

enum { OPT_JSON = 256, OPT_DATA, OPT_SVG };

static const struct option long_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	MLS_CLI_OPTION_KEY_FILE,
	MLS_CLI_OPTION_TRUSTED_STORE,
	{ "data", no_argument, NULL, OPT_DATA },
	{ "svg", required_argument, NULL, OPT_SVG },
	MLS_CLI_OPTIONS_END,
};

const struct dump_section dump_sections[] = {
	{ "superblock", NULL, NULL, dump_superblock, true },
	{ "journal", NULL, NULL, dump_journal, true },
	{ "chunks", NULL, NULL, dump_chunks, false },
	{ "logs", NULL, NULL, dump_logs, true },
	{ "index", NULL, NULL, dump_index, false },
	{ "lba", "LBA", dump_lba_limit, dump_lba, false },
	{ "hba", "HBA", dump_hba_limit, dump_hba, false },
	{ "stats", NULL, NULL, dump_stats, true },
	{ "map", NULL, NULL, dump_map, false },
};
const size_t dump_nr_sections = NR_COLUMNS(dump_sections);

static int parse_number(struct dump_args *args, const char *text)
{
	char *end;

	errno = 0;
	args->arg = strtoull(text, &end, 0);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno)
		return mls_cli_usage("'%s': expected %s, the number of a block", text, args->section->arg);
	return MLS_CLI_DONE;
}

static int parse_section(struct dump_args *args, const char *text)
{
	for (size_t i = 0; i < dump_nr_sections; i++)
		if (strcmp(text, dump_sections[i].name) == 0)
			args->section = &dump_sections[i];
	if (!args->section)
		return mls_cli_usage("'%s': unknown section", text);
	return MLS_CLI_DONE;
}

static bool section_is(const struct dump_args *args, const char *name)
{
	return args->section && strcmp(args->section->name, name) == 0;
}

static int check_options(const struct dump_args *args)
{
	if (args->data && !section_is(args, "lba"))
		return mls_cli_usage("--data is for section lba");
	if (args->svg && !section_is(args, "map"))
		return mls_cli_usage("--svg is for section map");
	if (args->svg && strcmp(args->svg, "-") == 0 && args->json)
		return mls_cli_usage("only one of --json and --svg=- can have the standard output");
	return MLS_CLI_DONE;
}

static int parse_operands(struct dump_args *args, int nr, char **operands)
{
	int status, wanted = 1;

	if (nr == 0)
		return mls_cli_usage("BACKING is missing");
	args->backing = operands[0];
	if (nr > 1) {
		status = parse_section(args, operands[1]);
		if (status)
			return status;
		wanted = args->section->arg ? 3 : 2;
	}
	if (nr < wanted)
		return mls_cli_usage("%s: %s is missing", args->section->name, args->section->arg);
	if (nr > wanted)
		return mls_cli_usage("too many arguments: '%s'", operands[wanted]);
	status = wanted == 3 ? parse_number(args, operands[2]) : MLS_CLI_DONE;
	return status ? status : check_options(args);
}

int dump_args_parse(struct dump_args *args, int argc, char **argv, bool *go_on)
{
	struct mls_cli_options shared = { .help_text = help_text };
	int option, status;

	*go_on = false;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case OPT_JSON:
			args->json = true;
			break;
		case OPT_DATA:
			args->data = true;
			break;
		case OPT_SVG:
			args->svg = optarg;
			break;
		default:
			if (mls_cli_take_option(&shared, option, &status) == MLS_CLI_EXIT)
				return status;
		}
	}
	args->key_file = shared.key_file;
	args->store_uri = shared.trusted_store;
	status = parse_operands(args, argc - optind, argv + optind);
	*go_on = !status;
	return status;
}
