/* SPDX-License-Identifier: MPL-2.0 */
/*
 * test_fsck.h - mlsdisk-fsck's checks on a device, for tests whose disks must be sound.
 *
 * LDADD: libmlstest.la libmlscheck.la libmlscore.la.
 */
#ifndef MLS_TEST_FSCK_H
#define MLS_TEST_FSCK_H

#include <stdio.h>

#include "check/inspect.h"

/* What was found: the first fault in words, and how many. */
struct test_fsck {
	uint64_t nr_faults;
	char first[256];
};

static inline void test_fsck_report(void *arg, const struct mls_finding *finding)
{
	struct test_fsck *found = arg;

	if (mls_finding_severity(finding->code) == MLS_SEV_NOTE || found->nr_faults++)
		return;
	snprintf(found->first, sizeof found->first, "%s: %s (run %lld, LBA %lld)", mls_finding_name(finding->code),
		 finding->detail, (long long)finding->run, (long long)finding->lba);
}

/* All passes, the data too, without writing a byte. The answer is the checks' own: 0, or why they couldn't go on. */
MLS_MUST_CHECK static inline int test_fsck(struct mls_block_dev *dev, struct mls_trusted_store *store,
					   const struct mls_secret *secret, struct test_fsck *found)
{
	struct mls_inspect *x = NULL;
	int err;

	*found = (struct test_fsck){ .nr_faults = 0 };
	err = mls_inspect_open(&x, dev, store, secret, test_fsck_report, found);
	if (!err)
		err = mls_inspect_check(x, NULL, NULL);
	if (!err)
		err = mls_inspect_check_data(x, NULL, NULL, NULL, NULL);
	mls_inspect_close(x);
	return err;
}

#endif
