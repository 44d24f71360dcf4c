#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# What a serving daemon has given up and what it shows, as the kernel tells it in /proc: privileges, system calls,
# memory, files, environment. And that it can still do all that it must.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires python3
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }

# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK, CAP_SYS_ADMIN, CAP_SYS_RESOURCE (and for LeakSanitizer,
# CAP_SYS_PTRACE)
kept=$((1 << 1 | 1 << 2 | 1 << 14 | 1 << 21 | 1 << 24))
sanitized=false
if grep -q 'fsanitize=[a-z,]*address' "$build/Makefile"; then
	sanitized=true
	kept=$((kept | 1 << 19))
fi

# Every thread: capabilities, no_new_privs and filters are a thread's.
look_at_threads() {
	local pid=$1 task set

	for task in "/proc/$pid/task"/*; do
		task=${task##*/}
		[ "$(status_of "$task" NoNewPrivs)" = 1 ] || die "thread $task may get new privileges"
		for set in CapInh CapPrm CapEff CapAmb; do
			[ $((0x$(status_of "$task" $set) & ~kept)) = 0 ] || die "thread $task: $set $(status_of "$task" $set)"
		done
		if grep -q '^#define HAVE_SECCOMP' "$build/config.h"; then
			[ "$(status_of "$task" Seccomp)" = 2 ] || die "thread $task has no filter"
		fi
	done
}

look_at_process() {
	local pid=$1 limit fd flags

	[ "$(status_of "$pid" Umask)" = 0077 ] || die "umask $(status_of "$pid" Umask)"
	# ASan makes mlock do nothing.
	$sanitized || [ "$(status_of "$pid" VmLck | tr -dc 0-9)" -gt 1000 ] || die "memory isn't locked: $(status_of "$pid" VmLck)"
	limit=$(sed -n 's/^Max core file size *\([^ ]*\) *\([^ ]*\).*/\1 \2/p' "/proc/$pid/limits")
	[ "$limit" = "0 0" ] || die "core files: $limit"
	for fd in "/proc/$pid/fd"/*; do
		fd=${fd##*/}
		[ "$fd" -gt 2 ] || continue	# /dev/null, or what the caller gave
		flags=$(sed -n 's/^flags:[[:space:]]*//p' "/proc/$pid/fdinfo/$fd")
		[ $((flags & 02000000)) != 0 ] ||
			die "file $fd ($(readlink "/proc/$pid/fd/$fd")) would be open in other programs: $flags"
	done
}

# Neither the key nor its hexadecimal form.
look_for_secret() {
	local pid=$1

	python3 - "$work/key" "/proc/$pid/environ" "/proc/$pid/cmdline" <<-'END' || die "the key is in the open"
		import sys
		key = open(sys.argv[1], "rb").read()
		for name in sys.argv[2:]:
		    data = open(name, "rb").read()
		    assert data or name.endswith("environ"), name
		    assert key not in data and key.hex().encode() not in data.lower(), name
	END
}

# As root, in the background and in the foreground.
mls_format d 64M
mls_serve d
pid=$(daemon_pid "$work/d.mnt")
look_at_threads "$pid"
look_at_process "$pid"
look_for_secret "$pid"
dd if=/dev/urandom of="$(image d)" bs=1M count=8 conv=notrunc,fsync status=none || die "can't write"
mls_end d

# By a signal: it unmounts by itself.
mls_serve d
pid=$(daemon_pid "$work/d.mnt")
kill -TERM "$pid"
wait_gone "$pid"
! mountpoint -q "$work/d.mnt" || die "the mount outlived a daemon that ended by SIGTERM"

# The process that unmounts for nobody's daemon.
unmounter_of() {
	local dir

	for dir in /proc/[0-9]*; do
		if [ "$(cat "$dir/comm" 2>/dev/null)" = mlsdisk-unmount ] &&
			[ "$(stat -c %U "$dir" 2>/dev/null)" = nobody ]; then
			echo "${dir#/proc/}"
			return 0
		fi
	done
	return 1
}

look_at_unmounter() {
	local pid=$1 fd

	[ "$(tr -d '\0' <"/proc/$pid/cmdline")" = mlsdisk-unmount ] || die "ps shows the one that unmounts as a daemon"
	for fd in "/proc/$pid/fd"/*; do
		case ${fd##*/} in
		[012]) [ "$(readlink "$fd")" = /dev/null ] || die "the one that unmounts has $(readlink "$fd") open" ;;
		3) [[ $(readlink "$fd") == socket:* ]] || die "the one that unmounts has $(readlink "$fd") open" ;;
		*) die "the one that unmounts has $(readlink "$fd") open" ;;
		esac
	done
}

# Without standard files, BACKING and the pipe to the parent don't get their numbers: the daemon says that it's ready,
# and what is written is there.
mkdir -p "$work/d.mnt"
mapfile -t args < <(serve_args d)
timeout 60 "$fuse_program" "${args[@]}" "$work/d.img" "$work/d.mnt" <&- >&- 2>&- || die "status $? without standard files"
dd if=/dev/urandom of="$work/sample" bs=1M count=1 status=none
dd if="$work/sample" of="$(image d)" conv=notrunc,fsync status=none
mls_end d
mls_serve d
cmp -n 1048576 "$work/sample" "$(image d)" || die "what was written without standard files is lost"
mls_end d

# Nobody else: not to be traced or looked into by another process of the same user, as confined as root's: another
# process unmounts, be it ours or, with auto_unmount, fusermount3.
if id nobody >/dev/null 2>&1 && command -v runuser >/dev/null && runuser -u nobody -- test -x "$fuse_program"; then
	chmod 711 "$work"
	mkdir "$work/n" "$work/n/mnt"
	cp "$work/d.img" "$work/key" "$work/n/"
	chown -R nobody "$work/n"
	on_exit "mls_kill n/mnt; fusermount3 -u -z $work/n/mnt"
	for options in "" "-oauto_unmount"; do
		# shellcheck disable=SC2086  # none or one
		expect_status 0 runuser -u nobody -- "$fuse_program" --key-file="$work/n/key" --trusted-store=none $options \
			"$work/n/d.img" "$work/n/mnt"
		pid=$(daemon_pid "$work/n/mnt")
		[ "$(stat -c %U "/proc/$pid/fd")" = root ] || die "dumpable: /proc/$pid belongs to its user"
		if runuser -u nobody -- cat "/proc/$pid/environ" >/dev/null 2>&1; then
			die "another process of the user reads the daemon's environment"
		fi
		[ "$(status_of "$pid" CapPrm)" = 0000000000000000 ] || die "nobody has capabilities"
		if grep -q '^#define HAVE_SECCOMP' "$build/config.h"; then	# else the engine's threads aren't reached
			look_at_threads "$pid"
		fi
		unmounter=
		if [ -z "$options" ]; then
			unmounter=$(unmounter_of) || die "no process to unmount for nobody"
			look_at_unmounter "$unmounter"
			kill -TERM "$unmounter"		# as a service manager does to all of a service
		fi
		kill -TERM "$pid"
		wait_gone "$pid"
		for ((i = 0; i < 100; i++)); do
			mountpoint -q "$work/n/mnt" || break
			sleep 0.05
		done
		! mountpoint -q "$work/n/mnt" || die "the mount outlived nobody's daemon ($options)"
		[ -z "$unmounter" ] || wait_gone "$unmounter"
	done
	# Unmounted by its user; and killed, which leaves the mount to the next start. None stays behind.
	for way in unmount kill clear; do
		expect_status 0 runuser -u nobody -- "$fuse_program" --key-file="$work/n/key" --trusted-store=none \
			"$work/n/d.img" "$work/n/mnt"
		pid=$(daemon_pid "$work/n/mnt")
		unmounter=$(unmounter_of) || die "no process to unmount for nobody"
		case $way in
		kill) kill -9 "$pid" ;;
		*) runuser -u nobody -- fusermount3 -u "$work/n/mnt" ;;
		esac
		wait_gone "$pid"
		wait_gone "$unmounter"
	done
	! mountpoint -q "$work/n/mnt" || die "the mount outlived nobody's daemon"
else
	say "not tried as another user: it can't reach $fuse_program"
fi

# A limit on locked memory that can't be raised is told, and the disk is served all the same.
if command -v capsh >/dev/null; then
	expect_status 0 capsh --drop=cap_ipc_lock,cap_sys_resource -- -c \
		"ulimit -l 64; exec '$fuse_program' --key-file='$work/key' --trusted-store='file:$work/d.store' '$work/d.img' '$work/d.mnt'"
	expect_output "can't lock memory"
	expect_output "I/O flusher"
	on_exit "mls_kill d"
	mls_end d
fi

# The tools: seen while they wait for a passphrase that never comes (a FIFO as key file).
mkfifo "$work/fifo"
for tool in format key fsck dump; do
	case $tool in
	format) args=(--size=16M "$work/new.img") ;;
	key) args=(add "$work/d.img") ;;
	fsck) args=("$work/d.img") ;;
	dump) args=("$work/d.img") ;;
	esac
	"$build/mlsdisk-$tool" --key-file="$work/fifo" "${args[@]}" >"$work/output" 2>&1 &
	pid=$!
	for ((i = 0; i < 200; i++)); do
		[ "$(status_of "$pid" NoNewPrivs)" != 1 ] || break
		[ -d "/proc/$pid" ] || break
		sleep 0.02
	done
	[ "$(status_of "$pid" NoNewPrivs)" = 1 ] || { cat "$work/output"; die "mlsdisk-$tool may get new privileges"; }
	[ "$(status_of "$pid" Umask)" = 0077 ] || die "mlsdisk-$tool: umask $(status_of "$pid" Umask)"
	grep -q '^Max core file size *0 *0 ' "/proc/$pid/limits" || die "mlsdisk-$tool may leave a core"
	kill "$pid"
	wait "$pid" 2>/dev/null || true
done
