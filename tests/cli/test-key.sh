#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# mlsdisk-key: arguments, exit statuses, and that secrets come and go.
set -euo pipefail
export LC_ALL=C

build=${MLS_BUILD_DIR:-$PWD}
program=$build/mlsdisk-key
work=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
for name in a b c; do
	head -c 32 /dev/urandom >"$name.key"
done

die() { cat "$work/output" >&2 || :; echo "FAILED: $*" >&2; exit 1; }

# expect STATUS TEXT ARGUMENT... : TEXT is in what it says
expect() {
	local status=$1 text=$2 found=0

	shift 2
	setsid -w "$program" "$@" >output 2>&1 </dev/null || found=$?
	[ "$found" = "$status" ] || die "expected status $status, found $found: $*"
	grep -qF -- "$text" output || die "'$text' isn't said: $*"
}

"$build/mlsdisk-format" --key-file=a.key --trusted-store="file:$work/store" --size=8M d >output 2>&1 || die "format"

expect 0 "Usage: mlsdisk-key" --help
expect 0 "mlsdisk-key (MlsDisk)" --version
expect 2 "list, add, remove or change"
expect 2 "expected list, add" frobnicate d
expect 2 "BACKING is missing" list
expect 2 "too many" list d d
expect 2 "--slot=8: expected 0 to 7" remove --slot=8 d
expect 2 "--slot=-1: expected 0 to 7" remove --slot=-1 d
expect 2 "no meaning" remove --new-key-file=b.key d
expect 2 "neither" list --slot=1 d
expect 2 "--label has no meaning" remove --label=x d
expect 2 "1 to 39" add --label= d
expect 2 "1 to 39" add --label="$(printf 'x%.0s' {1..40})" d
expect 2 "printable" add --label=$'a\tb' d
expect 2 "only one" add --key-file=- --new-key-file=- d
expect 2 "no terminal" add --new-key-file=b.key d
expect 1 "failed" list nothing

expect 0 "key file" list d
[ "$(wc -l <output)" = 2 ] || die "one slot expected"
expect 3 "no key slot opens" add --key-file=b.key --new-key-file=c.key d
expect 0 "Slot 1: added" add --key-file=a.key --new-key-file=b.key d
expect 1 "used already" add --key-file=a.key --new-key-file=c.key --slot=1 d
expect 1 "is free" change --key-file=a.key --new-key-file=c.key --slot=5 d
expect 0 "Slot 1: changed" change --label="backup, in the safe" --key-file=b.key --new-key-file=b.key d
expect 0 "backup, in the safe" list d
expect 0 "Slot 1: changed" change --key-file=b.key --new-key-file=c.key d
expect 3 "no key slot opens" remove --key-file=b.key d
expect 0 "Slot 0: removed" remove --key-file=c.key --slot=0 d
expect 2 "last one" remove --key-file=c.key d
expect 0 "Slot 0: added" add --key-file=c.key --new-key-file=a.key d
expect 0 "mlsdisk-key 20" list d
[ "$(wc -l <output)" = 3 ] || die "two slots expected"

# A superblock from before: it opens with what was taken away, until the trusted store knows of the change.
for how in remove change itself untold; do
	store=(--trusted-store="file:$work/store")
	expect 0 "Slot 2: added" add --key-file=c.key --new-key-file=b.key d
	head -c 128K d >old
	case $how in
	remove) expect 0 "store refuses an old" remove --key-file=c.key --slot=2 "${store[@]}" d ;;
	change) expect 0 "store refuses an old" change --key-file=b.key --new-key-file=c.key "${store[@]}" d ;;
	itself) expect 0 "store refuses an old" remove --key-file=b.key "${store[@]}" d ;;
	untold) expect 0 "Mount d once" remove --key-file=b.key --trusted-store=none d ;;
	esac
	head -c 128K d >new
	dd if=old of=d conv=notrunc 2>/dev/null
	found=0
	"$build/mlsdisk-dump" --key-file=b.key "${store[@]}" d superblock >output 2>&1 || found=$?
	case $how in
	untold) [ "$found" = 0 ] || die "what nobody was told of can't be known" ;;
	*) grep -q "violation: both superblock copies are old" output || die "an old superblock is accepted after $how" ;;
	esac
	dd if=new of=d conv=notrunc 2>/dev/null
	[ "$how" != change ] || expect 0 "Slot 2: removed" remove --key-file=c.key --slot=2 "${store[@]}" d
done
expect 2 "no meaning for add" add --key-file=c.key --new-key-file=b.key "${store[@]}" d
expect 2 "no meaning for list" list "${store[@]}" d
expect 0 "the trusted store wasn't told" change --key-file=c.key --new-key-file=c.key --trusted-store="file:$work/no/store" d

exec 9<d
flock -n 9 || die "flock"
expect 6 "in use" remove --key-file=c.key d
exec 9<&-

truncate -s 1M zeros
expect 3 "not an MlsDisk" list zeros
printf 'x' | dd of=d bs=1 seek=100 conv=notrunc 2>/dev/null
expect 0 "key file" list d
expect 0 "removed" remove --key-file=a.key d
printf 'x' | dd of=d bs=1 seek=100 conv=notrunc 2>/dev/null
printf 'x' | dd of=d bs=1 seek=65636 conv=notrunc 2>/dev/null
expect 4 "integrity violation" list d
echo "all well"
