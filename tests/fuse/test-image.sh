#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# image.raw behaves as a disk in a file should, and keeps what it was given.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
mls_format d 64M
mls_serve d
"$probe" semantics "$(image d)"
mls_end d

# A disk image copied onto it is safe when the copy's close returns.
head -c 64M /dev/urandom >"$work/model"
mls_serve d
dd if="$work/model" of="$(image d)" bs=1M conv=notrunc status=none
mls_kill d
mls_serve d --read-only
cmp "$work/model" "$(image d)"
[ "$(stat -c %a "$(image d)")" = 400 ] || die "read-only, but the mode isn't 0400"
if dd if=/dev/zero of="$(image d)" count=1 conv=notrunc 2>"$work/output"; then
	die "a read-only disk was written to"
fi
expect_output "Read-only file system"
mls_end d
