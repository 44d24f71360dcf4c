# SPDX-License-Identifier: MPL-2.0
"""What isn't a rate: the time to open after a crash, and bytes written below per byte above."""

import json
import os
import re
import time

import contestants
import proc
from cells import Cell, fio_command, MIB
from proc import say


class _Own(contestants.MlsDisk):
    """A disk for one fact, removed after it."""

    def __init__(self, place, options, size_bytes):
        super().__init__(place, options)
        self.size_bytes = self.disk_bytes = size_bytes

    def remove(self):
        self.down()
        for suffix in (".img", ".store", ".store.lock"):
            path = self.place.file(self.name + suffix)
            if os.path.exists(path):
                os.unlink(path)


class _Reopened(_Own):
    name = "reopened"


def reopen(run):
    """Filled, then killed under random writes with syncs among them, then opened until a first read has been answered."""
    disk = _Reopened(run.place, run.options, run.options.reopen_size)
    disk.up()
    disk.fill()
    load = run.place.start(fio_command(Cell("load", "main", "randwrite", 4096, 32, sync_every=1000), disk.file,
                                       disk.size_bytes, 60), disk.place.file("load.log"))
    time.sleep(2 if run.options.quick else 5)
    disk.process.kill()
    disk.process.wait()
    proc.unmount(disk.mount)
    proc.stop(load)                 # its file is gone
    began = time.monotonic()
    disk.serve()
    with open(disk.file, "rb") as file:
        file.read(4096)
    run.note("mlsdisk", "reopen-ms", round((time.monotonic() - began) * 1000, 1))
    disk.remove()


def _written_per_byte(disk, rw, block_bytes):
    """Overwrites the first half once; what the daemon wrote meanwhile, its background work included."""
    half = disk.size_bytes // 2
    before = proc.io_counter(disk.process.pid, "write_bytes")
    command = fio_command(Cell("amplification", "main", rw, block_bytes, 32), disk.file, half, 600, io_bytes=half)
    result = json.loads(proc.run(command, seconds=900))
    disk.settle()
    return (proc.io_counter(disk.process.pid, "write_bytes") - before) / result["jobs"][0]["write"]["io_bytes"]


def _amplification_of(base):
    class HalfFull(base):
        def __init__(self, place, options):
            super().__init__(place, options)
            self.size_bytes = self.disk_bytes = min(options.size_bytes, 4 << 30)
    HalfFull.name = "half-" + base.name
    return HalfFull


def amplification(run):
    """Of a disk half full, for the disks that keep tags or logs, and for one that doesn't."""
    for base in contestants.AMPLIFYING:
        if not re.fullmatch(run.options.contestants, base.name) and run.options.contestants != ".":
            continue
        disk = _amplification_of(base)(run.place, run.options)
        disk.up()
        half = disk.size_bytes // 2
        proc.run(fio_command(Cell("fill", "main", "write", MIB, 16), disk.file, half, 600, io_bytes=half), seconds=900)
        disk.settle()
        for name, rw, block_bytes in (("seq", "write", MIB), ("rnd", "randwrite", 4096)):
            run.note(base.name, f"amplification-{name}", round(_written_per_byte(disk, rw, block_bytes), 3))
        disk.down()
        os.unlink(run.place.file(disk.name + ".img"))


def before(run):
    """The facts that were asked for. Before the rest: their disks are gone when the others are filled."""
    for name, fact in (("reopen", reopen), ("amplification", amplification)):
        if run.options.facts == "." or re.fullmatch(run.options.facts, name):
            began = time.monotonic()
            fact(run)
            say(f"{name}: {time.monotonic() - began:.1f} s")
