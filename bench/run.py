#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""run.py - MlsDisk beside the plain file, the transport, other designs and other people's programs.

All in one run: for each repeat and each cell all contestants take their turn one after the other, in rotated order, so
that what the machine and its neighbours do falls on all of them alike. Every disk is filled once and overwritten at
random first. After each turn the run waits until that contestant's daemon has nothing more to do.

"make bench" calls this; the options stand below (--help) and in doc/performance.md. Everything it starts it ends, also
after Ctrl-C. Exit status: 0; 1: failed; with --strict also if a target was missed; 77: can't run here.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import re
import shutil
import sys
import time

import cells
import contestants
import facts
import proc
import report
from proc import Failed, say
from targets import judge

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(text):
    found = re.fullmatch(r"(\d+)([KMGT]?)(iB)?", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a size like 4G")
    return int(found[1]) * UNITS[found[2]]


def parse(arguments):
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.getcwd(), help="where the programs are (default: here)")
    parser.add_argument("--dir", default="/var/tmp", help="the disk to use: everything lies below (default: /var/tmp)")
    parser.add_argument("--size", type=size, help="of each disk (default: 4G; quick: 1G)")
    parser.add_argument("--fill", type=int, default=50, help="percent of MlsDisk's disk that hold data: 50 makes it twice "
                        "as large as --size, and all is measured in its first half (default: 50)")
    parser.add_argument("--minutes", type=float, help="how long all may take (default: 20; quick: 4)")
    parser.add_argument("--seconds", type=float, help="of each cell, instead of what --minutes gives")
    parser.add_argument("--repeats", type=int, help="default: 3; quick: 2")
    parser.add_argument("--cells", default=".", help="regular expression of cells and groups")
    parser.add_argument("--contestants", default=".", help="regular expression of contestants")
    parser.add_argument("--facts", default=".", help="regular expression of facts: reopen, amplification; none: -")
    parser.add_argument("--reopen-size", type=size, help="of the disk that is opened after kill -9 (default: 16G; quick: 1G)")
    parser.add_argument("--quick", action="store_true", help="a few minutes, for development")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target was missed")
    parser.add_argument("--out", default="bench-results", help="where result.json, .svg and .md go (default: bench-results)")
    parser.add_argument("--list", action="store_true", help="show cells and contestants, measure nothing")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.size_bytes = options.size or (1 << 30 if quick else 4 << 30)
    options.minutes = options.minutes or (4 if quick else 20)
    options.repeats = options.repeats or (2 if quick else 3)
    options.reopen_size = options.reopen_size or (1 << 30 if quick else 16 << 30)
    options.settle = 1.5 if quick else 3
    options.program = lambda name: os.path.join(options.build, name)
    return options


# ---- What takes part --------------------------------------------------------------------------------------------

def choose(options):
    """Cells, contestants by class, and those that can't: [{name, title, why}]."""
    def wanted(pattern, *names):
        return any(re.fullmatch(f"(?:{pattern})", name) or pattern == "." for name in names)

    chosen_cells = [c for c in cells.CELLS if wanted(options.cells, c.name, c.group)]
    present, absent = [], []
    for kind in contestants.ALL:
        if not wanted(options.contestants, kind.name):
            continue
        why = kind.missing()
        if why:
            absent.append({"name": kind.name, "title": kind.title, "why": why})
        else:
            present.append(kind)
    return chosen_cells, present, absent


def turns(chosen_cells, playing, repeats):
    """(repeat, cell, contestant), in the order of the run; those that aren't primary play every second repeat.
    What stands on a file system comes last: it can't share the disk with the other cells."""
    plan = []
    for repeat in range(repeats):
        for number, cell in enumerate(chosen_cells):
            if cell.group == "depth1" and repeat == repeats - 1 and repeats > 2:
                continue
            who = [c for c in playing if c.takes(cell) and (c.primary or repeat % 2 == 0)]
            turn = (repeat + number) % len(who) if who else 0
            plan += [(repeat, cell, c) for c in who[turn:] + who[:turn]]
    return [turn for turn in plan if turn[1].group != "ext4"] + [turn for turn in plan if turn[1].group == "ext4"]


PACKAGES = {"fio": "fio", "fusermount3": "fuse3", "qemu-img": "qemu-utils", "qemu-storage-daemon": "qemu-system-common",
            "gocryptfs": "gocryptfs"}


def install_packages():
    """What isn't there and apt has, as root; what can't be had is said in the results."""
    missing = sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool)})
    if not missing or os.geteuid() != 0 or not shutil.which("apt-get") or os.environ.get("INSTALL") == "no":
        return
    say(f"Installing: {' '.join(missing)}")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        proc.run(["apt-get", "-q", "update"], env=environment)
    except Failed as failed:
        say(f"apt-get update: {failed}")
    for package in missing:
        try:
            proc.run(["apt-get", "-q", "-y", "--no-install-recommends", "install", package], env=environment)
        except Failed:
            say(f"{package} can't be installed")


def check_host(options, present):
    for tool in ("fio", "fusermount3"):
        if not shutil.which(tool):
            say(f"bench: can't run here: {tool} isn't there")
            sys.exit(77)
    if not os.path.exists("/dev/fuse"):
        say("bench: can't run here: no /dev/fuse")
        sys.exit(77)
    for name in ("mlsdisk-fuse", "mlsdisk-format", "bench/baseline-fuse", "bench/engine_bench"):
        if not os.access(options.program(name), os.X_OK):
            raise Failed(f"{options.program(name)} isn't there: build first, or give --build")
    full = sum(not kind.sparse for kind in present)
    free = shutil.disk_usage(options.dir).free
    while not options.size and options.size_bytes > 256 << 20 and full * options.size_bytes * 1.2 > free * 0.9:
        options.size_bytes //= 2        # the default takes what there is
        options.reopen_size //= 2
    needed = int(full * options.size_bytes * 1.2)
    if max(needed, int(options.reopen_size * 1.2)) > free:
        raise Failed(f"{options.dir} has {free >> 30} GiB free, {full} disks of {options.size_bytes >> 20} MiB need "
                     f"{needed >> 30}; choose another --dir or a smaller --size")


# ---- The run ----------------------------------------------------------------------------------------------------

class Run:
    def __init__(self, options, place):
        self.options, self.place = options, place
        self.began = time.monotonic()
        self.samples, self.facts, self.failed = [], {}, []
        options.key_file = place.file("key")
        with open(options.key_file, "wb") as file:
            file.write(os.urandom(64))

    def left(self):
        return self.options.minutes * 60 - (time.monotonic() - self.began)

    def note(self, who, name, value):
        self.facts.setdefault(who, {})[name] = value

    def precondition(self, playing):
        """Those of playing that came up."""
        ready = []
        for contestant in playing:
            began = time.monotonic()
            try:
                contestant.up()
                contestant.fill()
                if not contestant.sparse:
                    contestant.overwrite((4 if self.options.quick else 12) if contestant.is_log else 3)
            except Failed as failed:
                self.forgive(contestant, failed)
                continue
            contestant.settle()
            contestant.pause()
            ready.append(contestant)
            say(f"{contestant.title}: ready after {time.monotonic() - began:.1f} s")
        return ready

    def forgive(self, contestant, failed, what=""):
        """Another's program failed: said in the results, and the run goes on."""
        if not contestant.by_others:
            raise failed
        why = f"{what}{str(failed).splitlines()[0]}"
        say(f"{contestant.title}: {failed}")
        if all(each["title"] != contestant.title for each in self.failed):
            self.failed.append({"name": contestant.name, "title": contestant.title, "why": why})

    def turn(self, repeat, cell, contestant, seconds):
        contestant.resume()
        result = contestant.run(cell, seconds)
        value = result[{"writes/s": "ops_s", "MiB/s": "mib_s", "s": "seconds"}[cell.unit]]
        contestant.settle()
        contestant.pause()
        self.samples.append({"cell": cell.name, "contestant": contestant.name, "repeat": repeat, "value": value, **result})
        say(f"{repeat + 1}/{self.options.repeats}  {cell.name:14} {contestant.name:16} {value:10.{1 if value > 20 else 2}f} {cell.unit}")

    def measure(self, chosen_cells, playing):
        plan = turns(chosen_cells, playing, self.options.repeats)
        if not plan:
            return 0
        say(f"{len(plan)} turns")
        used, overhead, done = [], 0.9, 0
        for (repeat, cell), group in itertools.groupby(plan, key=lambda turn: turn[:2]):
            seconds = self.seconds(plan[done:], overhead)       # the same for all that are compared
            for _, _, contestant in group:
                began = time.monotonic()
                try:
                    self.turn(repeat, cell, contestant, seconds)
                except Failed as failed:
                    self.forgive(contestant, failed, f"{cell.name}: ")
                done += 1
                if cell.unit != "s":
                    used.append(seconds)
                    overhead += (time.monotonic() - began - seconds - overhead) / min(done, 40)
        return sum(used) / len(used) if used else 0

    def seconds(self, plan, overhead):
        """Of each cell that is left, so that all fits into the time: 1 to 10."""
        jobs = [turn for turn in plan if turn[1].unit == "s"]       # these take what they take
        reserve = 10 + 4 * len(jobs)
        timed = len(plan) - len(jobs) or 1
        return self.options.seconds or min(10, max(1, (self.left() - reserve) / timed - overhead))

    def take_down(self, playing):
        for contestant in playing:
            contestant.resume()
            contestant.file_system_down()
            rss = contestant.peak_rss_mib()
            if rss:
                self.note(contestant.name, "peak-rss-mib", round(rss, 1))
            contestant.down()

    def document(self, seconds, playing, absent):
        run = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "kernel": platform.release(), "cores": os.cpu_count(), "cpu": cpu_name(),
            "version": version(self.options), "aead": aead(self.options),
            "size_bytes": self.options.size_bytes, "fill": self.options.fill, "seconds_per_cell": seconds, "repeats": self.options.repeats,
            "took_s": time.monotonic() - self.began,
        }
        return {"run": run, "contestants": [{"name": c.name, "title": c.title} for c in playing], "absent": absent,
                "samples": self.samples, "facts": self.facts}


def cpu_name():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def version(options):
    return proc.run([options.program("mlsdisk-fuse"), "--version"]).split("\n")[0].split()[-1]


def aead(options):
    """The fastest engine of this build on this machine: the last that aead_speed names."""
    return proc.run([options.program("bench/aead_speed")]).strip().split("\n")[-1].split()[0]


def save(document, options):
    os.makedirs(options.out, exist_ok=True)
    base = os.path.join(options.out, "result")
    text = report.as_text(document)
    for suffix, content in ((".json", json.dumps(document, indent=1) + "\n"), (".md", text),
                            (".svg", report.as_svg(document) if document["samples"] else "")):
        with open(base + suffix, "w") as file:
            file.write(content)
    print(text)
    say(f"{base}.json, {base}.md, {base}.svg")


def main():
    options = parse(sys.argv[1:])
    if not options.list:
        install_packages()
    options.out = os.path.abspath(options.out)
    chosen_cells, present, absent = choose(options)
    if options.list:
        for cell in chosen_cells:
            print(f"cell        {cell.group:8} {cell.name}")
        for kind in present:
            print(f"contestant  {kind.name:16} {kind.title}")
        return 0
    if os.geteuid() != 0 and any(cell.group == "ext4" for cell in chosen_cells):
        chosen_cells = [cell for cell in chosen_cells if cell.group != "ext4"]
        absent.append({"name": "ext4", "title": "the ext4 cells", "why": "need root"})
    present = [kind for kind in present if any(kind.takes(kind, cell) for cell in chosen_cells)]
    check_host(options, present)
    with proc.Workplace(options.dir) as place:
        run = Run(options, place)
        facts.before(run)
        playing = [kind(place, options) for kind in present]
        playing = run.precondition(playing)
        seconds = run.measure(chosen_cells, playing)
        run.take_down(playing)
        document = run.document(seconds, playing, absent + run.failed)
    save(document, options)
    return 1 if options.strict and any(met is False for _, _, met in judge(document)) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        say(f"bench: {failed}")
        sys.exit(1)
