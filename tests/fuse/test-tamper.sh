#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# A flipped bit anywhere on BACKING gives an error or the right data; an older BACKING is refused.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
flips=${MLS_FLIPS:-8}
size=$((32 << 20))
mls_format d "$size"
truncate -s "$size" "$work/model"
mls_serve d
"$probe" fill "$(image d)" "$work/model" 1
mls_end d
cp --sparse=always "$work/d.img" "$work/old.img"
mls_serve d				# a second session: journal, WAL and SSTables have some history
coproc writer { "$probe" write "$(image d)" "$work/model" 2; }
# shellcheck disable=SC2154
writer_pid=$writer_PID
read -r _ <&"${writer[0]}"
fd=${writer[1]}
exec {fd}>&-
wait "$writer_pid"
mls_end d
cp --sparse=always "$work/d.img" "$work/good.img"
for file in "$work/d.store"*; do cp "$file" "$work/good-${file##*/}"; done

# Fields of the superblock (doc/format.md): where each region begins and ends.
le() { od -An -t"u$3" -j"$2" -N"$3" "$1" | tr -d ' '; }
journal_blocks=$(le "$work/good.img" 48 8)
wal_blocks=$(le "$work/good.img" 56 8)
all_blocks=$(($(stat -c %s "$work/good.img") / 4096))
journal=32 wal=$((32 + 2 * journal_blocks)) runs=$((32 + 2 * journal_blocks + wal_blocks))

RANDOM=${MLS_SEED:-4711}
random() { echo $(((RANDOM << 15 | RANDOM) % $1)); }

# A block of [from, to) that isn't empty, at random, or the first one.
used_block() {
	local from=$1 to=$2 i block

	for ((i = 0; i < 400; i++)); do
		block=$((from + $(random $((to - from)))))
		if ! cmp -s -n 4096 -i "$((block * 4096)):0" "$work/good.img" /dev/zero; then
			echo "$block"
			return
		fi
	done
	echo "$from"
}

flip_bit() {
	local at=$1 byte

	byte=$(le "$work/d.img" "$at" 1)
	printf '%b' "\\x$(printf %x $((byte ^ 1 << $(random 8))))" |
		dd of="$work/d.img" bs=1 seek="$at" conv=notrunc status=none
}

refused=0 served=0
for region in "0 1" "16 17" "$journal $((journal + journal_blocks))" "$((journal + journal_blocks)) $wal" \
	"$wal $runs" "$runs $all_blocks" "$runs $all_blocks"; do
	read -r from to <<<"$region"
	for ((i = 0; i < flips; i++)); do
		for file in "$work/d.store"*; do cp "$work/good-${file##*/}" "$file"; done
		cp --sparse=always "$work/good.img" "$work/d.img"
		at=$(($(used_block "$from" "$to") * 4096 + $(random 4096)))
		flip_bit "$at"
		mode=--read-only
		[ $((i % 2)) = 0 ] || mode=--sync-policy=early	# writable
		status=0
		mls_serve d "$mode" >"$work/output" 2>&1 || status=$?
		case $status in
		0)
			status=0
			"$probe" compare "$(image d)" "$work/model" >"$work/output" || status=$?
			[ "$status" = 0 ] || [ "$status" = 3 ] || { cat "$work/output"; die "byte $at: wrong data"; }
			served=$((served + 1))
			mls_kill d
			;;
		1 | 3 | 4 | 5) refused=$((refused + 1)) ;;
		*) cat "$work/output"; die "byte $at: status $status" ;;
		esac
	done
done
say "$refused flips refused at opening, $served served with the right data or EIO"

# Rollback: the older image, with today's store.
for file in "$work/d.store"*; do cp "$work/good-${file##*/}" "$file"; done
cp --sparse=always "$work/old.img" "$work/d.img"
status=0
mls_serve d >"$work/output" 2>&1 || status=$?
[ "$status" = 5 ] || { cat "$work/output"; die "an older image: expected status 5, found $status"; }
expect_output "accept-rollback"
status=0
mls_serve d --read-only >"$work/output" 2>&1 || status=$?
[ "$status" = 5 ] || die "an older image, read-only: expected status 5, found $status"
mls_serve d --accept-rollback
mls_end d
mls_serve d
mls_end d
cp --sparse=always "$work/good.img" "$work/d.img"	# what was given up can't come back
status=0
mls_serve d >"$work/output" 2>&1 || status=$?
[ "$status" = 5 ] || { cat "$work/output"; die "the image given up: expected status 5, found $status"; }
