#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# Write, sync, write on, kill -9; 50 times in a row: what was synced is there, and nothing that wasn't.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
rounds=${MLS_KILL_ROUNDS:-50}
mls_format d 64M
truncate -s 64M "$work/model"
slowest=0
for ((round = 1; round <= rounds; round++)); do
	began=$(milliseconds)
	mls_serve d --sync-policy=strict	# else an early sync of its own may make the rest durable, too
	took=$(($(milliseconds) - began))
	[ "$took" -le "$slowest" ] || slowest=$took
	expect_status 0 "$probe" compare "$(image d)" "$work/model"
	coproc storm { "$probe" storm "$(image d)" "$work/model" "$round"; }
	# shellcheck disable=SC2154
	storm_pid=$storm_PID
	read -r line <&"${storm[0]}"
	[ "$line" = synced ] || die "$line"
	sleep "0.0$((round % 10))"
	mls_kill d
	wait "$storm_pid" || die "the writer failed before the kill"
done
say "reopening after a kill took at most $slowest ms"
[ "$slowest" -lt 2000 ] || die "that's more than 2 s"
