#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# kill -9 of the daemon under fio and ext4, again and again on one disk: what fsync promised is there, the file
# system's check is clean, and the dead mount doesn't stop the next start. Every fifth start is killed, too, while it
# opens the disk or just after. "make check-kill ROUNDS=200" does it at length.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"
# shellcheck source=tests/fuse/crash_fs.sh
. "${srcdir:-.}/tests/fuse/crash_fs.sh"

start
requires mkfs.ext4 e2fsck fio python3
rounds=${MLS_KILL_ROUNDS:-5}
ledger=$srcdir/tests/fuse/kill_ledger.py
mls_format d 1G
mkdir "$work/fs" "$work/d.mnt"
on_exit "umount -l $work/fs"
mapfile -t args < <(serve_args d)
steps=0 slowest=0

kill_while_opening() {
	local job

	"$fuse_program" -f "${args[@]}" "$work/d.img" "$work/d.mnt" >"$work/opening.out" 2>&1 &
	job=$!
	sleep "0.$(printf %03d $((RANDOM % 150)))"
	kill -9 "$job"
	wait "$job" 2>/dev/null || true
}

fs_up() {
	local began

	began=$(milliseconds)
	mls_serve d
	began=$(($(milliseconds) - began))
	[ "$began" -le "$slowest" ] || slowest=$began
	loop_attach d 4096
}

look() {
	check_fs ext4
	mount "$loop" "$work/fs"
	python3 "$ledger" check "$work/fs" "$work/ledger" >"$work/output" 2>&1 || {
		cat "$work/output"
		die "round $round: what was synced before the kill isn't there"
	}
}

for ((round = 1; round <= rounds; round++)); do
	if [ $((round % 5)) = 0 ]; then
		kill_while_opening
	fi
	fs_up
	if [ "$round" = 1 ]; then
		mkfs.ext4 -q "$loop"
		mount "$loop" "$work/fs"
	else
		look
	fi
	coproc writer { exec python3 "$ledger" write "$work/fs" "$work/ledger"; }
	# shellcheck disable=SC2154
	writer_pid=$writer_PID out=${writer[0]}
	fio --name=load --directory="$work/fs" --filename=load --size=128M --rw=randrw --bsrange=4k-128k --direct=1 \
		--ioengine=libaio --iodepth=16 --fsync=32 --time_based --runtime=600 >"$work/fio.out" 2>&1 &
	fio_pid=$!
	read -r line <&"$out"
	[ "$line" = started ] || die "the writer: $line"
	sleep "$((RANDOM % 2)).$(printf %03d $((RANDOM % 1000)))"
	# The mount stays as it is: the next start has to cope.
	pid=$(daemon_pid "$work/d.mnt")
	kill -9 "$pid"
	read -r line <&"$out"
	steps=$((steps + ${line%% *}))
	wait "$writer_pid" || die "the writer failed: $line"
	wait "$fio_pid" || true
	wait_gone "$pid"
	umount "$work/fs" 2>/dev/null || umount -l "$work/fs"
	loop_detach "$loop"
	[ $((round % 10)) != 0 ] || say "round $round: $steps synced steps so far"
done
fs_up
look
umount "$work/fs"
loop_detach "$loop"
mls_end d
say "$rounds rounds of kill -9 under fio and ext4: $steps synced steps, none lost"
say "starting again took at most $slowest ms"
