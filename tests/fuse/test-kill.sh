#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# Write, sync, write on, kill -9; 50 times in a row: what was synced is there, and nothing in part of what wasn't.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
rounds=${MLS_KILL_ROUNDS:-50}
mls_format d 64M
truncate -s 64M "$work/model"
slowest=0 early=0

# The disk after round - 1. It may have synced by itself, but then as of one moment, too.
look() {
	expect_status 0 "$probe" after-storm "$(image d)" "$work/model" "$((round - 1))"
	grep -q '^0 writes' "$work/output" || early=$((early + 1))
}

for ((round = 1; round <= rounds; round++)); do
	began=$(milliseconds)
	mls_serve d
	took=$(($(milliseconds) - began))
	[ "$took" -le "$slowest" ] || slowest=$took
	[ "$round" = 1 ] || look
	coproc storm { "$probe" storm "$(image d)" "$work/model" "$round"; }
	# shellcheck disable=SC2154
	storm_pid=$storm_PID
	read -r line <&"${storm[0]}"
	[ "$line" = synced ] || die "$line"
	sleep "0.0$((round % 10))"
	mls_kill d
	wait "$storm_pid" || die "the writer failed before the kill"
done
mls_serve d
look
mls_end d
say "the disk synced early by itself, and kept some of what came after the sync, in $early of $rounds rounds"
say "reopening after a kill took at most $slowest ms"
[ "$slowest" -lt 2000 ] || die "that's more than 2 s"
