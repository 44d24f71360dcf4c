#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# SIGTERM, SIGINT, SIGHUP and unmounting sync what was written, and the daemon ends with 0.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
mls_format d 64M
truncate -s 64M "$work/model"
mapfile -t args < <(serve_args d)
mkdir "$work/d.mnt"
on_exit "mls_kill d"

seed=1
for signal in TERM INT HUP unmount; do
	# Job control gives the background job its signals back (bash makes it ignore INT otherwise).
	set -m
	"$fuse_program" -f "${args[@]}" "$work/d.img" "$work/d.mnt" 2>"$work/serve.out" &
	job=$!
	set +m
	for ((i = 0; i < 200; i++)); do
		grep -q "is ready" "$work/serve.out" && break
		sleep 0.05
	done
	pid=$(daemon_pid "$work/d.mnt")

	# The writer never syncs, and still has the file open when the signal comes.
	coproc writer { "$probe" write "$(image d)" "$work/model" "$seed"; }
	# shellcheck disable=SC2154
	writer_pid=$writer_PID
	read -r line <&"${writer[0]}"
	[ "$line" = written ] || die "$line"
	if [ "$signal" = unmount ]; then
		fd=${writer[1]}
		exec {fd}>&-
		wait "$writer_pid"
		fusermount3 -u "$work/d.mnt"
	else
		kill -"$signal" "$pid"
	fi
	status=0
	wait "$job" || status=$?
	[ "$status" = 0 ] || { cat "$work/serve.out"; die "$signal: status $status"; }
	if [ "$signal" != unmount ]; then
		fd=${writer[1]}
		exec {fd}>&-
		wait "$writer_pid" || true
	fi

	mls_serve d --read-only
	expect_status 0 "$probe" compare "$(image d)" "$work/model"
	mls_end d
	seed=$((seed + 1))
done
