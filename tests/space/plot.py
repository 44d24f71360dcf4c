# SPDX-License-Identifier: MPL-2.0
#
# plot.py OUT.svg RUN.json... - what endurance measured: device writes for each user write, over what was written.
import json, sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 60, 20, 30, 50
COLOURS = ["#1b6ca8", "#c0504d", "#4f8f3a", "#7d5ba6", "#b8860b"]

runs = [json.load(open(path)) for path in sys.argv[2:]]
x_max = max(s["written_blocks"] / (r["mib"] * 256) for r in runs for s in r["samples"])
y_max = max(s["amplification"] for r in runs for s in r["samples"][1:]) * 1.1


def x_of(value):
    return LEFT + value / x_max * (WIDTH - LEFT - RIGHT)


def y_of(value):
    return HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM)


out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' %
       (WIDTH, HEIGHT), '<rect width="100%" height="100%" fill="white"/>']
for i in range(0, int(y_max) + 1, max(1, int(y_max) // 6)):
    out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>' % (LEFT, WIDTH - RIGHT, y_of(i), y_of(i)))
    out.append('<text x="%d" y="%.1f" text-anchor="end">%d</text>' % (LEFT - 6, y_of(i) + 4, i))
for i in range(0, int(x_max) + 1, max(1, int(x_max) // 10)):
    out.append('<text x="%.1f" y="%d" text-anchor="middle">%d</text>' % (x_of(i), HEIGHT - BOTTOM + 18, i))
out.append('<text x="%d" y="%d" text-anchor="middle">written by the user, in sizes of the disk</text>' %
           ((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 10))
out.append('<text x="%d" y="18">blocks written to BACKING for each block written by the user</text>' % LEFT)
for n, run in enumerate(runs):
    colour = COLOURS[n % len(COLOURS)]
    points = " ".join("%.1f,%.1f" % (x_of(s["written_blocks"] / (run["mib"] * 256)), y_of(s["amplification"]))
                      for s in run["samples"][1:])
    out.append('<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>' % (colour, points))
    name = "%s, %d %% live" % (run["pattern"], run["live_percent"])
    out.append('<text x="%d" y="%d" fill="%s">%s</text>' % (WIDTH - RIGHT - 170, HEIGHT - BOTTOM - 12 - 16 * n, colour, name))
    if run["theory_fifo"]:
        y = y_of(run["theory_fifo"])
        if TOP <= y:
            out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="6 4"/>' %
                       (LEFT, WIDTH - RIGHT, y, y, colour))
out.append("</svg>")
open(sys.argv[1], "w").write("\n".join(out) + "\n")
