#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# Random overwrites of a disk that is 90 % full of live data, on a BACKING of 1.1 times its size: uniform, zipf, with
# discards, with a sync each 100 ms, with none. Each run checks every block.
#
#   MLS_SPACE_MIB       the disk's size
#   MLS_SPACE_FACTOR    each run writes so many times that
#   MLS_SPACE_SECONDS   but takes no longer
#   MLS_SPACE_P999_MS   bound of the 99.9th percentile of a write's latency; 0 (in make check, beside other tests): none
#   MLS_SPACE_JSON      a directory for the samples and the picture
set -euo pipefail

mib=${MLS_SPACE_MIB:-32}
factor=${MLS_SPACE_FACTOR:-3}
seconds=${MLS_SPACE_SECONDS:-2}
p999=${MLS_SPACE_P999_MS:-0}
json=${MLS_SPACE_JSON:-}
work=$(mktemp -d "${MLS_E2E_DIR:-/var/tmp}/mlsdisk-space.XXXXXX")
trap 'rm -rf "$work"' EXIT

run() {
	local name=$1

	shift
	"${MLS_BUILD_DIR:-$PWD}/tests/space/endurance" "$work" mib="$mib" factor="$factor" seconds="$seconds" \
		p999_ms="$p999" ${json:+json="$json/$name.json"} "$@"
}

run uniform sync_ms=100
run zipf pattern=zipf sync_ms=100
run discards discards=5 sync_ms=100
run no-sync
run no-sync-zipf pattern=zipf discards=5
if [ -n "$json" ]; then
	python3 "${srcdir:-.}/tests/space/plot.py" "$json/amplification.svg" "$json/uniform.json" "$json/zipf.json"
fi
