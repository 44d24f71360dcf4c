#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# fio-compare.sh - the secure disk against the plain file, on one machine in one run.
#
#   bench/fio-compare.sh [--size=4G] [--runtime=10] [--repeats=3] [--dir=/var/tmp] [--cells=REGEX] [--no-targets]
#
# Both files lie in a directory of their own below --dir and are written once from end to end before anything is
# measured. Then each cell runs on one right after the other, with the order changed at each repeat: neighbours on the
# same storage come and go, so only ratios of runs side by side mean anything. The ratio shown is the median of the
# repeats' ratios. At the end the daemon is killed under a load of random writes, and the reopening timed.
#
# Exit status: 0; 1: a target was missed (never with --no-targets) or something failed; 2: usage; 77: can't run here.
#
# MLSDISK_FORMAT and MLSDISK_FUSE name the programs; default: those in MLS_BUILD_DIR (default: build/ beside bench/,
# else the current directory).

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
size=4G runtime=10 repeats=3 dir=/var/tmp cells=. targets=yes

# name, fio's rw, bs, iodepth, wanted ratio (-: none)
all_cells="seq-write	write		1M	16	0.40
seq-read	read		1M	16	-
rnd-write	randwrite	4k	32	1.00
rnd-read	randread	4k	32	0.35"
wanted_rss_mib=512
wanted_reopen_ms=2000

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
die() {
	note "fio-compare.sh: $*"
	exit 1
}

usage() {
	sed -n 's|^#   bench/|usage: bench/|p' "${BASH_SOURCE[0]}" >&2
	exit 2
}

for arg; do
	case $arg in
	--size=?*) size=${arg#*=} ;;
	--runtime=[1-9]*) runtime=${arg#*=} ;;
	--repeats=[1-9]*) repeats=${arg#*=} ;;
	--dir=?*) dir=${arg#*=} ;;
	--cells=?*) cells=${arg#*=} ;;
	--no-targets) targets=no ;;
	*) usage ;;
	esac
done

# ---- What is needed ----------------------------------------------------------------------------------------------

build=${MLS_BUILD_DIR:-$top/build}
[ -x "$build/mlsdisk-fuse" ] || build=$PWD
format_program=${MLSDISK_FORMAT:-$build/mlsdisk-format}
fuse_program=${MLSDISK_FUSE:-$build/mlsdisk-fuse}

cannot_run() {
	note "fio-compare.sh: can't run here: $*"
	exit 77
}

for tool in fio jq fusermount3 "$format_program" "$fuse_program"; do
	command -v "$tool" >/dev/null || cannot_run "$tool isn't there"
done
[ -c /dev/fuse ] || cannot_run "no /dev/fuse"

# ---- Up and down -------------------------------------------------------------------------------------------------

work=
load_pid=

# The process that serves our mount point.
daemon_pid() {
	local proc argv

	for proc in /proc/[0-9]*; do
		mapfile -d '' -t argv 2>/dev/null <"$proc/cmdline" || continue
		if [ "${#argv[@]}" -gt 1 ] && [[ ${argv[*]} == *"${fuse_program##*/}"* ]] && [ "${argv[-1]}" = "$work/mnt" ]; then
			echo "${proc#/proc/}"
			return 0
		fi
	done
	return 1
}

wait_gone() {
	local i

	for ((i = 0; i < 1200; i++)); do
		[ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null || echo Z)" != Z ] || return 0
		sleep 0.05
	done
	die "process $1 is still there after a minute"
}

kill_daemon() {
	local pid

	if pid=$(daemon_pid); then
		kill -9 "$pid"
		wait_gone "$pid"
	fi
	fusermount3 -u -z "$work/mnt" 2>/dev/null || true
}

leave() {
	local status=$?

	set +e
	trap - EXIT INT TERM HUP
	if [ -n "$load_pid" ]; then
		kill "$load_pid" 2>/dev/null
	fi
	if [ -n "$work" ]; then
		kill_daemon
		rm -rf --one-file-system "$work"
	fi
	exit "$status"
}

milliseconds() { date +%s%3N; }

# Returns when image.raw is ready; sets serve_ms.
serve() {
	local began

	began=$(milliseconds)
	"$fuse_program" --key-file="$work/key" --trusted-store="file:$work/store" "$work/secure.img" "$work/mnt" \
		>"$work/fuse.out" 2>&1 </dev/null || {
		cat "$work/fuse.out" >&2
		die "$fuse_program failed"
	}
	serve_ms=$(($(milliseconds) - began))
	[ -f "$work/mnt/image.raw" ] || die "$work/mnt/image.raw isn't there"
}

file_of() {
	case $1 in
	plain) echo "$work/plain.img" ;;
	secure) echo "$work/mnt/image.raw" ;;
	esac
}

# ---- Measuring ---------------------------------------------------------------------------------------------------

# run_fio FILE OPTION... : MiB/s
run_fio() {
	local file=$1

	shift
	fio --name=cell --filename="$file" --size="$size" --ioengine=io_uring --direct=1 --numjobs=1 --randrepeat=0 \
		--allow_file_create=0 --output-format=json --output="$work/fio.json" "$@" >"$work/fio.out" 2>&1 || {
		cat "$work/fio.out" "$work/fio.json" >&2
		die "fio $* on $file failed"
	}
	jq -r '.jobs[0] | (.read.bw_bytes + .write.bw_bytes) / 1048576' "$work/fio.json"
}

# Writes end with an fsync, so that a cell doesn't leave its work to the next one.
run_cell() {
	local where=$1 rw=$2 bs=$3 depth=$4
	local -a fsync=()

	[[ $rw != *write ]] || fsync=(--end_fsync=1)
	run_fio "$(file_of "$where")" --rw="$rw" --bs="$bs" --iodepth="$depth" --time_based --runtime="$runtime" \
		"${fsync[@]}"
}

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

measure() {
	local repeat name rw bs depth wanted order where plain secure

	for ((repeat = 1; repeat <= repeats; repeat++)); do
		order="plain secure"
		[ $((repeat % 2)) = 1 ] || order="secure plain"
		while read -r name rw bs depth wanted; do
			for where in $order; do
				run_cell "$where" "$rw" "$bs" "$depth" >"$work/$where.mibs"
			done
			plain=$(cat "$work/plain.mibs")
			secure=$(cat "$work/secure.mibs")
			note "$(printf '%d/%d  %-10s plain %8.1f   secure %8.1f MiB/s' "$repeat" "$repeats" "$name" "$plain" "$secure")"
			printf '%s\t%s\t%s\n' "$name" "$plain" "$secure" >>"$work/results"
		done <"$work/cells"
	done
}

peak_rss_mib() {
	local pid

	pid=$(daemon_pid) || die "the daemon is gone"
	awk '$1 == "VmHWM:" { print int(($2 + 1023) / 1024) }' "/proc/$pid/status"
}

# Killed while random writes come in, with a sync every 1000 of them; sets serve_ms.
kill_and_reopen() {
	fio --name=load --filename="$work/mnt/image.raw" --size="$size" --ioengine=io_uring --direct=1 --rw=randwrite --bs=4k \
		--iodepth=32 --fsync=1000 --time_based --runtime=60 --allow_file_create=0 >"$work/load.out" 2>&1 &
	load_pid=$!
	sleep 3
	kill -0 "$load_pid" 2>/dev/null || die "the load ended before its time: $(tail -n 3 "$work/load.out")"
	kill_daemon
	kill "$load_pid" 2>/dev/null || true	# image.raw is gone: it has failed, or is about to
	wait "$load_pid" 2>/dev/null || true
	load_pid=
	serve
	run_fio "$(file_of secure)" --rw=randread --bs=4k --iodepth=32 --io_size=4M >/dev/null
}

# ---- Reporting ---------------------------------------------------------------------------------------------------

missed=0

# verdict VALUE OPERATOR WANTED : the last columns of a line
verdict() {
	if [ "$3" = - ]; then
		say ""
	elif awk -v value="$1" -v wanted="$3" -v op="$2" \
		'BEGIN { exit !(op == ">=" ? value >= wanted : value < wanted) }'; then
		say "$2 $3   ok"
	else
		say "$2 $3   MISSED"
	fi
}

line() {
	say "${1%"${1##*[! ]}"}"	# without the blanks of an empty last column
	case $1 in
	*MISSED) missed=$((missed + 1)) ;;
	esac
}

report() {
	local name rw bs depth wanted plain secure ratio

	say ""
	say "$size disk, $runtime s a cell, medians of $repeats, $(nproc) cores, $(date -u +%Y-%m-%d)"
	printf '%-22s %12s %12s %8s   %s\n' cell "plain MiB/s" "secure MiB/s" ratio wanted
	while read -r name rw bs depth wanted; do
		plain=$(awk -v n="$name" '$1 == n { print $2 }' "$work/results" | median)
		secure=$(awk -v n="$name" '$1 == n { print $3 }' "$work/results" | median)
		ratio=$(awk -v n="$name" '$1 == n { print ($2 > 0 ? $3 / $2 : 0) }' "$work/results" | median)
		line "$(printf '%-22s %12.1f %12.1f %8.2f   %s' "$name $bs qd$depth" "$plain" "$secure" "$ratio" \
			"$(verdict "$ratio" '>=' "$wanted")")"
	done <"$work/cells"
	line "$(printf '%-22s %34s   %s' "peak memory" "$rss_mib MiB" "$(verdict "$rss_mib" '<' "$wanted_rss_mib")")"
	line "$(printf '%-22s %34s   %s' "reopen after kill -9" "$serve_ms ms" \
		"$(verdict "$serve_ms" '<' "$wanted_reopen_ms")")"
}

# ---- The run -----------------------------------------------------------------------------------------------------

trap leave EXIT
trap 'exit 1' INT TERM HUP
work=$(mktemp -d "$dir/mlsdisk-bench.XXXXXX")
mkdir "$work/mnt"
printf '%s\n' "$all_cells" | grep -E "^[a-z-]*($cells)" >"$work/cells" || usage
head -c 32 /dev/urandom >"$work/key"

"$format_program" --size="$size" --key-file="$work/key" --trusted-store="file:$work/store" "$work/secure.img" \
	>"$work/format.out" 2>&1 || {
	cat "$work/format.out" >&2
	die "$format_program failed"
}
serve
truncate -s "$size" "$work/plain.img"
for where in plain secure; do
	note "$(printf 'filling %-8s %8.1f MiB/s' "$where" \
		"$(run_fio "$(file_of "$where")" --rw=write --bs=1M --iodepth=16 --end_fsync=1)")"
done
measure
rss_mib=$(peak_rss_mib)
kill_and_reopen
report
if [ "$targets" = yes ] && [ "$missed" -gt 0 ]; then
	die "$missed target(s) missed"
fi
