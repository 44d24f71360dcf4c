/* SPDX-License-Identifier: MPL-2.0 */
/* test_log.h - loggers for mls_set_logger: one says nothing, where errors are what is tested; one keeps the last warning. */
#ifndef MLS_TEST_LOG_H
#define MLS_TEST_LOG_H

#include <stdio.h>

#include "mlsdisk/mlsdisk.h"

static inline void test_log_quiet(void *arg, enum mls_log_level level, const char *message)
{
	(void)arg;
	(void)level;
	(void)message;
}

struct test_last_log {
	char message[256];
};

/* arg: a struct test_last_log; errors and warnings. */
static inline void test_log_keep(void *arg, enum mls_log_level level, const char *message)
{
	struct test_last_log *last = arg;

	if (level <= MLS_LOG_WARNING)
		snprintf(last->message, sizeof last->message, "%s", message);
}

#endif
