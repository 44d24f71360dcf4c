# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
#
# functions.sh - what the end-to-end tests share. Sourced by each, which runs as root in a directory of its own.
#
# Each test makes disks in $work, mounts them with mls_serve and leaves through a trap that unmounts, detaches and
# waits for daemons, whatever went wrong. Programs come from the build tree ($MLS_BUILD_DIR; automake's tests run there).

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

build=${MLS_BUILD_DIR:-$PWD}
fuse_program=$build/mlsdisk-fuse
format_program=$build/mlsdisk-format
# shellcheck disable=SC2034  # used by the tests
probe=$build/tests/fuse/image_probe
work=
cleanup_steps=()

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { say "FAILED: $*"; exit 1; }

# Run on leaving, last one first.
on_exit() {
	local step

	for step in "${cleanup_steps[@]}"; do
		[ "$step" != "$*" ] || return 0
	done
	cleanup_steps+=("$*")
}

leave() {
	local status=$? i

	set +e
	for ((i = ${#cleanup_steps[@]} - 1; i >= 0; i--)); do
		eval "${cleanup_steps[i]}" >/dev/null 2>&1
	done
	exit "$status"
}

# A machine where this can't run skips it, unless somebody counts on it (MLS_E2E=1, as quickstart.sh check sets).
cannot_run() {
	say "can't run here: $*"
	[ "${MLS_E2E:-0}" = 0 ] && exit 77
	exit 1
}

requires() {
	local tool

	for tool; do
		command -v "$tool" >/dev/null || cannot_run "$tool isn't installed"
	done
}

start() {
	[ "$(id -u)" = 0 ] || cannot_run "not root"
	[ -c /dev/fuse ] || cannot_run "no /dev/fuse"
	requires losetup mount umount fusermount3
	[ -x "$fuse_program" ] || cannot_run "$fuse_program isn't built"
	trap leave EXIT
	trap 'exit 1' INT TERM HUP
	work=$(mktemp -d "${MLS_E2E_DIR:-/var/tmp}/mlsdisk-e2e.XXXXXX")
	on_exit "rm -rf --one-file-system '$work'"
	head -c 32 /dev/urandom >"$work/key"
	# A coverage build: what other users' daemons have executed is to be added to what root's have.
	[ -z "$(find "$build/src/fuse" -name '*.gcda' -print -quit)" ] || chmod -R a+rwX "$build/src"
}

# expect_status STATUS COMMAND... : its output goes to $work/output
expect_status() {
	local expected=$1 found=0

	shift
	"$@" >"$work/output" 2>&1 || found=$?
	[ "$found" = "$expected" ] || {
		cat "$work/output"
		die "expected status $expected, found $found: $*"
	}
}

expect_output() {
	grep -q -- "$1" "$work/output" || {
		cat "$work/output"
		die "expected '$1' in the output above"
	}
}

# The process that serves mount point $1, if there's one. /proc, for procps may not be installed.
daemon_pid() {
	local dir argv

	for dir in /proc/[0-9]*; do
		mapfile -d '' -t argv 2>/dev/null <"$dir/cmdline" || continue
		if [ "${#argv[@]}" -gt 1 ] && [[ ${argv[0]} == *mlsdisk-fuse ]] && [ "${argv[-1]}" = "$1" ]; then
			echo "${dir#/proc/}"
			return 0
		fi
	done
	return 1
}

wait_gone() {
	local i
	local -a tasks

	for ((i = 0; i < 1200; i++)); do
		[ -d "/proc/$1" ] || return 0
		# A zombie is gone, too, but not while it is one in its first thread only.
		tasks=("/proc/$1/task"/*)
		if [ "${#tasks[@]}" = 1 ] && [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null || echo Z)" = Z ]; then
			return 0
		fi
		sleep 0.05
	done
	die "process $1 is still there after a minute"
}

# mls_format NAME SIZE [OPTION...] : $work/NAME.img with its trusted store in $work/NAME.store
mls_format() {
	local name=$1 size=$2

	shift 2
	"$format_program" --size="$size" --key-file="$work/key" --trusted-store="file:$work/$name.store" --force "$@" \
		"$work/$name.img" >"$work/format.out" 2>&1 || {
		cat "$work/format.out"
		die "mlsdisk-format"
	}
}

serve_args() { printf '%s\n' --key-file="$work/key" --trusted-store="file:$work/$1.store"; }

# mls_serve NAME [OPTION...] : at $work/NAME.mnt; its status is mlsdisk-fuse's
mls_serve() {
	local name=$1 status=0
	local -a args

	shift
	mkdir -p "$work/$name.mnt" 2>/dev/null || true
	mapfile -t args < <(serve_args "$name")
	on_exit "mls_kill $name"
	"$fuse_program" "${args[@]}" "$@" "$work/$name.img" "$work/$name.mnt" >"$work/serve.out" 2>&1 || status=$?
	[ "$status" = 0 ] || cat "$work/serve.out"
	return "$status"
}

image() { printf '%s\n' "$work/$1.mnt/image.raw"; }

# The orderly end: unmount, then wait for the process.
mls_end() {
	local pid

	pid=$(daemon_pid "$work/$1.mnt") || die "nobody serves $1"
	fusermount3 -u "$work/$1.mnt"
	wait_gone "$pid"
}

# The power cut: kill -9, and clear the mount.
mls_kill() {
	local pid

	if pid=$(daemon_pid "$work/$1.mnt"); then
		kill -9 "$pid"
		wait_gone "$pid"
	fi
	fusermount3 -u -z "$work/$1.mnt" 2>/dev/null || true
}

# loop_attach NAME SECTOR_BYTES : sets $loop
loop_attach() {
	loop=$(losetup --show -f --direct-io=on --sector-size "$2" "$(image "$1")")
	on_exit "loop_cleanup $loop"
}

# At exit, if it is still ours: its number may be somebody else's by now.
loop_cleanup() {
	case $(losetup --noheadings --output BACK-FILE "$1" 2>/dev/null) in
	"$work"/*) losetup -d "$1" ;;
	esac
}

# The kernel detaches a moment later, and only then lets go of image.raw.
loop_detach() {
	local i

	losetup -d "$1"
	for ((i = 0; i < 200; i++)); do
		losetup "$1" >/dev/null 2>&1 || return 0
		sleep 0.05
	done
	die "$1 is still attached"
}

milliseconds() { date +%s%3N; }
