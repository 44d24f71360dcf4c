#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# format.sh - doc/format.md and src/format/mlsdisk_format.h tell of the same structs: the same fields at
# the same offsets with the same sizes, and the same sums.

# shellcheck source=tests/lint/lint.sh
. "${srcdir:-.}/tests/lint/lint.sh"

# Lines "struct offset bytes field", and "struct sum - -". Constants come from the headers given first.
fields_of_header() {
	awk '
	/^#define MLS_[A-Z_]+ [0-9]+u?/ { value[$2] = $3 + 0 }
	/^struct mls_[a-z_]+_disk \{/ { name = $2; offset = 0 }
	name && /^\t(uint8_t|struct [a-z_]+) [a-z0-9_]+(\[[A-Z0-9_a-z]+\])*;/ {
		bytes = $1 == "struct" ? size[$2] : 1
		field = $1 == "struct" ? $3 : $2
		sub(/;.*/, "", field)
		n = split(field, part, /[][]+/)
		for (i = 2; i <= n; i++)
			if (part[i] != "")
				bytes *= part[i] in value ? value[part[i]] : part[i]
		print name, offset, bytes, part[1]
		offset += bytes
	}
	name && /^\};/ { print name, offset, "-", "-"; size[name] = offset; name = "" }' "$@" | sort
}

fields_of_doc() {
	awk '
	match($0, /`mls_[a-z_]+_disk`, [0-9]+ bytes/) {
		split(substr($0, RSTART, RLENGTH), part, /[`, ]+/)
		name = part[2]
		print name, part[3], "-", "-"
	}
	name && /^\| [0-9]+ \| [0-9]+ \| `[a-z0-9_]+` \|/ {
		split($0, part, /[|` ]+/)
		print name, part[2], part[3], part[4]
	}' "$1" | sort
}

check() {
	[ -e "$1/doc/format.md" ] || return 0
	fields_of_header "$1/include/mlsdisk/mlsdisk.h" "$1/src/format/mlsdisk_format.h" >"$lint_tmp/header"
	fields_of_doc "$1/doc/format.md" >"$lint_tmp/doc"
	comm -23 "$lint_tmp/header" "$lint_tmp/doc" | sed 's/$/: not so in doc\/format.md (struct offset bytes field)/'
	comm -13 "$lint_tmp/header" "$lint_tmp/doc" | sed 's/$/: not so in mlsdisk_format.h (struct offset bytes field)/'
}

make_bad_tree() {
	echo '#define MLS_NR_THINGS 3u' | put include/mlsdisk/mlsdisk.h
	put src/format/mlsdisk_format.h <<'END'
struct mls_thing_disk {
	uint8_t kind;
	uint8_t id[8];
};
struct mls_things_disk {
	struct mls_thing_disk thing[MLS_NR_THINGS];
	uint8_t tag[2][16];		/* text */
};
END
	put doc/format.md <<'END'
`mls_thing_disk`, 9 bytes:
| 0 | 1 | `kind` | text |
| 2 | 8 | `id` | |
First, `mls_things_disk`, 59 bytes,
| 0 | 27 | `thing` | |
| 27 | 32 | `tag` | |
END
}

lint_run 2
