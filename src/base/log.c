/* SPDX-License-Identifier: MPL-2.0 */
/* log.c - messages for people; see log.h. */
#include "base/log.h"

#include <stdio.h>

static void log_to_stderr(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	if (level <= MLS_LOG_WARNING)
		fprintf(stderr, "mlsdisk: %s%s\n", level == MLS_LOG_WARNING ? "warning: " : "", message);
}

static mls_log_fn *logger = log_to_stderr;
static void *logger_arg;

void mls_set_logger(mls_log_fn *fn, void *arg)
{
	logger = fn ? fn : log_to_stderr;
	logger_arg = arg;
}

void mls_log(enum mls_log_level level, const char *format, ...)
{
	char message[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	logger(logger_arg, level, message);
}
