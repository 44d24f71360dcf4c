#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
# coverage.sh BUILD-DIR : what the tests that ran in BUILD-DIR (configure --enable-coverage) have executed
# of src/: a line for each file, the least covered first, and the sum. BUILD-DIR/coverage/ gets the annotated
# sources; lines that were never executed begin with "#####".
set -eu
cd "$1"
rm -rf coverage
mkdir coverage
# An object that no test has loaded has no data: all its lines count as missed. bench_*: the same sources once more, in
# a program of bench/. Headers count where they are.
find src -name '*.gcno' ! -name 'bench_*' | while read -r notes; do
	gcov -o "$notes" "$notes" 2>/dev/null
	find . -maxdepth 1 -name '*.c.gcov' -exec mv {} coverage/ \;
	rm -f ./*.h.gcov
done | awk '
	/^File / { file = $2; gsub("\047", "", file); sub(/^.*\/src\//, "src/", file) }
	/^Lines executed:/ {
		split($0, part, /[:% ]+/)
		if (file ~ /^src\/.*\.c$/) {
			lines[file] = part[5]
			hits[file] = part[5] * part[3] / 100
		}
		file = ""
	}
	END {
		for (file in lines) {
			printf "%5.1f %% of %4d  %s\n", 100 * hits[file] / lines[file], lines[file], file
			sum += lines[file]
			hit_sum += hits[file]
		}
		printf "%5.1f %% of %4d  in all\n", 100 * hit_sum / (sum ? sum : 1), sum
	}' | sort -n
