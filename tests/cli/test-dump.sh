#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# mlsdisk-dump: what it says of a small disk with a known history (make_disk.c), healthy, damaged, old and
# locked, is in dump/NAME.expect: standard output, then standard error; what is random is masked.
#
# MLS_UPDATE=1 writes the expectations anew: look at the difference before you commit it.
set -euo pipefail
export LC_ALL=C
unset COLUMNS

build=${MLS_BUILD_DIR:-$PWD}
expected=$(cd "${srcdir:-.}/tests/cli/dump" && pwd)
man=$expected/../../../man/mlsdisk-dump.8
program=$build/mlsdisk-dump
[ -x "$program" ] && [ -x "$build/tests/cli/make_disk" ] || exit 77
work=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0

die() { echo "FAILED: $*" >&2; exit 1; }

# UUIDs, and what has 32 hexadecimal digits: tags, digests, sessions
mask() {
	sed -E -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g' -e 's/\b[0-9a-f]{32}\b/HEX/g'
}

# check NAME STATUS ARGUMENT...
check() {
	local name=$1 status=$2 found=0

	shift 2
	setsid -w "$program" "$@" >out 2>err </dev/null || found=$?
	{ mask <out; echo "--- stderr, exit status $found"; mask <err; } >"$name.found"
	[ "$found" = "$status" ] || { echo "$name: expected status $status, found $found"; failed=1; }
	if [ -n "${MLS_UPDATE:-}" ]; then
		cp "$name.found" "$expected/$name.expect"
	elif ! diff -u "$expected/$name.expect" "$name.found"; then
		failed=1
	fi
}

with_key=(--key-file=key --trusted-store=file:store)

# says STATUS TEXT ARGUMENT... : TEXT is in what it says; for what isn't worth a file
says() {
	local status=$1 text=$2 found=0

	shift 2
	setsid -w "$program" "$@" >output 2>&1 </dev/null || found=$?
	[ "$found" = "$status" ] || { cat output; die "expected status $status, found $found: $*"; }
	grep -qF -- "$text" output || { cat output; die "'$text' isn't said: $*"; }
}

# damage HBA: one byte in the middle of the block
damage() {
	local at=$(($1 * 4096 + 2000)) byte

	byte=$(od -An -tu1 -j "$at" -N 1 disk)
	printf '%b' "\\$(printf '%03o' $((byte ^ 1)))" | dd of=disk bs=1 seek="$at" conv=notrunc status=none
}

restore() { cp healthy disk; }

"$build/tests/cli/make_disk" disk key store || die "make_disk"
cp disk healthy
cp store healthy.store

# ---- The command line ----
says 0 "Usage: mlsdisk-dump" --help
says 0 "mlsdisk-dump (MlsDisk)" --version
says 2 "BACKING is missing"
says 2 "unknown section" disk everything
says 2 "LBA is missing" disk lba
says 2 "expected HBA" disk hba 12x
says 2 "expected HBA" -- disk hba -1
says 2 "too many" disk stats 3
says 2 "--data is for" --data disk stats
says 2 "--svg is for" --svg=x disk stats
says 2 "only one of" --svg=- --json disk map
says 2 "expected less than 2048" "${with_key[@]}" disk lba 2048
says 2 "expected less than 3200" "${with_key[@]}" disk hba 0xc80
says 2 "unknown" --key-file=key --trusted-store=nowhere disk
says 1 "No such file" --key-file=nokey disk
says 1 "nothing" nothing
head -c 32 /dev/zero >wrong.key
says 3 "wrong key" --key-file=wrong.key disk
head -c 1M /dev/zero >zeros
says 3 "not an MlsDisk" zeros
(
	exec 9<disk
	flock -x 9
	says 6 "in use" "${with_key[@]}" disk
)

# ---- A healthy disk ----
for section in superblock journal chunks logs index stats map; do
	check "$section" 0 "${with_key[@]}" disk "$section"
done
check overview 0 "${with_key[@]}" disk
check lba-current 0 "${with_key[@]}" --data disk lba 5
check lba-discarded 0 "${with_key[@]}" disk lba 310
check lba-unsynced 0 "${with_key[@]}" disk lba 11
check lba-unwritten 0 "${with_key[@]}" disk lba 1500
for hba in 0 1 40 100 163 170 293 299 303 1216 1220 1221 1222 1500; do
	"$program" "${with_key[@]}" disk hba $hba
done >hba.all
mask <hba.all >hba.found
if [ -n "${MLS_UPDATE:-}" ]; then
	cp hba.found "$expected/hba.expect"
else
	diff -u "$expected/hba.expect" hba.found || failed=1
fi
check json-overview 0 --json "${with_key[@]}" disk
check json-lba 0 --json "${with_key[@]}" --data disk lba 1000

# ---- Without a key: what the adversary sees ----
check locked 0 disk
check locked-chunks 0 disk chunks
check locked-map 0 disk map
check locked-lba 0 --json disk lba 5
says 0 "closed segment" disk hba 293

# ---- Damaged, old, foreign ----
damage 0
check damaged-superblock 0 "${with_key[@]}" disk superblock
damage 16
check damaged-superblocks 4 "${with_key[@]}" disk
check locked-damaged 4 disk superblock
restore
damage 1216
check damaged-table 4 --json "${with_key[@]}" disk index
check damaged-table-lba 4 "${with_key[@]}" disk lba 50
restore
damage 293
check damaged-lba 4 "${with_key[@]}" --data disk lba 5
restore
damage 164
check damaged-wal 4 "${with_key[@]}" disk journal
restore
damage 32
check damaged-journal 4 "${with_key[@]}" disk
restore
"$build/tests/cli/make_disk" other other.key other.store
says 5 "expected the one of disk" --key-file=key --trusted-store=file:other.store disk journal
says 5 "holds nothing" --key-file=key --trusted-store=file:none.store disk journal
[ ! -e none.store ] || die "a trusted store was made"
says 0 "freshness can't be checked" --key-file=key --trusted-store=none disk journal
head -c 4096 /dev/zero | dd of=disk bs=4096 seek=165 conv=notrunc status=none
says 5 "older than the trusted store" "${with_key[@]}" disk journal
restore

# ---- The picture ----
"$program" "${with_key[@]}" --svg=map.svg disk map
head -n 1 map.svg | grep -q '^<svg ' || die "not SVG"
tail -n 1 map.svg | grep -q '^</svg>$' || die "SVG isn't whole"
"$program" "${with_key[@]}" --svg=- disk map | cmp - map.svg || die "--svg=- is another picture"
if command -v rsvg-convert >/dev/null; then
	rsvg-convert map.svg >map.png || die "the picture can't be drawn"
fi
says 1 "won't be overwritten" "${with_key[@]}" --svg=disk disk map
ln disk link
says 1 "won't be overwritten" "${with_key[@]}" --svg=link disk map

# ---- It never writes, and never tells a key ----
cmp disk healthy || die "the disk was changed"
cmp store healthy.store || die "the trusted store was changed"
# Each key of the JSON is described.
if command -v jq >/dev/null; then
	for section in superblock journal chunks logs index "lba 5" "hba 293" stats map; do
		# shellcheck disable=SC2086
		"$program" --json "${with_key[@]}" disk $section >section.json
		jq -e '.schema == 1 and .authentic' section.json >/dev/null || die "$section: not the JSON it should be"
		jq -r 'paths | .[-1] | strings' section.json
	done | sort -u >keys
	"$program" --json disk chunks 2>/dev/null | jq -r 'paths | .[-1] | strings' | sort -u >>keys
	while read -r key; do
		grep -qw -- "$key" "$man" || die "mlsdisk-dump(8) doesn't describe '$key' of the JSON"
	done <keys
fi
[ "$failed" = 0 ] || die "see the differences above"
echo "all well"
