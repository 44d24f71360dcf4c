#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# xfs and btrfs grow while they are mounted, after image.raw and the loop device; also after a kill -9 all of it is there.
# (ext4: test-grow.sh.)
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires mkfs.xfs xfs_growfs mkfs.btrfs btrfs
head -c 60M /dev/urandom >"$work/model"
mkdir "$work/fs"
on_exit "umount '$work/fs'"

# grow_mounted NAME FROM MKFS GROW : COMMANDs, GROW gets the mount point
grow_mounted() {
	local name=$1 to=$(($2 * 2)) before

	mls_format "$name" "$2M"
	truncate -s "$((to * 2))M" "$work/$name.img"
	mls_serve "$name"
	loop_attach "$name" 4096
	$3 "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "$3"; }
	mount "$loop" "$work/fs"
	cp "$work/model" "$work/fs/first"
	before=$(stat -f -c %b "$work/fs")
	truncate -s "${to}M" "$(image "$name")"
	losetup -c "$loop"
	$4 "$work/fs" >"$work/output" 2>&1 || { cat "$work/output"; die "$4"; }
	[ "$(stat -f -c %b "$work/fs")" -gt $((before * 3 / 2)) ] || die "$name: the file system didn't grow"
	cp "$work/model" "$work/fs/second"
	cp "$work/model" "$work/fs/third"
	sync
	mls_kill "$name"
	umount "$work/fs"
	loop_detach "$loop"
	mls_serve "$name"
	loop_attach "$name" 4096
	mount "$loop" "$work/fs"
	for file in first second third; do
		cmp "$work/model" "$work/fs/$file" || die "$name: $file isn't what was written"
	done
	umount "$work/fs"
	loop_detach "$loop"
	mls_end "$name"
}

grow_mounted xfs 320 "mkfs.xfs -q" xfs_growfs
grow_mounted btrfs 256 "mkfs.btrfs -q" "btrfs filesystem resize max"
