#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# The sparse file behind a disk shrinks to what is live, however often a file system on the disk was filled and emptied.
# MLS_SPACE_ROUNDS: how often (20 is the long test).
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

rounds=${MLS_SPACE_ROUNDS:-3}

taken_kib() { du -k "$work/d.img" | cut -f1; }

start
requires mkfs.ext4 fstrim
mls_format d 256M
mls_serve d
loop_attach d 4096
mkfs.ext4 -q "$loop"
mkdir "$work/fs"
on_exit "umount '$work/fs'"
mount -o discard "$loop" "$work/fs"
head -c 16M /dev/urandom >"$work/model"
cp "$work/model" "$work/fs/kept"
for ((i = 0; i < rounds; i++)); do
	head -c 180M /dev/urandom >"$work/fs/filler"
	sync
	rm "$work/fs/filler"
	fstrim "$work/fs"
	sync
done

# Live: the file and the file system's own. Fixed: superblock, journal areas, the WAL ring, the open segments' runs.
live=$((16 * 1024 + 12 * 1024))
fixed=$((10 * 1024))
for ((i = 0; i < 60; i++)); do
	[ "$(taken_kib)" -gt $((live + live / 10 + fixed)) ] || break
	sleep 0.5
done
say "$(taken_kib) KiB are taken after $rounds rounds, $((live + live / 10 + fixed)) may be"
[ "$(taken_kib)" -le $((live + live / 10 + fixed)) ] || die "the backing file didn't shrink"
cmp "$work/model" "$work/fs/kept" || die "the file that was kept has changed"
umount "$work/fs"
fsck.ext4 -fn "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "fsck"; }
