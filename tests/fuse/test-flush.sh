#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# Each flush of the loop device reaches the engine: every one of them moves the trusted store on.
# So does each write of O_DSYNC or O_SYNC to image.raw, for which the kernel sends no FSYNC.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires cksum
nr=25
mls_format d 64M
mls_serve d
loop_attach d 4096
[ "$(cat "/sys/block/${loop#/dev/}/loop/dio")" = 1 ] || say "direct I/O stayed off on $loop"

before=$(cksum "$work/d.store"*)
coproc flusher { "$probe" flush "$loop" "$nr"; }
# shellcheck disable=SC2154  # the coproc sets it
pid=$flusher_PID
for ((i = 0; i < nr; i++)); do
	read -r line <&"${flusher[0]}"
	[ "$line" = flushed ] || die "$line"
	after=$(cksum "$work/d.store"*)
	[ "$before" != "$after" ] || die "flush $i of $loop didn't reach the trusted store"
	before=$after
	echo >&"${flusher[1]}"
done
wait "$pid"

# A write that asks to be durable is, when it returns; dd's own close comes after the kill.
for flag in dsync sync direct,dsync; do
	for ((i = 0; i < 3; i++)); do
		mkfifo "$work/more"
		(
			head -c 4096 /dev/zero | tr '\0' "$i"
			read -r _ <"$work/more"
		) | dd of="$(image d)" bs=4096 iflag=fullblock oflag="$flag" seek="$((nr + i))" conv=notrunc status=none &
		writer=$!
		for ((try = 0; try < 100; try++)); do
			after=$(cksum "$work/d.store"*)
			[ "$before" = "$after" ] || break
			sleep 0.05
		done
		[ "$before" != "$after" ] || die "write $i with oflag=$flag wasn't synced when it returned"
		echo >"$work/more"
		wait "$writer"
		rm "$work/more"
		before=$(cksum "$work/d.store"*)
	done
done

# What was flushed survives a kill.
mls_kill d
losetup -d "$loop"
mls_serve d
for ((i = 0; i < nr; i++)); do
	found=$(dd if="$(image d)" bs=4096 skip="$i" count=1 status=none | od -An -tu1 -N1 | tr -d ' ')
	[ "$found" = $((i + 1)) ] || die "block $i: expected $((i + 1)), found $found"
done
mls_end d
