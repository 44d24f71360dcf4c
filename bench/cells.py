# SPDX-License-Identifier: MPL-2.0
"""What is measured: each cell is one job, run on every contestant that takes part."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Cell:
    name: str
    group: str          # main, depth1, mixed, sync, ext4
    rw: str             # as fio calls it
    block_bytes: int = 0
    depth: int = 1
    writers: int = 1
    sync_every: int = 0     # fdatasync after so many writes; 0: one fsync at the end
    dsync: bool = False     # O_DSYNC instead
    unit: str = "MiB/s"     # MiB/s, writes/s: more is better; s: less is
    title: str = ""

    @property
    def writes(self):
        return self.rw in ("write", "randwrite", "randrw")

    @property
    def higher_is_better(self):
        return self.unit != "s"


def _patterns(group, suffix, depth):
    kib = 1024
    cells = [("seq-write", "write", MIB), ("rnd-w-4k", "randwrite", 4 * kib),
             ("rnd-w-32k", "randwrite", 32 * kib), ("rnd-w-256k", "randwrite", 256 * kib),
             ("seq-read", "read", MIB), ("rnd-r-4k", "randread", 4 * kib),
             ("rnd-r-32k", "randread", 32 * kib), ("rnd-r-256k", "randread", 256 * kib)]
    return [Cell(name + suffix, group, rw, size, depth) for name, rw, size in cells]


CELLS = (
    _patterns("main", "", 32)
    + _patterns("depth1", "-d1", 1)
    + [
        Cell("mixed-4k", "mixed", "randrw", 4096, 32),
        Cell("sync-1", "sync", "randwrite", 4096, 1, sync_every=1, unit="writes/s"),
        Cell("sync-32", "sync", "randwrite", 4096, 1, sync_every=32, unit="writes/s"),
        Cell("sync-8w", "sync", "randwrite", 4096, 1, writers=8, sync_every=1, unit="writes/s"),
        Cell("dsync-8w", "sync", "randwrite", 4096, 1, writers=8, dsync=True, unit="writes/s"),
        Cell("ext4-rnd-w", "ext4", "randwrite", 4096, 32),
        Cell("ext4-seq-w", "ext4", "write", MIB, 16),
        Cell("ext4-untar", "ext4", "untar", unit="s"),
        Cell("ext4-sqlite", "ext4", "sqlite", unit="s"),
    ]
)

BY_NAME = {cell.name: cell for cell in CELLS}

EXPLAINED = {
    "main": "queue depth 32 (io_uring); 1 MiB sequential, else random",
    "depth1": "the same, one request at a time",
    "mixed": "70 % reads, 30 % writes, 4 KiB at random, queue depth 32",
    "sync": "4 KiB writes at random with fdatasync after each (sync-1), after 32 (sync-32), "
            "and 8 writers each syncing each write (sync-8w), or with O_DSYNC (dsync-8w)",
    "ext4": "ext4 on a loop device on the disk",
}


def fio_command(cell, path, size_bytes, seconds, io_bytes=None):
    """fio's command line for cell on the file at path, JSON on standard output."""
    engine = "io_uring" if cell.depth > 1 else "psync"
    command = ["fio", "--name=cell", f"--filename={path}", f"--size={size_bytes}", f"--ioengine={engine}",
               "--direct=1", f"--rw={cell.rw}", f"--bs={cell.block_bytes}", f"--iodepth={cell.depth}",
               f"--numjobs={cell.writers}", "--group_reporting", "--thread", "--randrepeat=0", "--norandommap",
               "--random_generator=tausworthe64", "--allow_file_create=0", "--disable_slat=1", "--disable_lat=1",
               "--percentile_list=50:99:99.9:99.99", "--output-format=json"]
    if io_bytes:
        command += [f"--io_size={io_bytes}", f"--runtime={seconds}s"]
    else:
        command += ["--time_based", f"--runtime={int(seconds * 1000)}ms"]
    if cell.rw == "randrw":
        command.append("--rwmixread=70")
    if cell.dsync:
        command.append("--sync=dsync")
    elif cell.sync_every:
        command.append(f"--fdatasync={cell.sync_every}")
    elif cell.writes:
        command.append("--end_fsync=1")     # a cell doesn't leave its work to the next one
    return command


def fio_result(document):
    """MiB/s, operations a second and completion latencies in microseconds of fio's JSON."""
    job = document["jobs"][0]
    if job.get("error"):
        raise RuntimeError(f"fio: error {job['error']}")
    sides = [job[side] for side in ("read", "write") if job[side]["total_ios"]]
    busiest = max(sides, key=lambda side: side["total_ios"])
    percentile = busiest.get("clat_ns", {}).get("percentile", {})

    def microseconds(key):
        return round(percentile.get(key, 0) / 1000, 1)

    return {
        "mib_s": sum(side["bw_bytes"] for side in sides) / MIB,
        "ops_s": sum(side["iops"] for side in sides),
        "p50_us": microseconds("50.000000"), "p99_us": microseconds("99.000000"),
        "p999_us": microseconds("99.900000"), "p9999_us": microseconds("99.990000"),
    }
