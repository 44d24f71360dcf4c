/* SPDX-License-Identifier: MPL-2.0 */
/* check_run.h - how every program of unit tests ends. */
#ifndef MLS_TEST_CHECK_RUN_H
#define MLS_TEST_CHECK_RUN_H

#include <check.h>
#include <stdlib.h>

/* Runs and frees the suite; what main returns. CK_VERBOSITY and CK_RUN_CASE count. */
static inline int check_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int nr_failed;

	srunner_run_all(runner, CK_ENV);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
