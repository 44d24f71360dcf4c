#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# BACKING is a block device that is full and grows: "truncate" of image.raw to its own size has the disk use the new part
# (thin before), to a larger size it grows into it; after a kill -9 all that was synced is there.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires dd python3

truncate -s 48M "$work/host"
backing=$(losetup -f --show "$work/host")
on_exit "losetup -d '$backing'"
ln -s "$backing" "$work/d.img"
mls_format d 96M
mls_serve d

# Until it is full: a thin disk.
python3 - "$(image d)" "$work/model" <<'PYTHON'
import errno, os, sys
image, model = os.open(sys.argv[1], os.O_RDWR), open(sys.argv[2], "wb")
try:
    for at in range(0, 96 << 20, 1 << 20):
        data = os.urandom(1 << 20)
        done = os.pwrite(image, data, at)
        model.write(data[:done])
        if done < len(data):
            break
    raise SystemExit("a BACKING of 48 MiB took 96")
except OSError as e:
    assert e.errno == errno.ENOSPC, e
os.fsync(image)
PYTHON
filled=$(stat -c %s "$work/model")
[ "$filled" -gt $((24 << 20)) ] || die "full after $filled bytes"

# The rest, at the same size, once the device has grown.
truncate -s 130M "$work/host"
losetup -c "$backing"
truncate -s 96M "$(image d)"
head -c $(((96 << 20) - filled)) /dev/urandom >>"$work/model"
dd if="$work/model" of="$(image d)" bs=1M iflag=skip_bytes oflag=seek_bytes skip="$filled" seek="$filled" \
	conv=notrunc,fsync status=none || die "the device's new part isn't used"

# And larger, twice; the second one is cut off.
truncate -s 104M "$(image d)"
head -c 8M /dev/urandom >>"$work/model"
dd if="$work/model" of="$(image d)" bs=1M skip=96 seek=96 conv=notrunc,fsync status=none || die "the disk didn't grow"
truncate -s 112M "$(image d)"
mls_kill d
mls_serve d
[ "$(stat -c %s "$(image d)")" = $((112 << 20)) ] || die "image.raw has an old size again"
truncate -s 112M "$work/model"
cmp "$work/model" "$(image d)" || die "it isn't what was written"
