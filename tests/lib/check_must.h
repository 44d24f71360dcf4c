/* SPDX-License-Identifier: MPL-2.0 */
/* check_must.h - for inner loops: Check notes each ck_assert in a file, and this only what is false. */
#ifndef MLS_TEST_CHECK_MUST_H
#define MLS_TEST_CHECK_MUST_H

#include <check.h>

#define must(expr)                                            \
	do {                                                  \
		if (!(expr))                                  \
			ck_abort_msg("%s is false", #expr);   \
	} while (0)

#endif
