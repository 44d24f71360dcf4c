#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# What a user meets with a trusted store, in a file and in a TPM (swtpm, started here): a backup restored, a lost
# store, a store of another disk, a damaged one, kill -9; what each program says then, and the way out.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
fsck=$build/mlsdisk-fsck
dump=$build/mlsdisk-dump
key=$build/mlsdisk-key
kinds="file"
if grep -q '^#define HAVE_TPM2' "$build/config.h"; then
	requires swtpm tpm2_nvundefine
	kinds="file tpm2"
fi

# ---- The TPM ----

tpm_start() {
	local i

	mkdir -p "$work/tpm"
	swtpm socket --tpm2 --tpmstate dir="$work/tpm" --server type=unixio,path="$work/tpm.sock" \
		--ctrl type=unixio,path="$work/tpm.sock.ctrl" --flags not-need-init,startup-clear \
		>"$work/tpm.log" 2>&1 &
	tpm_pid=$!
	on_exit "tpm_end"
	for ((i = 0; i < 200; i++)); do
		[ ! -S "$work/tpm.sock" ] || return 0
		sleep 0.05
	done
	die "swtpm doesn't start"
}

tpm_end() {
	kill -9 "$tpm_pid" 2>/dev/null || true
	wait "$tpm_pid" 2>/dev/null || true
	rm -f "$work/tpm.sock" "$work/tpm.sock.ctrl"
}

tpm_tool() { TPM2TOOLS_TCTI="$MLSDISK_TCTI" "$@" >"$work/output" 2>&1 || { cat "$work/output"; die "$*"; }; }

# ---- The disk ----

# format NAME : image and a store of its own
format() {
	rm -f "$work/$1.img"
	"$format_program" --size=16M --key-file="$work/key" --trusted-store="$(store "$1")" "$work/$1.img" >"$work/format.out"
}

store() {
	case $kind,$1 in
	file,*) echo "file:$work/$1.store" ;;
	tpm2,d) echo tpm2:0x01800001 ;;
	*) echo tpm2:0x01800002 ;;
	esac
}

# up STORE-OF [OPTION...] : disk d
up() {
	local status=0 of=$1

	shift
	mkdir -p "$work/d.mnt"
	on_exit "mls_kill d"
	"$fuse_program" --key-file="$work/key" --trusted-store="$(store "$of")" "$@" "$work/d.img" "$work/d.mnt" \
		>"$work/output" 2>&1 || status=$?
	return "$status"
}

# refused STATUS TEXT STORE-OF [OPTION...]
refused() {
	local expected=$1 text=$2 status=0 sum

	shift 2
	sum=$(cksum <"$work/d.img")
	up "$@" || status=$?
	[ "$status" = "$expected" ] || { cat "$work/output"; die "$kind: expected status $expected, found $status: $*"; }
	expect_output "$text"
	[ "$sum" = "$(cksum <"$work/d.img")" ] || die "$kind: a refusal changed BACKING"
}

# accepted TEXT [OPTION...]
accepted() {
	local text=$1

	shift
	up d "$@" || { cat "$work/output"; die "$kind: refused: $*"; }
	[ -z "$text" ] || expect_output "$text"
}

put() {
	printf '%s' "$1" | dd of="$(image d)" bs=4096 conv=notrunc,fsync status=none
}

holds() {
	local found

	found=$(head -c "${#1}" "$(image d)")
	[ "$found" = "$1" ] || die "$kind: expected '$1', found '$found'"
}

# checked STATUS TEXT : what fsck says, and dump
checked() {
	expect_status "$1" "$fsck" --key-file="$work/key" --trusted-store="$(store "${3:-d}")" "$work/d.img"
	expect_output "$2"
}

dumped() {
	expect_status "$1" "$dump" --key-file="$work/key" --trusted-store="$(store "${3:-d}")" "$work/d.img"
	expect_output "$2"
}

lose_store() {
	case $kind in
	file) rm "$work/d.store" ;;
	tpm2) tpm_tool tpm2_nvundefine 0x01800001 ;;
	esac
}

round() {
	format d
	accepted ""
	put monday
	mls_end d
	cp --sparse=always "$work/d.img" "$work/monday.img"
	accepted ""
	holds monday
	put tuesday
	mls_end d
	cp --sparse=always "$work/d.img" "$work/tuesday.img"
	checked 0 clean
	dumped 0 "trusted store"

	# A backup restored.
	cp --sparse=always "$work/monday.img" "$work/d.img"
	refused 5 "expected sync [0-9]*, found sync" d
	expect_output "accept-rollback"
	refused 5 "rollback" d --read-only
	checked 4 "rollback"
	dumped 5 "older than the trusted store"
	accepted "accepted against the trusted store: expected sync [0-9]*, found sync" --accept-rollback
	holds monday
	put wednesday
	mls_end d
	checked 0 clean
	accepted ""
	holds wednesday
	mls_end d
	accepted "wasn't needed" --accept-rollback
	mls_end d
	cp --sparse=always "$work/d.img" "$work/now.img"
	for other in monday tuesday; do		# what was given up doesn't come back
		cp --sparse=always "$work/$other.img" "$work/d.img"
		refused 5 "accept-rollback" d
	done
	cp --sparse=always "$work/now.img" "$work/d.img"

	# A secret more; the store stays right.
	head -c 32 /dev/urandom >"$work/key2"
	expect_status 0 "$key" add --key-file="$work/key" --new-key-file="$work/key2" "$work/d.img"
	accepted ""
	mls_end d
	cp --sparse=always "$work/d.img" "$work/now.img"

	# In use; and kill -9.
	accepted ""
	put killed
	cp --sparse=always "$work/d.img" "$work/clone.img"
	expect_status 6 "$fuse_program" --key-file="$work/key" --trusted-store="$(store d)" "$work/clone.img" "$work/d.mnt"
	mkdir -p "$work/clone.mnt"
	expect_status 6 "$fuse_program" --key-file="$work/key" --trusted-store="$(store d)" "$work/clone.img" \
		"$work/clone.mnt"
	mls_kill d
	for _ in 1 2 3 4 5; do
		accepted ""
		holds killed
		mls_kill d
	done
	cp --sparse=always "$work/d.img" "$work/now.img"

	# A lost store.
	lose_store
	refused 5 "holds nothing" d
	checked 4 store-empty
	dumped 5 "holds nothing"
	accepted "without a word from the trusted store" --accept-rollback
	holds killed
	mls_end d
	checked 0 clean
	accepted ""
	mls_end d
	cp --sparse=always "$work/d.img" "$work/last.img"
	cp --sparse=always "$work/now.img" "$work/d.img"
	refused 5 "accept-rollback" d
	cp --sparse=always "$work/last.img" "$work/d.img"

	# A store of another disk: not accepted either, and whole afterwards.
	mv "$work/d.img" "$work/keep.img"
	format e
	mv "$work/keep.img" "$work/d.img"
	refused 5 "found that of disk" e
	refused 5 "found that of disk" e --accept-rollback
	checked 4 store-foreign e
	dumped 5 "found that of disk" e
	expect_status 0 "$fsck" --key-file="$work/key" --trusted-store="$(store e)" "$work/e.img"
	expect_status 5 "$format_program" --size=16M --key-file="$work/key" --trusted-store="$(store d)" "$work/f.img"
	expect_output "of its own"
	[ ! -e "$work/f.img" ] || die "$kind: a refused format left a file"
	accepted ""
	holds killed
	mls_end d
	say "$kind: as the man page says"
}

# damage COPY... : of the file
damage() {
	for copy; do
		printf '\377\377' | dd of="$work/d.store" bs=1 seek=$((copy * 4096 + 44)) conv=notrunc status=none
	done
}

damaged_file() {
	local copy

	for copy in 0 1; do
		damage "$copy"
		checked 4 store-copy-damaged
		expect_status 1 "$fsck" -p --key-file="$work/key" --trusted-store="$(store d)" "$work/d.img"
		checked 0 clean
		damage "$copy"
		accepted "is damaged"
		mls_end d
		checked 0 clean
	done
	damage 0 1
	refused 5 "accept-rollback" d
	checked 4 store-damaged
	accepted "without a word from the trusted store" --accept-rollback
	holds killed
	mls_end d
	accepted ""
	mls_end d
	printf 'Dear mother, ...' >"$work/d.store"
	refused 5 "not a trusted store" d --accept-rollback
	[ "$(cat "$work/d.store")" = "Dear mother, ..." ] || die "a file that is no store was overwritten"
}

# The TPM's own troubles.
troubled_tpm() {
	accepted ""
	put started
	tpm_end				# it dies under the disk: syncs fail, reads go on
	if put stopped 2>/dev/null; then die "a sync without the TPM returned 0"; fi
	mls_kill d
	refused 1 "no TPM at" d
	checked 8 "no TPM at"
	tpm_start
	accepted ""			# what was synced before is there; "stopped" may be
	[ "$(head -c 7 "$(image d)")" = started ] || holds stopped
	mls_end d
	expect_status 2 "$fuse_program" --key-file="$work/key" --trusted-store=tpm2:7 "$work/d.img" "$work/d.mnt"
	expect_output "NV index"
	tpm_tool tpm2_nvundefine 0x01800001
	tpm_tool tpm2_nvdefine -C o -s 64 -a "ownerread|ownerwrite" 0x01800001
	refused 5 "left alone" d --accept-rollback
	tpm_tool tpm2_nvundefine 0x01800001
	accepted "without a word from the trusted store" --accept-rollback
	mls_end d
}

for kind in $kinds; do
	rm -f "$work"/*.store
	if [ "$kind" = tpm2 ]; then
		export MLSDISK_TCTI="swtpm:path=$work/tpm.sock"
		tpm_start
	fi
	round
	if [ "$kind" = file ]; then damaged_file; else troubled_tpm; fi
done
