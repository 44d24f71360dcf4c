#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# The command line: exit statuses, messages, dead mounts, the default disk, mounts of other users.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
mls_format d 64M
mkdir "$work/d.mnt" "$work/other"
mapfile -t args < <(serve_args d)

expect_status 0 "$fuse_program" --help
expect_output "Usage: mlsdisk-fuse"
expect_status 0 "$fuse_program" --version
expect_status 2 "$fuse_program"
expect_status 2 "$fuse_program" --no-such-option "$work/d.img" "$work/d.mnt"
expect_status 2 "$fuse_program" --sync-policy=never "$work/d.img" "$work/d.mnt"
expect_status 2 "$fuse_program" --cache-size=many "$work/d.img" "$work/d.mnt"
expect_status 2 "$fuse_program" "${args[@]}" -o no_such_option "$work/d.img" "$work/d.mnt"
expect_output no_such_option
expect_status 1 "$fuse_program" "${args[@]}" "$work/d.img" "$work/nowhere"
expect_status 1 "$fuse_program" "${args[@]}" "$work/d.img" "$work/key"
expect_status 1 "$fuse_program" "${args[@]}" "$work/nothing.img" "$work/d.mnt"

# Not an MlsDisk; a wrong key; both without a change to BACKING or store.
head -c 1M /dev/urandom >"$work/noise"
sum=$(cat "$work/noise" "$work/d.img" "$work/d.store"* | cksum)
expect_status 3 "$fuse_program" "${args[@]}" "$work/noise" "$work/d.mnt"
expect_output mlsdisk-format
head -c 32 /dev/urandom >"$work/wrong"
expect_status 3 "$fuse_program" --key-file="$work/wrong" --trusted-store="file:$work/d.store" "$work/d.img" "$work/d.mnt"
[ "$sum" = "$(cat "$work/noise" "$work/d.img" "$work/d.store"* | cksum)" ] || die "a refused opening changed something"

# A second user of BACKING, and of the mount point.
mls_serve d
expect_status 6 "$fuse_program" "${args[@]}" "$work/d.img" "$work/other"
expect_output "in use"
expect_status 6 "$fuse_program" "${args[@]}" "$work/d.img" "$work/d.mnt"

# A killed daemon leaves a dead mount; the next start clears it.
pid=$(daemon_pid "$work/d.mnt")
kill -9 "$pid"
wait_gone "$pid"
if ls "$work/d.mnt" 2>/dev/null; then
	die "the mount outlived its daemon"
fi
mls_serve d
mls_end d

# Another user's mount is closed to root, unless allow_other is given.
if id nobody >/dev/null 2>&1 && command -v runuser >/dev/null; then
	chmod 711 "$work"
	mkdir "$work/n"
	chown nobody "$work/d.img" "$work/d.store"* "$work/key" "$work/n"
	mkdir "$work/n/mnt" "$work/n/state"
	chown nobody "$work/n/mnt" "$work/n/state"
	cp "$work/d.img" "$work/key" "$work/n/"
	chown nobody "$work/n"/*
	on_exit "mls_kill n/none; fusermount3 -u -z $work/n/mnt"
	if runuser -u nobody -- test -x "$fuse_program" -a -w /dev/fuse; then
		expect_status 0 runuser -u nobody -- "$fuse_program" --key-file="$work/n/key" --trusted-store=none \
			"$work/n/d.img" "$work/n/mnt"
		runuser -u nobody -- test -w "$work/n/mnt/image.raw" || die "nobody can't use its own mount"
		pid=$(daemon_pid "$work/n/mnt")
		runuser -u nobody -- fusermount3 -u "$work/n/mnt"
		wait_gone "$pid"
	else
		say "not tried as another user: it can't reach $fuse_program"
	fi
fi

# shellcheck disable=SC2016  # the inner bash expands it
# The default disk: made once, found again, not without its key. In a /var/lib of its own.
expect_status 0 unshare --mount --propagation private bash -ec '
	mkdir -p /var/lib/mlsdisk
	mount -t tmpfs none /var/lib/mlsdisk
	gone() { while [ -d "/proc/$1" ]; do sleep 0.05; done; }
	the_daemon() {
		for p in /proc/[0-9]*; do
			mapfile -d "" -t argv 2>/dev/null <"$p/cmdline" || continue
			if [[ ${argv[0]-} == *mlsdisk-fuse ]] && [ "${argv[-1]}" = "$mnt" ]; then echo "${p#/proc/}"; fi
		done
	}
	program=$1 mnt=$2
	"$program" "$mnt"
	[ "$(stat -c %s "$mnt/image.raw")" = $((16 << 30)) ]
	echo hello | dd of="$mnt/image.raw" conv=notrunc,fsync status=none
	pid=$(the_daemon)
	fusermount3 -u "$mnt"
	gone "$pid"
	"$program" "$mnt"
	[ "$(head -c 5 "$mnt/image.raw")" = hello ]
	pid=$(the_daemon)
	fusermount3 -u "$mnt"
	gone "$pid"
	[ "$(stat -c %a /var/lib/mlsdisk/default.key)" = 600 ]
	rm /var/lib/mlsdisk/default.key
	status=0
	"$program" "$mnt" || status=$?
	echo "without its key: $status"
' -- "$fuse_program" "$work/other"
expect_output "/var/lib/mlsdisk/default.img"
expect_output "/var/lib/mlsdisk/default.key"
expect_output "without its key: 3"
