#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# layers.sh - a file includes headers of its own folder and of those below, never of one above; and only
# the folder whose business it is knows an outside library.
#
#	base < format < 0-bio < 1-crypto < 2-edit < 3-log < 4-lsm < 5-disk
#	trust                   its own, 1-crypto and below
#	check                   its own, all layers; it looks inside, for fsck and dump
#	cli                     its own, the public header
#	fuse                    its own, cli, the public header
#	tools                   their own, cli, the public header; check and what its header needs

# shellcheck source=tests/lint/lint.sh
. "${srcdir:-.}/tests/lint/lint.sh"

# may_include FOLDER: the folders whose headers its files may include.
may_include() {
	below=
	for layer in base format 0-bio 1-crypto 2-edit 3-log 4-lsm 5-disk; do
		below="$below $layer"
		if [ "$1" = "$layer" ] || { [ "$1" = trust ] && [ "$layer" = 1-crypto ]; }; then
			echo "mlsdisk $below $1"
			return
		fi
	done
	case $1 in
	check) echo "mlsdisk $below check" ;;
	tools) echo "mlsdisk $below check cli tools" ;;
	cli) echo "mlsdisk cli" ;;
	*) echo "mlsdisk cli $1" ;;
	esac
}

# check_folder TREE FOLDER-IN-TREE NAME
check_folder() {
	allowed=$(may_include "$3")
	for file in "$1/$2"/*.[ch]; do
		[ -e "$file" ] || continue
		awk -v allowed="$allowed" -v folder="$3" -v shown="$2/${file##*/}" '
		BEGIN {
			n = split(allowed, list, " ")
			for (i = 1; i <= n; i++)
				ok[list[i]] = 1
			owner["openssl/"] = owner["intel-ipsec-mb"] = "1-crypto"
			owner["liburing"] = "0-bio"
			owner["tss2/"] = "trust"
			owner["fuse"] = "fuse"
		}
		/^[ \t]*#[ \t]*include[ \t]*"/ {
			split($0, part, "\"")
			slash = index(part[2], "/")
			if (slash && !(substr(part[2], 1, slash - 1) in ok))
				print shown ":" FNR ": " folder " includes \"" part[2] "\", which is above it"
		}
		/^[ \t]*#[ \t]*include[ \t]*</ {
			split($0, part, /[<>]/)
			for (prefix in owner)
				if (index(part[2], prefix) == 1 && owner[prefix] != folder)
					print shown ":" FNR ": only " owner[prefix] " may include <" part[2] ">"
		}' "$file"
	done
}

check() {
	for folder in "$1"/src/*/; do
		folder=${folder%/}
		check_folder "$1" "src/${folder##*/}" "${folder##*/}"
	done
	check_folder "$1" tools tools
}

make_bad_tree() {
	put src/2-edit/up.c <<-'END'
		#include "3-log/tx_log.h"
		#include "1-crypto/kdf.h"
		#include <openssl/evp.h>
		#include "2-edit/journal.h"
	END
	echo '#include "format/mlsdisk_format.h"' | put src/base/up.h
	echo '#include "2-edit/journal.h"' | put src/trust/up.c
	echo '# include "base/err.h"' | put src/fuse/inside.c
	echo '#include "fuse/options.h"' | put tools/beside.c
}

lint_run 6
