/* SPDX-License-Identifier: MPL-2.0 */
/* finding.c - what is known of each finding's code; the table is in base/finding.h. */
#include "base/err.h"
#include "check/inspect.h"

struct row {
	const char *name, *layer, *text;
	unsigned pass;
	enum mls_severity severity;
	enum mls_repair repair;
};

static const struct row rows[MLS_NR_FINDINGS] = {
#define ROW(code, name, pass, layer, severity, repair, text) \
	[MLS_FOUND_##code] = { name, layer, text, pass, MLS_SEV_##severity, MLS_REPAIR_##repair },
	MLS_FINDINGS(ROW)
#undef ROW
};

static const struct row *row_of(enum mls_finding_code code)
{
	MLS_INVARIANT((unsigned)code < MLS_NR_FINDINGS);
	return &rows[code];
}

const char *mls_finding_name(enum mls_finding_code code)
{
	return row_of(code)->name;
}

const char *mls_finding_text(enum mls_finding_code code)
{
	return row_of(code)->text;
}

const char *mls_finding_layer(enum mls_finding_code code)
{
	return row_of(code)->layer;
}

enum mls_severity mls_finding_severity(enum mls_finding_code code)
{
	return row_of(code)->severity;
}

enum mls_repair mls_finding_repair(enum mls_finding_code code)
{
	return row_of(code)->repair;
}

unsigned mls_finding_pass(enum mls_finding_code code)
{
	return row_of(code)->pass;
}

const char *mls_severity_name(enum mls_severity severity)
{
	static const char *const names[] = {
		[MLS_SEV_NOTE] = "note", [MLS_SEV_WARNING] = "warning", [MLS_SEV_ERROR] = "error",
		[MLS_SEV_VIOLATION] = "violation",
	};

	MLS_INVARIANT((unsigned)severity < sizeof names / sizeof names[0]);
	return names[severity];
}
