#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# fio writes and verifies at random, and again after reopening the disk.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires fio
mls_format d 512M
mls_serve d
job=(--name=verify --filename="$(image d)" --rw=randrw --bs=4k --size=128M --io_size=96M --iodepth=32 --ioengine=io_uring
	--direct=1 --verify=crc32c --verify_state_save=0 --randseed=17 --allow_file_create=0 --output="$work/fio.out")
fio "${job[@]}" --verify_fatal=1 --end_fsync=1 || { cat "$work/fio.out"; die "fio"; }
mls_end d
mls_serve d
fio "${job[@]}" --verify_only || { cat "$work/fio.out"; die "fio after reopening"; }
mls_kill d
mls_serve d
fio "${job[@]}" --verify_only || { cat "$work/fio.out"; die "fio after a kill"; }
mls_end d
