#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# mlsdisk-format: sizes, refusals, exit statuses, and that a refusal changes nothing.
set -euo pipefail
export LC_ALL=C

program=${MLS_BUILD_DIR:-$PWD}/mlsdisk-format
work=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
key=$work/key
head -c 32 /dev/urandom >"$key"

die() { cat "$work/output" >&2 || :; echo "FAILED: $*" >&2; exit 1; }

# expect STATUS TEXT ARGUMENT... : TEXT is in what it says
expect() {
	local status=$1 text=$2 found=0

	shift 2
	setsid -w "$program" "$@" >"$work/output" 2>&1 </dev/null || found=$?
	[ "$found" = "$status" ] || die "expected status $status, found $found: $*"
	grep -qF -- "$text" "$work/output" || die "'$text' isn't said: $*"
}

# make TEXT BACKING ARGUMENT... : a disk with the key and a store of its own
make() {
	local text=$1 backing=$2

	shift 2
	expect 0 "$text" --key-file="$key" --trusted-store="file:$work/$backing.store" "$@" "$backing"
}

size_of() { stat -c %s "$1"; }
mib=$((1024 * 1024))

# ---- Usage ----
expect 0 "Usage: mlsdisk-format" --help
expect 0 "mlsdisk-format (MlsDisk)" --version
expect 2 "BACKING is missing"
expect 2 "too many arguments" a b
expect 2 "unrecognized option" --no-such-option a
expect 2 "requires an argument" --size
expect 2 "a new file: give --size" --key-file="$key" new
expect 2 "--size=12X: unknown unit 'X'" --size=12X new
expect 2 "--size=-5: not a size" --size=-5 new
expect 2 "--size=0: must be more than 0" --size=0 new
expect 2 "--size=8388608T: too large" --size=8388608T new
expect 2 "at least one block" --size=100 new
expect 2 "neither a regular file nor a block device" --size=1M "$work"
expect 2 "no terminal" --size=1M new
expect 1 "too small" --backing-size=100K --key-file="$key" new
expect 1 "No such file" --size=1M --key-file="$work/nothing" new
: >empty.key
expect 2 "is empty" --size=1M --key-file="$work/empty.key" new
expect 2 "expected an NV index" --size=1M --key-file="$key" --trusted-store=tpm2:1 new
grep -q '^#define HAVE_TPM2' "${MLS_BUILD_DIR:-$PWD}/config.h" ||
	expect 2 "configure --with-tpm2" --size=1M --key-file="$key" --trusted-store=tpm2:0x01800001 new
expect 2 "unknown" --size=1M --key-file="$key" --trusted-store=ftp://x new
expect 1 "No such file" --size=1M --key-file="$key" --trusted-store=none nowhere/new
[ ! -e new ] || die "a refused format left a file"

# ---- A disk as long as the file system's longest file, or longer: thin, and at once ----
make "is an MlsDisk now" huge --size=16T
[ "$(du -m huge | cut -f 1)" -lt 256 ] || die "16 TiB take space"
rm huge

# ---- What is made ----
make "size           64 MiB" a --size=64M
[ "$(size_of a)" -gt $((64 * mib)) ] || die "the backing is too short"
[ "$(stat -c %a a)" = 600 ] || die "the backing can be read by others"
[ "$(stat -c %a a.store)" = 600 ] || die "the store can be read by others"
[ "$(($(stat -c %b a) * 512))" -lt $((8 * mib)) ] || die "the backing isn't sparse"
grep -qF "mlsdisk-fuse --key-file=$key --trusted-store=file:$work/a.store a MOUNTPOINT" output || die "no next command"
make "backing        100 MiB" b --backing-size=100M
[ "$(size_of b)" = $((100 * mib)) ] || die "the backing has another length"
make "is thin" c --size=1G --backing-size=64M
truncate -s 80M d
make "backing        80 MiB" d
truncate -s 1M e
make "size           64 MiB" e --size=64M
truncate -s 80M f
expect 2 "longer than --backing-size" --key-file="$key" --backing-size=64M f
printf short >short.key
expect 0 "stretched" --key-file="$work/short.key" --trusted-store=none --size=8M g
expect 0 "no trusted store" --key-file="$key" --trusted-store=none --size=8M h
printf 'from standard input, and long enough' |
	"$program" --key-file=- --trusted-store=none --size=8M i >output 2>&1 || die "key from standard input"

# The default store of a user, not of root, who would leave a file in /var/lib.
if [ "$(id -u)" != 0 ]; then
	XDG_STATE_HOME=$work/state expect 0 "$work/state/mlsdisk/" --key-file="$key" --size=8M j
	[ "$(find state/mlsdisk -name '*.trust' | wc -l)" = 1 ] || die "no default store"
fi

# ---- What is there is kept ----
sum=$(cat a a.store | cksum)
expect 1 "holds an MlsDisk" --key-file="$key" --trusted-store="file:$work/other.store" a
expect 5 "give each disk a store of its own" --force --key-file="$key" --trusted-store="file:$work/a.store" --size=8M k
expect 5 "give each disk a store of its own" --force --key-file="$key" --trusted-store="file:$work/a.store" a
expect 5 "not a trusted store" --force --key-file="$key" --trusted-store="file:$key" a
[ "$sum" = "$(cat a a.store | cksum)" ] || die "a refused format changed something"
expect 0 "is an MlsDisk now" --force --key-file="$key" --trusted-store="file:$work/other.store" a
[ "$sum" != "$(cat a a.store | cksum)" ] || die "--force did nothing"

if command -v mkfs.ext4 >/dev/null; then
	truncate -s 64M ext4
	mkfs.ext4 -q ext4
	sum=$(cksum <ext4)
	expect 1 "ext4 holds" --key-file="$key" ext4
	[ "$sum" = "$(cksum <ext4)" ] || die "a file system was changed"
fi

# ---- In use ----
exec 9<a
flock -n 9 || die "flock"
expect 6 "in use" --force --key-file="$key" --trusted-store=none a
exec 9<&-
exec 9<other.store
flock -n 9 || die "flock"
expect 6 "in use" --force --key-file="$key" --trusted-store="file:$work/other.store" a
exec 9<&-
echo "all well"
