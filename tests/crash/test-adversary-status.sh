#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# test-adversary-status.sh - what the programs answer to an adversary: the documented exit status, and nothing changed.
#
# For one attack of each class: mlsdisk-fuse, for reading and for writing, must refuse with 3, 4 or 5 as listed, before
# it mounts anything (so neither root nor /dev/fuse is needed); mlsdisk-fsck -n must end with the status of fsck(8)
# that is listed; no byte of image or trusted store may change. The disks and most attacks are tests/fsck/damage's.

bin=${MLS_BUILD_DIR:-.}
damage=$bin/tests/fsck/damage
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-status.XXXXXX") || exit 99
trap 'rm -rf "$tmp"' EXIT
trap 'exit 99' HUP INT TERM
failed=0
tried=0

fresh_case() {
	rm -rf "$tmp/case"
	cp -r "$tmp/base" "$tmp/case"
}

sum() {
	cat "$tmp/case/disk.img" "$tmp/case/store" 2>/dev/null | cksum
}

# status WANTED WHAT COMMAND...
status() {
	wanted=$1
	what=$2
	shift 2
	"$@" >"$tmp/out" 2>&1
	found=$?
	tried=$((tried + 1))
	if [ "$found" -ne "$wanted" ]; then
		echo "$what: $(basename "$1") answers $found, expected $wanted"
		cat "$tmp/out"
		failed=1
		fusermount3 -u "$tmp/mnt" 2>/dev/null
	fi
}

# refused WHAT FUSE_STATUS FSCK_STATUS: the disk in $tmp/case
refused() {
	before=$(sum)
	for mode in --read-only --sync-policy=early; do
		status "$2" "$1" "$bin/mlsdisk-fuse" "$mode" --key-file="$tmp/case/key" \
			--trusted-store="file:$tmp/case/store" "$tmp/case/disk.img" "$tmp/mnt"
	done
	status "$3" "$1" "$bin/mlsdisk-fsck" -n --key-file="$tmp/case/key" --trusted-store="file:$tmp/case/store" \
		"$tmp/case/disk.img"
	if [ "$before" != "$(sum)" ]; then
		echo "$1: refused, but image or trusted store were changed"
		failed=1
	fi
}

# bytes FROM_IMAGE BLOCK NR_BLOCKS: these blocks of another image
blocks() {
	dd if="$1" of="$tmp/case/disk.img" bs=4096 skip="$2" seek="$2" count="$3" conv=notrunc 2>/dev/null
}

mkdir "$tmp/base" "$tmp/twin" "$tmp/mnt"
"$damage" base "$tmp/base" && "$damage" base "$tmp/twin" || exit 99

# Flips, changed and missing blocks: 4. Older blocks, images and registers: 5.
while read -r kind fuse fsck; do
	fresh_case
	"$damage" "$kind" "$tmp/case" || exit 99
	refused "$kind" "$fuse" "$fsck"
done <<'LIST'
sb-both 4 4
sb-stale 5 4
device-short 4 4
journal-flip 4 4
journal-torn 4 4
wal-first 4 4
wal-last 5 4
wal-cut 5 4
sst-footer 4 4
sst-node 4 4
rollback 5 4
store-lost 5 4
store-damaged 5 4
store-foreign 5 4
store-mismatch 5 4
LIST

# Splices from another disk with the same key file (and, here, the same UUID).
fresh_case
cp "$tmp/twin/disk.img" "$tmp/case/disk.img"
refused "the image of another disk" 5 4
fresh_case
cp "$tmp/twin/store" "$tmp/case/store"
refused "the store of another disk" 5 4
fresh_case
blocks "$tmp/twin/disk.img" 0 32
refused "the superblocks of another disk" 5 4
journal=$(od -An -tu8 -j48 -N8 "$tmp/base/disk.img" | tr -d ' ')
fresh_case
blocks "$tmp/twin/disk.img" 32 $((2 * journal))
refused "the journal of another disk" 4 4
fresh_case
blocks "$tmp/twin/disk.img" $((32 + 2 * journal)) "$(od -An -tu8 -j56 -N8 "$tmp/base/disk.img" | tr -d ' ')"
refused "the WAL of another disk" 5 4

# Length, and what isn't an MlsDisk at all.
fresh_case
truncate -s $((64 * 4096)) "$tmp/case/disk.img"
refused "64 blocks left" 4 4
fresh_case
dd if=/dev/zero of="$tmp/case/disk.img" bs=4096 count=32 conv=notrunc 2>/dev/null
refused "the superblocks wiped" 3 8
fresh_case
printf 'another key of thirty-two bytes.' >"$tmp/case/key"
refused "another key" 3 8

echo "$tried answers"
exit $failed
