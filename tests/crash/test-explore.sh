#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# test-explore.sh - crash_explore on all cores: a part of the workloads each, and the sum of what they saw.
#
#	MLS_PARTS    processes; default: one a core
#	MLS_STATES   fewer distinct crash states than this: the run proves too little, and fails. Default 50000
#
# and what crash_explore itself takes.
set -u

parts=${MLS_PARTS:-$(getconf _NPROCESSORS_ONLN)}
wanted=${MLS_STATES:-50000}
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
began=$(date +%s)

part=0
pids=
while [ "$part" -lt "$parts" ]; do
	MLS_PART=$part/$parts tests/crash/crash_explore >"$out/$part" 2>&1 &
	pids="$pids $!"
	part=$((part + 1))
done
failed=0
for pid in $pids; do
	wait "$pid" || failed=1
done
if [ "$failed" = 1 ]; then
	cat "$out"/*
	exit 1
fi
grep -h '^base ' "$out/0"
sum=$(grep -h '^workloads ' "$out"/* | awk -F', ' '
	{
		for (i = 1; i <= NF; i++) {
			nr_words = split($i, words, " ")
			sums[i] += words[nr_words]
			names[i] = substr($i, 1, length($i) - length(words[nr_words]))
		}
		nr = NF
	}
	END {
		for (i = 1; i < nr; i++)
			printf "%s%d, ", names[i], sums[i]
		printf "%s%d\n", names[nr], sums[nr]
	}')
echo "$sum; $(($(date +%s) - began)) s with $parts processes"
states=$(echo "$sum" | sed 's/.*crash states \([0-9]*\).*/\1/')
[ "$states" -ge "$wanted" ] || {
	echo "that's too few crash states: $wanted are wanted"
	exit 1
}
