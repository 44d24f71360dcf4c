#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# quickstart.sh - the README's two commands, on Debian 12 or later, as root.
#
#   sudo ./quickstart.sh          install what is needed, build, leave a mounted ext4 on a secure disk
#   sudo ./quickstart.sh down     take it down again; the data stays
#   sudo ./quickstart.sh check    install what is needed, build, run all tests
#
# The programs run from build/, nothing is installed but Debian packages. Disk, key and register are in
# $MLSDISK_QUICKSTART_DIR (default /var/lib/mlsdisk-quickstart); $MLSDISK_QUICKSTART_SIZE is the disk's size (4G).
# Every step may be repeated, also after it was interrupted or the machine crashed.

set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$top/build
state=${MLSDISK_QUICKSTART_DIR:-/var/lib/mlsdisk-quickstart}
size=${MLSDISK_QUICKSTART_SIZE:-4G}
disk=$state/disk.img
key=$state/disk.key
store=$state/trusted-store
secure=$state/secure		# image.raw appears here
data=$state/data		# and its ext4 here
jobs=$(nproc)

packages_build=(build-essential autoconf automake libtool pkg-config libssl-dev liburing-dev libfuse3-dev fuse3 check
	mount e2fsprogs)
packages_check=(xfsprogs fio python3 clang mandoc jq shellcheck xz-utils libblkid-dev
	libseccomp-dev libtss2-dev swtpm swtpm-tools tpm2-tools)
packages_optional=(libipsec-mb-dev)	# amd64 only; without it AES-GCM is OpenSSL's

say() { printf '%s\n' "$*"; }
die() {
	printf 'quickstart.sh: %s\n' "$*" >&2
	exit 1
}

# ---- Packages and build ------------------------------------------------------------------------------------------

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
	local package
	local -a missing=()

	command -v apt-get >/dev/null || {
		say "No apt-get here: install by hand what the build misses (Debian's names: $*)"
		return 0
	}
	for package; do
		installed "$package" || missing+=("$package")
	done
	for package in "${packages_optional[@]}"; do
		installed "$package" || { [ ! -e "$build/no-$package" ] && missing+=("$package"); } || true
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	say "Installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update
	for package in "${packages_optional[@]}"; do
		if [[ " ${missing[*]} " == *" $package "* ]] && ! apt-cache show "$package" >/dev/null 2>&1; then
			mkdir -p "$build"
			touch "$build/no-$package"
			mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -vxF "$package")
		fi
	done
	[ "${#missing[@]}" -eq 0 ] ||
		apt-get -q -y --no-install-recommends -o Acquire::Retries=3 install "${missing[@]}"
}

bootstrap() {
	cd "$top"
	[ ! -f config.status ] || make -s distclean	# configured in the tree once: build/ needs it clean
	if [ ! -x configure ] ||
		[ -n "$(find . -path ./build -prune -o \( -name configure.ac -o -name '*.am' \) -newer configure -print)" ]; then
		autoreconf -fi
	fi
}

# build_in DIR CONFIGURE-OPTION... : what another version left in DIR is thrown away if it doesn't build.
build_in() {
	local dir=$1 try

	shift
	for try in 1 2; do
		mkdir -p "$dir"
		cd "$dir"
		if { [ -f Makefile ] && [ ! "$top/configure" -nt Makefile ] && [ "$*" = "$(cat options 2>/dev/null)" ]; } ||
			{ "$top/configure" -q "$@" && printf '%s' "$*" >options; }; then
			make -s -j"$jobs" all && return 0
		fi
		[ "$try" = 1 ] || return 1
		find "$dir" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -rf {} +
	done
}

# Under sudo the tree belongs to somebody, who wants to delete build/ again.
give_back() { chown -R --reference="$top" "$build" "$top"/{configure,config.h.in,aclocal.m4,autom4te.cache,build-aux,m4} \
	2>/dev/null || true; }

# Functions are run as processes of their own wherever their failure is looked at: a shell that looks doesn't stop
# at errors inside.
apart() { bash "$top/quickstart.sh" --apart "$@"; }

# quietly LOG FUNCTION... : its output only if it fails
quietly() {
	local log=$1

	shift
	mkdir -p "$(dirname "$log")"
	apart "$@" >"$log" 2>&1 || {
		tail -n 40 "$log"
		return 1
	}
}

# ---- The disk, up and down ---------------------------------------------------------------------------------------

# The process that serves $secure.
daemon_pid() {
	local dir argv

	for dir in /proc/[0-9]*; do
		mapfile -d '' -t argv 2>/dev/null <"$dir/cmdline" || continue
		if [ "${#argv[@]}" -gt 1 ] && [[ ${argv[0]} == *mlsdisk-fuse ]] && [ "${argv[-1]}" = "$secure" ]; then
			echo "${dir#/proc/}"
			return 0
		fi
	done
	return 1
}

is_mounted() { awk -v place="$1" '$5 == place { found = 1 } END { exit !found }' /proc/self/mountinfo; }

# Loop devices on image.raw, also on that of a dead mount.
loops() {
	losetup --list --noheadings --output NAME,BACK-FILE |
		awk -v file="$secure/image.raw" '$2 == file { print $1 }'
}

is_up() { is_mounted "$data" && daemon_pid >/dev/null && ls "$data" >/dev/null 2>&1 && [ -f "$secure/image.raw" ]; }

# wait_until SECONDS COMMAND... : true soon enough?
wait_until() {
	local tries=$(($1 * 20)) i

	shift
	for ((i = 0; i < tries; i++)); do
		if "$@"; then
			return 0
		fi
		sleep 0.05
	done
	return 1
}

no_loops() { [ -z "$(loops)" ]; }
daemon_gone() { ! [ -d "/proc/$1" ]; }

# In this order: each waits for what is above it. The unmount returns before the daemon's last sync has, so its
# process is waited for.
take_down() {
	local loop pid

	pid=$(daemon_pid) || pid=
	while is_mounted "$data"; do
		umount "$data" || { [ -z "$pid" ] && umount -l "$data"; } || die "$data is in use: end what uses it, then again"
	done
	for loop in $(loops); do
		losetup -d "$loop"
	done
	wait_until 30 no_loops || die "a loop device is still in use: $(loops | tr '\n' ' ')"
	while is_mounted "$secure"; do
		fusermount3 -u "$secure" 2>/dev/null || { [ -z "$pid" ] && fusermount3 -u -z "$secure"; } ||
			die "$secure is in use: end what uses it, then again"
	done
	if [ -n "$pid" ]; then
		wait_until 120 daemon_gone "$pid" || die "the daemon (process $pid) doesn't end"
	fi
}

make_disk() {
	install -d -m 0700 "$state"
	[ -s "$key" ] || (
		umask 077
		head -c 32 /dev/urandom >"$key.new"
		sync "$key.new"
		mv "$key.new" "$key"
	)
	if [ ! -e "$disk" ]; then
		rm -f "$disk.new" "$store"*
		"$build/mlsdisk-format" --size="$size" --key-file="$key" --trusted-store="file:$store" "$disk.new" >/dev/null
		mv "$disk.new" "$disk"
	fi
}

put_up() {
	local loop type

	mkdir -p "$secure" "$data" 2>/dev/null || true
	"$build/mlsdisk-fuse" --key-file="$key" --trusted-store="file:$store" "$disk" "$secure"
	loop=$(losetup --show -f --direct-io=on --sector-size 4096 "$secure/image.raw")
	type=$(blkid -p -o value -s TYPE "$loop" 2>/dev/null || true)
	case $type in
	'') mkfs.ext4 -q "$loop" ;;
	ext4) e2fsck -p "$loop" >/dev/null || [ $? -le 1 ] || die "e2fsck -p $loop found what it can't repair by itself" ;;
	*) die "$loop holds $type, expected ext4" ;;
	esac
	mount "$loop" "$data"
	say "An ext4 file system on a secure disk is mounted:

  files            $data           (ext4 on $loop)
  plaintext disk   $secure/image.raw
  kept by the host $disk    ($size, thin; all that others may see)
  key              $key
  trusted store    $store   (on a real host: outside the host's reach)

Take it down with: sudo $0 down      The data stays; sudo $0 brings it back."
}

need_root() { [ "$(id -u)" = 0 ] || die "needs root: sudo $0 ${1-}"; }

up() {
	need_root
	quietly "$build/logs/packages.log" install_packages "${packages_build[@]}" || die "installing packages failed"
	say "Building in $build ..."
	quietly "$build/logs/bootstrap.log" bootstrap || die "autoreconf failed"
	quietly "$build/logs/build.log" build_in "$build" || die "the build failed"
	give_back
	modprobe -q -a fuse loop 2>/dev/null || true
	[ -c /dev/fuse ] || die "no /dev/fuse: this kernel has no FUSE, or this container isn't given it"
	if is_up; then
		say "It's up already: ext4 at $data; take it down with: sudo $0 down"
		return
	fi
	take_down		# what a crash or an interrupted start left
	make_disk
	put_up
}

down() {
	need_root down
	if ! is_mounted "$data" && ! is_mounted "$secure" && ! daemon_pid >/dev/null && no_loops; then
		say "It's down already."
		return
	fi
	take_down
	say "Down. The data is kept in $disk; sudo $0 brings it back."
}

# ---- All tests ---------------------------------------------------------------------------------------------------

passed=0 failed=0
logs=$build/logs

# The sums in the summaries that automake's harness prints. (A failed test's log has its numbers once more.)
count() {
	local log=$1 word=$2

	awk -v word="$word:" '
		/^Testsuite summary for/ { on = 1 }
		on && $1 == "#" && $2 == word { sum += $3 }
		on && $1 == "#" && $2 == "ERROR:" { on = 0 }
		END { print sum + 0 }' "$log"
}

# step NAME FUNCTION... : one line, and the end of the log if it failed. What fails is counted, and the steps go on that
# don't need it; step_ok tells of the last one.
step() {
	local name=$1 began=$SECONDS log=$logs/$1.log ok=PASS nr_failed

	step_ok=
	shift
	mkdir -p "$logs"
	apart "$@" >"$log" 2>&1 </dev/null || ok=FAIL
	nr_failed=$(($(count "$log" FAIL) + $(count "$log" ERROR) + $(count "$log" XPASS)))
	if [ "$ok" = FAIL ] && [ "$nr_failed" = 0 ]; then
		nr_failed=1
	fi
	[ "$nr_failed" = 0 ] || ok=FAIL
	passed=$((passed + $(count "$log" PASS)))
	failed=$((failed + nr_failed))
	printf '%s  %-12s %4d tests, %4d s\n' "$ok" "$name" "$(count "$log" TOTAL)" $((SECONDS - began))
	if [ "$ok" = FAIL ]; then
		grep -E '^(FAIL|ERROR|XPASS): ' "$log" | sort -u || true
		tail -n 40 "$log" | sed 's/^/    /'
		say "    (all of it: $log)"
	else
		step_ok=yes
	fi
}

# Logs of failed tests go into the step's own log.
run_check() {
	local dir=$1

	shift
	cd "$dir"
	VERBOSE=1 make -s "$@"
}

build_and_check() {
	local dir=$1

	shift
	build_in "$dir" "$@"
	run_check "$dir" -j"$jobs" check
}

# Under TSan everything is some ten times slower, and tests without threads have nothing to find.
build_and_check_threads() {
	local dir=$1
	local -a tests

	shift
	build_in "$dir" "$@"
	cd "$top"
	mapfile -t tests < <(grep -lE 'pthread_create|mls_inspect_check_data' tests/unit/*/test_*.c | sed 's/\.c$//')
	run_check "$dir" -j"$jobs" check TESTS="${tests[*]}"
}

# The sanitizers' and libFuzzer's libraries are a package of their own, named after clang's version.
install_clang_runtime() {
	local package

	package=libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev
	if command -v apt-cache >/dev/null && apt-cache show "$package" >/dev/null 2>&1; then
		install_packages "$package"
	fi
}

install_for_check() {
	install_packages "$@"
	install_clang_runtime
}

# A few seconds for each target: enough to load its corpus and see that the fuzzers live.
fuzz() { FUZZ_SECONDS=4 run_check "$build/address" fuzz; }

# What the campaigns try at length was tried above; a sanitizer, and a tree from the tarball, see a part of it.
address() {
	MLS_OPS=2 MLS_STATES=5000 MLS_STEPS=100 build_and_check "$build/address" --enable-werror --enable-fuzzing \
		CC=clang --enable-sanitizers=address,undefined
}

distcheck() { MLS_OPS=1 MLS_STATES=500 MLS_STEPS=100 MLS_THIN=64 run_check "$build" -j"$jobs" distcheck; }

end_to_end() {
	modprobe -q -a fuse loop 2>/dev/null || true
	MLS_E2E=1 run_check "$build" check-e2e
}

# The builds, one by one, and what each of them checks.
check_builds() {
	step unit build_and_check "$build" --enable-werror
	if [ -n "$step_ok" ]; then
		step end-to-end end_to_end
	fi
	step address address
	if [ -n "$step_ok" ]; then
		step fuzz fuzz
	fi
	step thread build_and_check_threads "$build/thread" --enable-werror --enable-sanitizers=thread
	step distcheck distcheck
}

check() {
	local began=$SECONDS

	need_root check
	step packages install_for_check "${packages_build[@]}" "${packages_check[@]}"
	step bootstrap bootstrap
	if [ -n "$step_ok" ]; then
		check_builds
	fi
	give_back
	say "$((SECONDS - began)) s in all"
	say "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}

case ${1-up} in
up) up ;;
down) down ;;
check) check ;;
--apart)
	shift
	"$@"
	;;
*)
	sed -n '4,12s/^# \{0,1\}//p' "$0"
	[[ ${1-} == --help || ${1-} == help ]] || exit 2
	;;
esac
