/* SPDX-License-Identifier: MPL-2.0 */
/* cli_size.c - sizes as people write them; see cli_size.h. */
#include "cli/cli_size.h"

#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "cli/cli.h"

/* What follows the digits -> power of two; -1: no unit of ours. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGT";

	if (unit[0] == '\0' || strcasecmp(unit, "B") == 0)
		return 0;
	for (int i = 0; letters[i]; i++)
		if (strncasecmp(unit, &letters[i], 1) == 0 &&
		    (unit[1] == '\0' || strcasecmp(unit + 1, "B") == 0 || strcasecmp(unit + 1, "iB") == 0))
			return 10 * (i + 1);
	return -1;
}

int mls_cli_parse_size(const char *option, const char *text, uint64_t *bytes)
{
	const char *p = text;
	uint64_t n = 0;
	bool fits = true;
	int shift;

	if (*p < '0' || *p > '9') {
		mls_cli_error("%s=%s: not a size; expected a whole number with K, M, G or T, such as 16G",
			      option, text);
		return MLS_EINVAL;
	}
	for (; *p >= '0' && *p <= '9'; p++)
		fits = fits && !__builtin_mul_overflow(n, 10u, &n) &&
		       !__builtin_add_overflow(n, (unsigned)(*p - '0'), &n);
	shift = unit_shift(p);
	if (shift < 0) {
		mls_cli_error("%s=%s: unknown unit '%s'; expected K, M, G or T (powers of 1024)", option, text, p);
		return MLS_EINVAL;
	}
	if (!fits || n > (uint64_t)INT64_MAX >> shift) {
		mls_cli_error("%s=%s: too large; the limit is 8388607T", option, text);
		return MLS_EINVAL;
	}
	if (n == 0) {
		mls_cli_error("%s=%s: must be more than 0", option, text);
		return MLS_EINVAL;
	}
	*bytes = n << shift;
	return 0;
}

const char *mls_cli_format_size(char text[MLS_CLI_SIZE_TEXT_BYTES], uint64_t bytes)
{
	static const char letters[] = "KMGT";
	int i = -1;
	uint64_t unit = 1, tenths;

	while (i < 3 && bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (i < 0) {
		snprintf(text, MLS_CLI_SIZE_TEXT_BYTES, "%" PRIu64 " bytes", bytes);
		return text;
	}
	tenths = (bytes % unit) / (unit / 1024) * 10 / 1024;
	if (tenths == 0)
		snprintf(text, MLS_CLI_SIZE_TEXT_BYTES, "%" PRIu64 " %ciB", bytes / unit, letters[i]);
	else
		snprintf(text, MLS_CLI_SIZE_TEXT_BYTES, "%" PRIu64 ".%" PRIu64 " %ciB", bytes / unit, tenths,
			 letters[i]);
	return text;
}
