#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# kill -9 at random moments while a nearly full disk is overwritten and its cleaner works: what was synced is there, and
# what came later as of one moment. All of the disk is live data, as much as 90 % of 64 MiB, on 1.1 times 64 MiB.
# MLS_KILL_FULL_ROUNDS: how many.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires python3
rounds=${MLS_KILL_FULL_ROUNDS:-12}
truncate -s 72089600 "$work/d.img"
mls_format d 57M
truncate -s 57M "$work/model"
mls_serve d
expect_status 0 "$probe" fill "$(image d)" "$work/model" 1
mls_end d
cleaned=0 early=0

look() {
	expect_status 0 "$probe" after-storm "$(image d)" "$work/model" "$1"
	grep -q '^0 writes' "$work/output" || early=$((early + 1))
}

# Segments that this session's cleaner has emptied so far.
nr_cleaned() {
	python3 -c 'import json, os, sys
print(json.loads(os.getxattr(sys.argv[1], "user.mlsdisk.stats"))["cleaner"]["segments"])' "$(image d)"
}

for ((round = 1; round <= rounds; round++)); do
	mls_serve d
	[ "$round" = 1 ] || look $((round - 1))
	coproc storm { "$probe" storm "$(image d)" "$work/model" "$round"; }
	# shellcheck disable=SC2154
	storm_pid=$storm_PID
	read -r line <&"${storm[0]}"
	[ "$line" = synced ] || die "$line"
	sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
	[ "$(nr_cleaned)" = 0 ] || cleaned=$((cleaned + 1))
	mls_kill d
	wait "$storm_pid" || die "the writer failed before the kill"
done
mls_serve d
look "$rounds"
mls_end d
say "the cleaner had worked at $cleaned of $rounds kills; after $early the disk was as of an early sync"
[ "$cleaned" -ge $((rounds / 3)) ] || die "the cleaner hardly ever worked"
