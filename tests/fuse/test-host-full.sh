#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# BACKING is a sparse file on a file system that gets full: writes answer ENOSPC; syncs, reads and discards go on; all
# that was synced survives kill -9; what is discarded can be written anew at once; more space is taken when it comes.
# On tmpfs and on ext4.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

disk() { python3 "${srcdir:-.}/tests/fuse/host_full.py" "$(image d)" "$work/model" "$@" || die "host_full.py $*"; }

# The disk's backing file lies in $work/host; the rest doesn't.
serve() {
	mls_serve d
	disk check
}

# $1: makes space on the host
exercise() {
	local filled half

	rm -f "$work/model" "$work/d.img" "$work/d.store"
	mls_format d 1G
	mv "$work/d.img" "$work/host/d.img"
	ln -sf "$work/host/d.img" "$work/d.img"
	serve
	filled=$(disk fill 0)
	half=$((filled / 2))
	[ "$filled" -ge 100 ] || die "full after $filled chunks"
	disk check
	mls_kill d
	flock -w 10 "$work/host/d.img" true	# its threads end a moment after it
	expect_status 0 "$build/mlsdisk-fsck" --key-file="$work/key" --trusted-store="file:$work/d.store" --data "$work/d.img"
	serve
	disk discard 0 "$half"
	disk write $((filled + 1)) $((half - half / 4))
	disk check
	filled=$((filled + $(disk fill $((filled + 1 + half - half / 4)))))
	say "the host is full: $(du -m "$work/host/d.img" | cut -f1) MiB, filled twice; now it gets more"
	"$1"
	disk later 0 "$half"
	disk check
	mls_end d
	expect_status 0 "$build/mlsdisk-fsck" --key-file="$work/key" --trusted-store="file:$work/d.store" --data "$work/d.img"
	serve
	mls_end d
}

larger_tmpfs() { mount -o remount,size=320m "$work/host"; }
remove_filler() { rm "$work/host/filler"; }

start
requires flock python3 fallocate mkfs.ext4
mkdir "$work/host"

mount -t tmpfs -o size=160m tmpfs "$work/host"
on_exit "umount '$work/host'"
exercise larger_tmpfs
umount "$work/host"

truncate -s 320M "$work/host.img"
mkfs.ext4 -q -m 0 "$work/host.img"
mount -o loop "$work/host.img" "$work/host"
head -c 120M /dev/zero >"$work/host/filler"
exercise remove_filler
umount "$work/host"
