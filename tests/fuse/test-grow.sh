#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# image.raw grows under a mounted file system, the backing file with it; it never shrinks. Its statistics are JSON.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires mkfs.ext4 resize2fs python3
mls_format d 64M
mls_serve d
loop_attach d 4096
mkfs.ext4 -q "$loop"
mkdir "$work/fs"
on_exit "umount '$work/fs'"
mount "$loop" "$work/fs"
head -c 40M /dev/urandom >"$work/model"
cp "$work/model" "$work/fs/first"

if truncate -s 32M "$(image d)" 2>"$work/output"; then
	die "image.raw was made smaller"
fi
truncate -s 256M "$work/d.img"
truncate -s 160M "$(image d)"
[ "$(stat -c %s "$(image d)")" = $((160 << 20)) ] || die "image.raw didn't grow"
losetup -c "$loop"
# Without CAP_SYS_RESOURCE (a container) only an unmounted file system grows.
if ! resize2fs "$loop" >"$work/output" 2>&1; then
	grep -q "Permission denied" "$work/output" || { cat "$work/output"; die "resize2fs"; }
	umount "$work/fs"
	e2fsck -fp "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "e2fsck"; }
	resize2fs "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "resize2fs"; }
	mount "$loop" "$work/fs"
fi
cp "$work/model" "$work/fs/second"
cp "$work/model" "$work/fs/third"
sync
mls_kill d
umount "$work/fs"
loop_detach "$loop"

mls_serve d
[ "$(stat -c %s "$(image d)")" = $((160 << 20)) ] || die "image.raw has its old size again"
loop_attach d 4096
mount "$loop" "$work/fs"
for name in first second third; do
	cmp "$work/model" "$work/fs/$name" || die "$name isn't what was written"
done
umount "$work/fs"

python3 - "$(image d)" <<'PYTHON'
import json, os, sys
names = os.listxattr(sys.argv[1])
assert names == ["user.mlsdisk.stats"], names
stats = json.loads(os.getxattr(sys.argv[1], names[0]))
assert stats["disk_bytes"] == 160 << 20 and stats["state"] == "ok" and stats["errors"]["integrity"] == 0, stats
PYTHON
