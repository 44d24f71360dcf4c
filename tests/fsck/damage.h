/* SPDX-License-Identifier: MPL-2.0 */
/* damage.h - kinds of damage. Each list ends with a name that is NULL. */
#ifndef MLS_TEST_DAMAGE_H
#define MLS_TEST_DAMAGE_H

#include "tests/fsck/damage_lab.h"

struct damage_kind {
	const char *name;
	void (*damage)(struct lab *l);
};

extern const struct damage_kind damage_outer[];		/* superblock, store, crashes, journal, WAL */
extern const struct damage_kind damage_inner[];		/* logs, tables, records, segments, data */

#endif
