#!/bin/bash
# SPDX-License-Identifier: MPL-2.0
#
# The bench runs, in small: all kinds of cells and facts, tables, a plot; and it leaves nothing behind, also when it is
# interrupted.
set -euo pipefail
# shellcheck source=tests/fuse/functions.sh
. "${srcdir:-.}/tests/fuse/functions.sh"

start
requires fio python3
source=$(cd "${srcdir:-.}" && pwd)

export INSTALL=no
bench=(python3 -B "$source/bench/run.py" --build="$build" --dir="$work" --out="$work/out" --size=64M --seconds=0.2
	--repeats=1 --reopen-size=64M --quick)

nothing_is_left() {
	local left

	left=$(find "$work" -maxdepth 1 -name 'mlsdisk-bench.*'; grep -F "$work/mlsdisk-bench" /proc/self/mountinfo || true
		losetup --list --noheadings --output BACK-FILE | grep -F "$work/" || true)
	[ -z "$left" ] || die "left behind: $left"
}

"${bench[@]}" --cells='rnd-w-4k|rnd-r-4k-d1|mixed-4k|sync-1|ext4-.*' \
	--contestants='plain|null|pass|cryptdisk|pfsdisk|mlsdisk|engine' >"$work/bench.out" 2>&1 ||
	{ cat "$work/bench.out"; die "the bench failed"; }
nothing_is_left
python3 - "$work/out/result.json" <<'END' || { cat "$work/bench.out"; die "the result isn't what it should be"; }
import json
import sys

result = json.load(open(sys.argv[1]))
seen = {(s["cell"], s["contestant"]) for s in result["samples"] if s["value"] > 0}
assert len(result["samples"]) == len(seen), "a value is zero"
for who in ("plain", "cryptdisk", "pfsdisk", "mlsdisk"):
    for cell in ("rnd-w-4k", "rnd-r-4k-d1", "mixed-4k", "sync-1", "ext4-rnd-w", "ext4-seq-w", "ext4-untar", "ext4-sqlite"):
        assert (cell, who) in seen, (cell, who)
facts = result["facts"]["mlsdisk"]
assert facts["reopen-ms"] > 0 and facts["peak-rss-mib"] > 1 and facts["amplification-rnd"] > 0.9, facts
END
grep -q 'reached' "$work/out/result.md" || die "no table of figures to reach"
python3 -c "import sys, xml.dom.minidom as d; d.parse(sys.argv[1])" "$work/out/result.svg" || die "the plot isn't SVG"
printf 'head\n<!-- results: begin -->\nold\n<!-- results: end -->\nfoot\n' >"$work/doc.md"
python3 -B "$source/bench/report.py" "$work/out/result.json" --doc="$work/doc.md"
if ! grep -q "rnd-w-4k" "$work/doc.md" || grep -q "^old" "$work/doc.md" || ! grep -q "^foot" "$work/doc.md"; then
	die "the document isn't what it should be"
fi

"${bench[@]}" --cells='rnd-w-4k' --contestants='cryptdisk|mlsdisk' --facts=- --seconds=60 >"$work/bench.out" 2>&1 &
pid=$!
sleep 3
kill -INT "$pid"
status=0
wait "$pid" || status=$?
[ "$status" = 130 ] || { cat "$work/bench.out"; die "status $status after SIGINT, expected 130"; }
nothing_is_left
