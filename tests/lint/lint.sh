# shellcheck shell=sh
# SPDX-License-Identifier: MPL-2.0
# lint.sh - what the lints share; to be sourced. A lint defines check TREE, which says each finding
# on standard output, and calls lint_run. Before the real tree it must find what is wrong with the
# tree that make_bad_tree builds: a lint that can't fail is worth nothing.

lint_tmp=$(mktemp -d "${TMPDIR:-/tmp}/mlsdisk-lint.XXXXXX") || exit 99
trap 'rm -rf "$lint_tmp"' EXIT
trap 'exit 99' HUP INT TERM

# put FILE: standard input into FILE of the bad tree, with its directories.
put() {
	mkdir -p "$lint_tmp/bad/$(dirname "$1")" && cat >"$lint_tmp/bad/$1"
}

# lint_run NR: the bad tree has NR findings, the real one none.
lint_run() {
	make_bad_tree
	check "$lint_tmp/bad" >"$lint_tmp/findings"
	found=$(grep -c . "$lint_tmp/findings")
	if [ "$found" -ne "$1" ]; then
		echo "the lint itself is broken: $1 findings planted, $found found:"
		cat "$lint_tmp/findings"
		exit 99
	fi
	check "${srcdir:-.}" >"$lint_tmp/findings"
	if [ -s "$lint_tmp/findings" ]; then
		cat "$lint_tmp/findings"
		exit 1
	fi
	exit 0
}
