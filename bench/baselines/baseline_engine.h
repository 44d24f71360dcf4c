/* SPDX-License-Identifier: MPL-2.0 */
/* baseline_engine.h - which baseline mls_disk_open opens, in a program that links baseline_engine.c. */
#ifndef MLS_BENCH_BASELINE_ENGINE_H
#define MLS_BENCH_BASELINE_ENGINE_H

#include "bench/baselines/baseline.h"

enum baseline_kind { BASELINE_NULL, BASELINE_PASS, BASELINE_CRYPT, BASELINE_PFS };

/* By name: null, pass, crypt, pfs. MLS_EINVAL: no such kind. Call before mls_disk_open. */
MLS_MUST_CHECK int baseline_select(const char *name);

#endif
