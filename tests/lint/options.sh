#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# options.sh - what a program's --help lists and what its man page describes are the same options. A
# program that isn't built here is left out.

# shellcheck source=tests/lint/lint.sh
. "${srcdir:-.}/tests/lint/lint.sh"

# "--name", and "-x" at the beginning of a line, in a --help text.
options_of_help() {
	grep -oE -e '--[a-z][a-z-]*' -e '^ *-[A-Za-z0-9]($|[ ,])' | tr -d ' ,' | sort -u
}

# The flags of the ".It Fl" lines of a page in mdoc(7): "Fl -name" is --name, "Fl f" is -f.
options_of_page() {
	awk '$1 == ".It" {
		for (i = 2; i < NF; i++)
			if ($i == "Fl") {
				sub(/[=\[].*/, "", $(i + 1))
				print "-" $(i + 1)
			}
	}' "$1" | sort -u
}

# compare PAGE HELP-FILE
compare() {
	options_of_help <"$2" >"$lint_tmp/help"
	options_of_page "$1" >"$lint_tmp/page"
	name=${1##*/}
	comm -23 "$lint_tmp/help" "$lint_tmp/page" | sed "s|.*|${name}: &, which --help lists, has no entry|"
	comm -13 "$lint_tmp/help" "$lint_tmp/page" | sed "s|.*|${name}: & has an entry, but --help doesn't list it|"
}

# The bad tree has the help text as a file, the real one as a program in the build's folder.
check() {
	for page in "$1"/man/*.[1-68]; do
		[ -e "$page" ] || continue
		program=${page##*/}
		program=${program%.*}
		if [ -f "$1/$program.help" ]; then
			cp "$1/$program.help" "$lint_tmp/help_text"
		elif [ -x "./$program" ]; then
			"./$program" --help >"$lint_tmp/help_text" || echo "$program --help: exit status $?"
		else
			continue
		fi
		compare "$page" "$lint_tmp/help_text"
	done
}

make_bad_tree() {
	put program.help <<-'END'
		Usage: program [--in=FILE] [--lost]
		  --in=FILE     '-': standard input
		  -f, --fore
		  -o OPT
	END
	put man/program.1 <<-'END'
		.It Fl -in Ns = Ns Ar FILE
		.It Fl f , Fl -fore
		.It Fl o Ar OPT
		.It Fl -extra
	END
}

lint_run 2
