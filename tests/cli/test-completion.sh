#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# The bash completion offers the options that --help lists, no more and no less; and the right words
# elsewhere. A program that isn't built here is left out.
set -uo pipefail
export LC_ALL=C

build=${MLS_BUILD_DIR:-$PWD}
# shellcheck source=completions/mlsdisk.bash
. "${srcdir:-.}/completions/mlsdisk.bash"
failed=0

one_line() { tr '\n' ' ' | sed 's/ $//'; }

# offered WORD... : what is offered for the last one, one a line, sorted, in $words
offered() {
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	_mlsdisk "$1"
	words=$(printf '%s\n' "${COMPREPLY[@]}" | sort -u)
}

# offers "WORDS" WORD... : they are, for the last one
offers() {
	local expected=$1

	shift
	offered "$@"
	words=$(echo "$words" | one_line)
	[ "$words" = "$expected" ] && return
	echo "$*: expected '$expected', found '$words'"
	failed=1
}

# As tests/lint/options.sh does; an option that takes a value keeps its '=', wherever else it is named.
options_of_help() {
	grep -oE -e '--[a-z][a-z-]*=?' -e '^ *-[A-Za-z0-9]($|[ ,])' | tr -d ' ,' | sort -u |
		awk '{ seen[$0] } END { for (name in seen) if (!((name "=") in seen)) print name }' | sort
}

for program in mlsdisk-format mlsdisk-fuse mlsdisk-fsck mlsdisk-dump mlsdisk-key; do
	[ -x "$build/$program" ] || continue
	offered "$program" -
	if ! diff -u --label "$program --help" --label "its completion" <("$build/$program" --help | options_of_help) \
		<(echo "$words"); then
		failed=1
	fi
done

# The words that a list of --help begins with, two blanks before them
sections=$("$build/mlsdisk-dump" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | sort | one_line)
offers "$sections" mlsdisk-dump disk ""
actions=$("$build/mlsdisk-key" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | sort | one_line)
offers "$actions" mlsdisk-key ""

work=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
touch disk.img disk.key
offers "disk.img disk.key" mlsdisk-format ""
offers "disk.img disk.key" mlsdisk-fuse --key-file = d
offers "disk.img disk.key" mlsdisk-key add --new-key-file =
offers "disk.key" mlsdisk-fuse --key-file = disk.k
offers "file: none tpm2:0x01800001" mlsdisk-fsck --trusted-store =
offers "disk.img disk.key" mlsdisk-fsck --trusted-store = file :
offers "disk.key" mlsdisk-fsck --trusted-store = file : disk.k
offers "early strict" mlsdisk-fuse --sync-policy = ""
offers "0 1 2 3 4 5 6 7" mlsdisk-key --slot = ""
offers "disk.img" mlsdisk-key --key-file = a.key --slot = 1 add disk.i
offers "disk.img" mlsdisk-fuse -o allow_other disk.i
offers "lba logs" mlsdisk-dump --json --key-file = a.key disk.img l
offers "" mlsdisk-dump disk.img lba 1
offers "--key-file=" mlsdisk-fuse --ke
offers "" mlsdisk-fsck -C 3
[ "$failed" = 0 ] || exit 1
echo "all well"
