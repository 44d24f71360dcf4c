#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# text.sh - what every text of ours must keep to: no path of the machine it was written on, no mark
# of unfinished work, no white space at a line's end, a licence line, man pages and shell scripts
# that their checkers like (where those are there).
#
# The patterns are put together from halves, so that this file doesn't contain what it looks for.

# shellcheck source=tests/lint/lint.sh
. "${srcdir:-.}/tests/lint/lint.sh"

machine='(^|[^A-Za-z0-9_.~$}-])/(wo''rk|tm''p/mls|ro''ot)(/|$|[^A-Za-z0-9_])'
marks='(^|[^A-Za-z0-9_])(TO''DO|FIX''ME|XX''X|HA''CK|TB''D|[Ss]tu''b|[Uu]nder construc''tion)([^A-Za-z0-9_]|$)'

# Our texts in the tree, also when it has been built in place.
texts() {
	(cd "$1" && {
		find src include examples tools tests man doc bench .ci -path tests/fuzz/corpus -prune -o -type f -print 2>/dev/null
		ls README.md HACKING.md SECURITY.md NEWS configure.ac Makefile.am mlsdisk.pc.in \
			quickstart.sh .clang-format .editorconfig 2>/dev/null
	}) | grep -vE '\.(l?o|l?a|log|trs|gcda|gcno)$|/\.(deps|libs|dirstamp)(/|$)'
}

# grep_each TREE PATTERN WHAT: files come on standard input.
grep_each() {
	while read -r file; do
		grep -nIE "$2" "$1/$file" | sed "s|^\([0-9]*\):.*|$file:\1: $3|"
	done
}

check_licence() {
	texts "$1" | grep -E '\.([chsS178]|sh)$|^\.ci/' | while read -r file; do
		head -n 2 "$1/$file" | grep -q 'SPDX-License-Identifier: MPL-2\.0' ||
			echo "$file:1: no SPDX-License-Identifier: MPL-2.0"
	done
}

check_man_pages() {
	command -v mandoc >/dev/null || return 0
	texts "$1" | grep -E '^man/.*\.[1-8]$' | while read -r file; do
		mandoc -Tlint -Wwarning "$1/$file" | sed "s|^mandoc: $1/||"
	done
}

check_scripts() {
	command -v shellcheck >/dev/null || return 0
	texts "$1" | grep -E '\.sh$|^\.ci/' | while read -r file; do
		case $(head -n 1 "$1/$file") in
		'#!'*sh* | '# shellcheck shell='*) ;;
		*) continue ;;
		esac
		(cd "$1" && shellcheck -x -f gcc "$file")
	done
}

check() {
	texts "$1" | grep_each "$1" "$machine" 'a path of one machine'
	texts "$1" | grep_each "$1" "$marks" 'a mark of unfinished work'
	texts "$1" | grep_each "$1" '[[:blank:]]$' 'white space at the end of the line'
	check_licence "$1"
	check_man_pages "$1"
	check_scripts "$1"
}

make_bad_tree() {
	printf 'int a;  \n' | put src/base/a.c
	echo "see /wo""rk/shared and $(printf '/tm'; printf 'p/mls')/x" | put README.md
	printf '/* SPDX-License-Identifier: MPL-2.0 */\n/* TO%s: all of it */\n' DO | put src/base/b.h
	echo '/* SPDX-License-Identifier: MPL-2.0 */ int network, XXXX, stubborn; /* a/work/b */' | put src/base/good.c
}

lint_run 4
