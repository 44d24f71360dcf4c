#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# test-fsck.sh - golden tests of mlsdisk-fsck: damage, what it finds, what it repairs, what is left.
#
# For each line of `expected`: a copy of one small disk is damaged in one way (damage.c); then
#   1. fsck --data finds exactly the codes listed, with that exit status, and changes no byte;
#   2. fsck -p --data ends with that exit status;
#   3. fsck --data again finds exactly what is left, with that exit status.
# MLS_FSCK_PRINT=1 prints the lines as they are now, instead of comparing them.

fsck=${MLS_BUILD_DIR:-.}/mlsdisk-fsck
damage=${MLS_BUILD_DIR:-.}/tests/fsck/damage
expected=${srcdir:-.}/tests/fsck/expected
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-fsck.XXXXXX") || exit 99
trap 'rm -rf "$tmp"' EXIT
trap 'exit 99' HUP INT TERM
failed=0

# look OPTIONS...: sets codes and status.
look() {
	"$fsck" --json --key-file="$tmp/case/key" --trusted-store="file:$tmp/case/store" "$@" "$tmp/case/disk.img" \
		>"$tmp/out" 2>"$tmp/err"
	status=$?
	codes=$(sed -n 's/^{"type":"finding","code":"\([^"]*\)".*/\1/p' "$tmp/out" | sort -u | tr '\n' ' ')
	codes=${codes% }
}

sum() {
	cat "$tmp/case/disk.img" "$tmp/case/store" 2>/dev/null | cksum
}

# run KIND: sets found, "KIND: codes = status; -p = status; codes = status".
run() {
	rm -rf "$tmp/case"
	cp -r "$tmp/base" "$tmp/case"
	"$damage" "$1" "$tmp/case" || exit 99
	before=$(sum)
	look --data
	found="$1: ${codes:-none} = $status"
	if [ "$before" != "$(sum)" ]; then
		echo "$1: -n changed the disk or the trusted store"
		failed=1
	fi
	look -p --data
	found="$found; -p = $status"
	look --data
	found="$found; ${codes:-none} = $status"
}

# expect_status STATUS WHAT COMMAND...
expect_status() {
	wanted=$1
	what=$2
	shift 2
	"$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	if [ "$status" -ne "$wanted" ]; then
		echo "$what: expected exit status $wanted, found $status"
		cat "$tmp/err"
		failed=1
	fi
}

mkdir "$tmp/base"
"$damage" base "$tmp/base" || exit 99

if [ -n "$MLS_FSCK_PRINT" ]; then
	for kind in $("$damage" list); do
		run "$kind"
		echo "$found"
	done
	exit 0
fi

nr=0
while read -r line; do
	case $line in '' | '#'*) continue ;; esac
	nr=$((nr + 1))
	run "${line%%:*}"
	if [ "$found" != "$line" ]; then
		echo "expected  $line"
		echo "found     $found"
		tail -n 5 "$tmp/out" "$tmp/err"
		failed=1
	fi
done <"$expected"
if [ "$nr" -ne "$("$damage" list | wc -l)" ]; then
	echo "not all kinds of damage are in $expected"
	failed=1
fi

# What isn't damage.
rm -rf "$tmp/case"
cp -r "$tmp/base" "$tmp/case"
disk=$tmp/case/disk.img
key=--key-file=$tmp/case/key
store=--trusted-store=file:$tmp/case/store
expect_status 16 "no BACKING" "$fsck"
expect_status 16 "-n and -p" "$fsck" -n -p "$disk"
expect_status 16 "-C x" "$fsck" -C x "$disk"
expect_status 16 "unknown option" "$fsck" --nonsense "$disk"
expect_status 16 "unknown store" "$fsck" "$key" --trusted-store=nonsense "$disk"
expect_status 0 "--help" "$fsck" --help
expect_status 0 "no store" "$fsck" "$key" --trusted-store=none "$disk"
expect_status 0 "progress" "$fsck" -C 1 "$key" "$store" "$disk"
if ! grep -q '^5 [0-9]* [0-9]* ' "$tmp/out"; then
	echo "-C 1 gave no progress lines"
	failed=1
fi
expect_status 8 "no such file" "$fsck" "$key" "$store" "$tmp/none"
head -c 32 /dev/zero >"$tmp/zeros"
expect_status 8 "wrong key" "$fsck" --key-file="$tmp/zeros" "$store" "$disk"
head -c 1048576 /dev/zero >"$tmp/not"
expect_status 8 "not an MlsDisk" "$fsck" "$key" "$store" "$tmp/not"
if command -v flock >/dev/null; then
	expect_status 8 "in use" flock -x "$disk" "$fsck" "$key" "$store" "$disk"
fi
expect_status 8 "salvage onto a file" "$fsck" "$key" "$store" --salvage="$tmp/zeros" "$disk"

# Salvage: the whole disk; with damaged blocks; and, without a journal, the same blocks from the segments.
# salvage STATUS NAME LOST
salvage() {
	rm -f "$tmp/$2.img" "$tmp/$2.img.map"
	expect_status "$1" "salvage $2" "$fsck" "$key" "$store" --salvage="$tmp/$2.img" "$disk"
	lost=$(awk '!/^#/ { n += $2 - $1 + 1 } END { print n + 0 }' "$tmp/$2.img.map")
	if [ "$lost" -ne "$3" ]; then
		echo "salvage $2: expected $3 LBAs lost, found $lost"
		cat "$tmp/$2.img.map"
		failed=1
	fi
}
salvage 0 whole 0
"$damage" data-flip "$tmp/case"
salvage 4 flipped 1
if [ "$(cmp -l "$tmp/whole.img" "$tmp/flipped.img" | wc -l)" -gt 4096 ]; then
	echo "salvage flipped: other blocks differ, too"
	failed=1
fi
cp "$tmp/base/disk.img" "$disk"
"$damage" sst-record "$tmp/case"
salvage 4 index 0		# the summaries make up for it
cmp "$tmp/whole.img" "$tmp/index.img" || failed=1
if ! grep -q salvaged-unindexed "$tmp/out"; then
	echo "salvage index: no finding says where the blocks come from"
	failed=1
fi
cp "$tmp/base/disk.img" "$disk"
"$damage" journal-flip "$tmp/case"
salvage 4 segments 0
cmp "$tmp/whole.img" "$tmp/segments.img" || failed=1
rm -rf "$tmp/case"
cp -r "$tmp/base" "$tmp/case"
"$damage" crash-open-segment "$tmp/case"
salvage 0 open 0
"$damage" journal-flip "$tmp/case"
salvage 4 rescued 0
cmp "$tmp/open.img" "$tmp/rescued.img" || failed=1
exit "$failed"
