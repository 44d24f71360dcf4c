#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
# run-fuzz.sh BUILD-DIR SOURCE-DIR TARGET... : libFuzzer on each target, FUZZ_JOBS (2) at a time, each for
# FUZZ_SECONDS (60; 0: no limit) or FUZZ_RUNS (no limit) executions. Begins with the corpus in the source tree;
# what it adds stays in BUILD-DIR/tests/fuzz/corpus, for the next run. A target named twice is run by two processes
# on one corpus, each for that long. An input that crashes is left in
# BUILD-DIR/tests/fuzz/TARGET-crash-..., and belongs into the source tree's corpus once it is mended.
set -u
build=$1 src=$2
shift 2

# one TARGET PROCESS : one line, and the end of its log if it failed
one() {
	local target=$1 log=tests/fuzz/$1.$2.fuzz ok=PASS runs speed cov
	local grown=tests/fuzz/corpus/$1

	mkdir -p "$grown"
	"tests/fuzz/fuzz_$target" -max_total_time="${FUZZ_SECONDS:-60}" -runs="${FUZZ_RUNS:--1}" -timeout="${FUZZ_TIMEOUT:-120}" -max_len=4096 \
		-rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="tests/fuzz/$target-" "$grown" \
		"$FUZZ_SRC/tests/fuzz/corpus/$target" >"$log" 2>&1 || ok=FAIL
	runs=$(awk '/number_of_executed_units/ { print $2 }' "$log")
	speed=$(awk '/average_exec_per_sec/ { print $2 }' "$log")
	cov=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
	printf '%s: fuzz_%-11s %10s executions, %6s/s, %s\n' "$ok" "$target" "${runs:-0}" "${speed:-0}" "${cov:-cov: 0}"
	[ "$ok" = PASS ] || { tail -n 40 "$log"; return 1; }
}
export -f one
FUZZ_SRC=$(cd "$src" && pwd) || exit 1
export FUZZ_SRC
cd "$build" || exit 1
printf '%s\n' "$@" | awk '{ print $1, ++processes[$1] }' | xargs -P "${FUZZ_JOBS:-2}" -I TARGET bash -c 'one TARGET' | tee tests/fuzz/results
failed=$(grep -c '^FAIL: ' tests/fuzz/results)
# As automake's harness sums up, for who counts.
printf 'Testsuite summary for fuzzing\n# TOTAL: %d\n# PASS:  %d\n# FAIL:  %d\n# ERROR: 0\n' $# $(($# - failed)) "$failed"
[ "$failed" = 0 ]
