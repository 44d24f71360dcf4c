/* SPDX-License-Identifier: MPL-2.0 */
/*
 * fsck_problem.c - findings, told to people or to programs.
 *
 * Code, severity, layer and text of a finding are the library's (base/finding.h); here is what to do
 * about it. mlsdisk-fsck(8) lists all codes, with causes.
 */
#include "fsck_problem.h"

#include <inttypes.h>
#include <stdio.h>

#define RESTORE "restore BACKING from a backup"

/* NULL: the text says it all. */
static const char *const advice[MLS_NR_FINDINGS] = {
	[MLS_FOUND_SB_COPY_UNREADABLE] = "check the medium; then -p writes the copy anew",
	[MLS_FOUND_SB_COPY_MISSING] = "-p writes it anew from the other one",
	[MLS_FOUND_SB_COPY_VERSION] = "-p writes it anew from the other one",
	[MLS_FOUND_SB_COPY_DAMAGED] = "-p writes it anew from the other one",
	[MLS_FOUND_SB_COPY_FORGED] = "-p writes it anew from the other one",
	[MLS_FOUND_SB_COPY_OLD] = "usual after a crash while keys were changed; -p writes it anew",
	[MLS_FOUND_SB_LOST] = "without a superblock there is no key: " RESTORE,
	[MLS_FOUND_SB_STALE] = "a removed key may have been put back: " RESTORE,
	[MLS_FOUND_DEVICE_SHORT] = "give BACKING its length back; what was behind its end is lost",
	[MLS_FOUND_SLOT_MALFORMED] = "remove the slot with mlsdisk-key",
	[MLS_FOUND_STORE_EMPTY] = "give the right --trusted-store; if it is lost, open once with --accept-rollback",
	[MLS_FOUND_STORE_DAMAGED] = "restore the store; if it is lost, open once with --accept-rollback",
	[MLS_FOUND_STORE_COPY_DAMAGED] = "-p, or the next sync, writes it anew; check the medium of the store",
	[MLS_FOUND_STORE_FOREIGN] = "give this disk's own --trusted-store",
	[MLS_FOUND_ROLLBACK] = "if you restored a backup on purpose, open once with --accept-rollback",
	[MLS_FOUND_STORE_MISMATCH] = "another copy of the disk went on; find it, or open this once with --accept-rollback",
	[MLS_FOUND_RECOVERY_PENDING] = "opening the disk, or -p, does it",
	[MLS_FOUND_JOURNAL_LOST] = RESTORE,
	[MLS_FOUND_WAL_BROKEN] = RESTORE ", or open once with --accept-rollback to go back to the sync found",
	[MLS_FOUND_LOG_LEAKED] = "-p gives its space back",
	[MLS_FOUND_LOG_DAMAGED] = RESTORE "; blocks of other LBAs are not concerned",
	[MLS_FOUND_SEG_COUNT] = "-p counts anew",
	[MLS_FOUND_DATA_DAMAGED] = "write these LBAs anew, or " RESTORE,
	[MLS_FOUND_DATA_UNREADABLE] = "check the medium; write these LBAs anew, or " RESTORE,
};

void fsck_json_text(const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
}

static void json_place(const char *name, uint64_t value)
{
	if (value != MLS_FINDING_NOWHERE)
		printf(",\"%s\":%" PRIu64, name, value);
}

static void print_json(const struct mls_finding *finding)
{
	printf("{\"type\":\"finding\",\"code\":\"%s\",\"pass\":%u,\"severity\":\"%s\",\"layer\":\"%s\",\"repair\":\"%s\"",
	       mls_finding_name(finding->code), mls_finding_pass(finding->code),
	       mls_severity_name(mls_finding_severity(finding->code)), mls_finding_layer(finding->code),
	       mls_finding_repair(finding->code) == MLS_REPAIR_SAFE ? "safe" : "none");
	json_place("hba", finding->hba);
	if (finding->hba != MLS_FINDING_NOWHERE)
		json_place("nr_blocks", finding->nr_blocks);
	json_place("lba", finding->lba);
	if (finding->lba != MLS_FINDING_NOWHERE)
		json_place("nr_lbas", finding->nr_lbas);
	json_place("log", finding->log_id);
	json_place("run", finding->run);
	printf(",\"text\":\"%s\",\"detail\":\"", mls_finding_text(finding->code));
	fsck_json_text(finding->detail);
	printf("\"}\n");
}

static void print_range(const char *name, uint64_t from, uint64_t nr)
{
	if (from == MLS_FINDING_NOWHERE)
		return;
	if (nr <= 1)
		printf(" %s %" PRIu64, name, from);
	else
		printf(" %s %" PRIu64 "-%" PRIu64, name, from, from + nr - 1);
}

static void print_text(const struct mls_finding *finding)
{
	printf("%s [%s]: %s", mls_severity_name(mls_finding_severity(finding->code)), mls_finding_name(finding->code),
	       mls_finding_text(finding->code));
	if (finding->detail[0])
		printf(": %s", finding->detail);
	printf("\n");
	if (finding->hba != MLS_FINDING_NOWHERE || finding->lba != MLS_FINDING_NOWHERE ||
	    finding->log_id != MLS_FINDING_NOWHERE || finding->run != MLS_FINDING_NOWHERE) {
		printf("    at");
		print_range("LBA", finding->lba, finding->nr_lbas);
		print_range("HBA", finding->hba, finding->nr_blocks);
		print_range("run", finding->run, 1);
		print_range("log", finding->log_id, 1);
		printf("\n");
	}
	if (advice[finding->code])
		printf("    -> %s\n", advice[finding->code]);
}

void fsck_problem_report(void *arg, const struct mls_finding *finding)
{
	struct fsck_problems *problems = arg;
	enum mls_severity severity = mls_finding_severity(finding->code);

	problems->nr_by_code[finding->code]++;
	if (severity == MLS_SEV_NOTE)
		problems->nr_notes++;
	else
		problems->nr_faults++;
	problems->nr_violations += severity == MLS_SEV_VIOLATION;
	if (problems->muted)
		return;
	if (problems->json)
		print_json(finding);
	else
		print_text(finding);
}

void fsck_pass_begin(const struct fsck_problems *problems, unsigned pass, const char *what)
{
	if (!problems->json && !problems->muted)
		printf("Pass %u: %s\n", pass, what);
}
