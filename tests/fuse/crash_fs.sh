# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
#
# crash_fs.sh - a real file system on a secure disk, and a power cut. Sourced by test-crash-*.sh.
#
# A tree of 1 GiB and 20,000 files or more is copied and synced; the daemon is killed while writers run; after
# reopening, the file system's own check must be clean once its journal has been replayed, and the tree equal.

# shellcheck disable=SC2154  # functions.sh sets work and loop

# What to copy: the first files of /usr/share and /usr/lib that make up the bounds. Bare machines have too few;
# the rest is made up.
pick_tree() {
	local min_files=${MLS_TREE_FILES:-20000} min_bytes=${MLS_TREE_BYTES:-1073741824}

	find /usr/share /usr/lib -xdev -type f -printf '%s %p\n' |
		awk -v files="$min_files" -v bytes="$min_bytes" '
			nr < files || sum < bytes { nr++; sum += $1; sub(/^[0-9]+ /, ""); print }' >"$work/tree.list"
	made=$work/made
	mkdir "$made"
	local nr sum i

	nr=$(wc -l <"$work/tree.list")
	for ((i = nr; i < min_files; i++)); do
		echo "$i" >"$made/$i"
	done
	sum=$(tr '\n' '\0' <"$work/tree.list" | du -c --apparent-size -B1 --files0-from=- | tail -n 1 | cut -f1)
	if [ "$sum" -lt "$min_bytes" ]; then
		head -c $((min_bytes - sum)) /dev/urandom >"$made/filler"
	fi
	find "$made" -type f >>"$work/tree.list"
}

# Names in the list are absolute; in the copy they are below $1.
copy_tree() { tar -C / -cPf - --no-recursion -T "$work/tree.list" | tar -xf - -C "$1" 2>/dev/null; }

compare_tree() {
	sed 's|^/||' "$work/tree.list" >"$work/tree.relative"
	tar -C / -cf - --no-recursion -T "$work/tree.relative" | tar -df - -C "$1" >"$work/output" 2>&1 || {
		head "$work/output"
		die "files that were synced before the kill differ"
	}
}

check_fs() {
	local type=$1 status=0

	case $type in
	ext4)
		e2fsck -p "$loop" >"$work/output" 2>&1 || status=$?	# replays the journal
		[ "$status" -le 1 ] || { cat "$work/output"; die "e2fsck -p: status $status"; }
		e2fsck -fn "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "e2fsck -fn"; }
		;;
	xfs)
		mount "$loop" "$work/fs"				# replays the log
		umount "$work/fs"
		xfs_repair -n "$loop" >"$work/output" 2>&1 || { cat "$work/output"; die "xfs_repair -n"; }
		;;
	esac
}

# The writers' processes, ended and waited for.
writers=()
start_writers() {
	local i

	for i in 1 2; do
		(
			n=0
			while dd if=/dev/urandom of="$work/fs/busy.$i.$((n % 20))" bs=256k count=16 status=none 2>/dev/null; do
				n=$((n + 1))
				[ $((n % 5)) != 0 ] || sync -f "$work/fs" 2>/dev/null || exit 0
			done
		) &
		writers+=($!)
	done
}

crash_fs() {
	local type=$1 sector=$2 began took rss pid

	start
	requires "mkfs.$type" tar awk find
	mls_format d 4G
	pick_tree
	say "$type, $sector-byte sectors, $(wc -l <"$work/tree.list") files"
	mls_serve d
	loop_attach d "$sector"
	mkdir "$work/fs"
	on_exit "umount -l $work/fs"
	"mkfs.$type" -q "$loop"
	mount "$loop" "$work/fs"
	copy_tree "$work/fs"
	sync -f "$work/fs"
	start_writers
	sleep 3
	pid=$(daemon_pid "$work/d.mnt")
	rss=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")
	mls_kill d
	wait "${writers[@]}" || true
	umount "$work/fs" 2>/dev/null || umount -l "$work/fs"
	loop_detach "$loop"
	say "resident memory at most $((rss / 1024)) MiB"
	[ "$rss" -lt $((512 * 1024)) ] || die "that's more than 512 MiB"

	began=$(milliseconds)
	mls_serve d
	took=$(($(milliseconds) - began))
	say "reopening after the kill took $took ms"
	[ "$took" -lt 2000 ] || die "that's more than 2 s"
	loop_attach d "$sector"
	check_fs "$type"
	mount "$loop" "$work/fs"
	compare_tree "$work/fs"
	umount "$work/fs"
	loop_detach "$loop"
	mls_end d
}
