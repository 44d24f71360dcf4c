#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""report - tables and a plot of a run of the bench.

  bench/report.py RESULT.json                    print the tables
  bench/report.py RESULT.json --doc=FILE.md      put them between FILE's marks, and the plot beside it
  bench/report.py RESULT.json --svg=FILE.svg     draw the plot
"""

import argparse
import json
import os
import sys
from xml.sax.saxutils import escape

from cells import CELLS, EXPLAINED, BY_NAME
from targets import Samples, judge

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    """Half the distance between best and worst, in percent of the median."""
    middle = values[len(values) // 2]
    return 50 * (values[-1] - values[0]) / middle if middle else 0


def table(rows):
    """Markdown that also reads well on a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row):
        return "| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(row, widths))) + " |"

    rule = "|" + "|".join(("-" * (width + 2)) if i == 0 else ("-" * (width + 1) + ":")
                          for i, width in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule] + [line(row) for row in rows[1:]])


def throughput_tables(document, samples):
    names = [c["name"] for c in document["contestants"]]
    for group, explained in EXPLAINED.items():
        cells = [cell for cell in CELLS if cell.group == group]
        columns = [name for name in names if any(samples.values(cell.name, name) for cell in cells)]
        rows = [["cell"] + columns]
        for cell in cells:
            texts = []
            for name in columns:
                values = samples.values(cell.name, name)
                texts.append(f"{number(samples.median(cell.name, name))} ±{spread(values):.0f}%" if values else "-")
            if any(text != "-" for text in texts):
                rows.append([f"{cell.name}, {cell.unit}"] + texts)
        if len(rows) > 1:
            yield f"**{group}**: {explained}", table(rows)


def latency_table(document):
    """Of what is under test: the median over the repeats of each percentile."""
    rows = [["cell, microseconds", "50 %", "99 %", "99.9 %", "99.99 %"]]
    for cell in CELLS:
        found = [s for s in document["samples"]
                 if s["cell"] == cell.name and s["contestant"] == "mlsdisk" and s.get("p50_us")]
        if found:
            middle = [sorted(s[key] for s in found)[len(found) // 2]
                      for key in ("p50_us", "p99_us", "p999_us", "p9999_us")]
            rows.append([cell.name] + [number(value) for value in middle])
    return table(rows) if len(rows) > 1 else ""


FACTS = {
    "reopen-ms": "opening after kill -9, ms",
    "peak-rss-mib": "peak resident memory, MiB",
    "amplification-seq": "bytes written below per byte above, sequential overwrite",
    "amplification-rnd": "the same, random 4 KiB overwrite",
}


def facts_table(document):
    facts = document["facts"]
    names = [c["name"] for c in document["contestants"] if facts.get(c["name"])]
    rows = [[""] + names]
    for key, text in FACTS.items():
        row = [number(facts[name][key]) if facts[name].get(key) is not None else "-" for name in names]
        if any(cell != "-" for cell in row):
            rows.append([text] + row)
    return table(rows) if len(rows) > 1 else ""


def targets_table(document):
    rows = [["what", "against", "wanted", "reached", ""]]
    for target, got, met in judge(document):
        if got is None:
            continue
        wanted = ("≤ " if target.at_most else "> " if target.strict else "≥ ") + number(target.wanted)
        what = FACTS.get(target.cell, target.cell) if not target.against else target.cell
        who = "" if target.who == "mlsdisk" else f" ({target.who})"
        rows.append([what + who, target.against or "-", wanted, number(got), "met" if met else "MISSED"])
    return table(rows) if len(rows) > 1 else ""


def machine_text(document):
    run = document["run"]
    lines = [f"{run['date']}, {run['cores']} cores ({run['cpu']}), Linux {run['kernel']}, MlsDisk {run['version']}, "
             f"AES-GCM by {run['aead']}; {run['size_bytes'] / 2**30:g} GiB of data on each disk, MlsDisk's {run['fill']} % full, {run['seconds_per_cell']:.1f} s a "
             f"cell, {run['repeats']} repeats, {run['took_s'] / 60:.0f} minutes."]
    lines += [f"Not measured: {a['title']}: {a['why']}." for a in document["absent"]]
    return "\n".join(lines)


def as_text(document):
    samples = Samples(document["samples"])
    parts = [machine_text(document)]
    for heading, text in throughput_tables(document, samples):
        parts += [heading, text]
    for heading, text in (("**Facts**", facts_table(document)),
                          ("**Latencies of MlsDisk**", latency_table(document)),
                          ("**Figures to reach**: ratios are medians of the ratios within each repeat; the *limit* of a "
                           "write is the lower of the null device and the plain file's sequential rate, of a read the "
                           "lower of the null device and the plain file in the same cell", targets_table(document))):
        if text:
            parts += [heading, text]
    return "\n\n".join(parts) + "\n"


# ---- The plot ---------------------------------------------------------------------------------------------------

COLOURS = {"plain": "#7f7f7f", "null": "#c7c7c7", "pass": "#a0a0a0", "cryptdisk": "#e69f00", "pfsdisk": "#d55e00",
           "mlsdisk": "#0072b2", "mlsdisk-openssl": "#56b4e9", "mlsdisk-none": "#004b7a", "engine": "#009e73",
           "qemu-luks": "#cc79a7", "gocryptfs": "#9467bd"}
PANEL_W, BAR_H, LABEL_W, VALUE_W, COLUMNS = 400, 15, 108, 62, 3


def panel(cell, samples, names, left, top):
    """One cell: a bar for each contestant's median, a line from its worst to its best."""
    rows = [(name, samples.values(cell.name, name)) for name in names if samples.values(cell.name, name)]
    longest = max(values[-1] for _, values in rows) or 1
    scale = (PANEL_W - LABEL_W - VALUE_W - 20) / longest
    hint = cell.unit if cell.higher_is_better else "s, less is better"
    out = [f'<text x="{left}" y="{top + 12}" class="head">{escape(cell.name)} <tspan class="unit">{hint}</tspan></text>']
    for i, (name, values) in enumerate(rows):
        y = top + 20 + i * BAR_H
        middle = samples.median(cell.name, name)
        x0 = left + LABEL_W
        weight = ' class="us"' if name == "mlsdisk" else ""
        out.append(f'<text x="{x0 - 6}" y="{y + 10}" text-anchor="end"{weight}>{escape(name)}</text>')
        out.append(f'<rect x="{x0}" y="{y + 1}" width="{max(middle * scale, 0.5):.1f}" height="{BAR_H - 4}" '
                   f'fill="{COLOURS.get(name, "#888")}"/>')
        out.append(f'<path d="M{x0 + values[0] * scale:.1f} {y + BAR_H / 2 - 1}H{x0 + values[-1] * scale:.1f}" '
                   'stroke="#000" stroke-width="1.2"/>')
        out.append(f'<text x="{x0 + values[-1] * scale + 5:.1f}" y="{y + 10}"{weight}>{number(middle)}</text>')
    return "\n".join(out), 20 + len(rows) * BAR_H + 18


def as_svg(document):
    samples = Samples(document["samples"])
    names = [c["name"] for c in document["contestants"]]
    cells = [cell for cell in CELLS if any(samples.values(cell.name, name) for name in names)]
    body, top = [], 44
    for group in EXPLAINED:
        chosen = [cell for cell in cells if cell.group == group]
        for start in range(0, len(chosen), COLUMNS):
            heights = []
            for column, cell in enumerate(chosen[start:start + COLUMNS]):
                text, height = panel(cell, samples, names, 14 + column * PANEL_W, top)
                body.append(text)
                heights.append(height)
            top += max(heights)
    width = COLUMNS * PANEL_W + 20
    run = document["run"]
    title = (f"MlsDisk {run['version']}: medians of {run['repeats']} repeats, lines from worst to best; "
             f"{run['size_bytes'] / 2**30:g} GiB of data, MlsDisk's disk {run['fill']} % full, {run['date']}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">\n'
            "<style>text{font:10px sans-serif;fill:#222}.head{font-weight:bold;font-size:12px}.unit{font-weight:normal;"
            "fill:#666;font-size:10px}.us{font-weight:bold}.title{font-size:14px}</style>\n"
            f'<rect width="{width}" height="{top}" fill="#fff"/>\n<text x="14" y="24" class="title">{escape(title)}'
            "</text>\n" + "\n".join(body) + "\n</svg>\n")


# ---- Where it goes ----------------------------------------------------------------------------------------------

def put_in_document(path, document):
    """Between the marks; the plot beside it as performance.svg."""
    with open(path) as file:
        text = file.read()
    head, rest = text.split(BEGIN)
    foot = rest.split(END)[1]
    svg = os.path.splitext(path)[0] + ".svg"
    with open(path, "w") as file:
        file.write(f"{head}{BEGIN}\n\n{as_text(document)}\n![The same, drawn]({os.path.basename(svg)})\n\n{END}{foot}")
    with open(svg, "w") as file:
        file.write(as_svg(document))


def main():
    parser = argparse.ArgumentParser(description="Tables and a plot of a run of the bench.")
    parser.add_argument("result", help="the JSON file of a run")
    parser.add_argument("--doc", help="a Markdown file with marks to put the tables between")
    parser.add_argument("--svg", help="where to draw the plot")
    options = parser.parse_args()
    with open(options.result) as file:
        document = json.load(file)
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(as_svg(document))
    if options.doc:
        put_in_document(options.doc, document)
    if not options.svg and not options.doc:
        sys.stdout.write(as_text(document))


if __name__ == "__main__":
    main()
