# SPDX-License-Identifier: MPL-2.0
"""ext4 on a loop device on a contestant's file, and the jobs that run on it."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import tarfile
import time

import proc
from cells import fio_command, fio_result, MIB

TREE = "/usr/include"       # a source tree that is there wherever this was built
TREE_BYTES_MAX = 64 * MIB


def make_tarball(place, disk_bytes):
    """Files of a source tree, up to a bound and to an eighth of the disk. Made once."""
    path = place.file("tree.tar")
    if os.path.exists(path):
        return path
    total, room = 0, min(TREE_BYTES_MAX, disk_bytes // 8)
    with tarfile.open(path, "w") as tar:
        for directory, names, files in os.walk(TREE):
            names.sort()
            for name in sorted(files):
                file = os.path.join(directory, name)
                if os.path.islink(file) or not os.path.isfile(file):
                    continue
                total += (os.path.getsize(file) + 8191) // 4096 * 4096      # its blocks, and its inode's share
                if total > room:
                    return path
                tar.add(file)
    return path


def database_load(path):
    """What SQLite's speedtest does in small: many short transactions, a long one, an index, lookups, updates."""
    draw = random.Random(1)
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, text TEXT)")
    for _ in range(150):
        base.execute("INSERT INTO t(n, text) VALUES(?, ?)", (draw.randrange(10**9), "x" * 100))
    base.execute("BEGIN")
    base.executemany("INSERT INTO t(n, text) VALUES(?, ?)", ((draw.randrange(10**9), "y" * 100) for _ in range(60000)))
    base.execute("COMMIT")
    base.execute("CREATE INDEX i ON t(n)")
    for number in range(2000):
        base.execute("SELECT count(*), max(text) FROM t WHERE n BETWEEN ? AND ?", (number, number + 10**6)).fetchone()
    for _ in range(100):
        base.execute("UPDATE t SET text = ? WHERE id = ?", ("z" * 120, draw.randrange(1, 60000)))
    base.close()


class FileSystem:
    def __init__(self, contestant):
        self.place = contestant.place
        self.mount = self.place.file(f"ext4-{contestant.name}")
        self.disk_bytes = contestant.size_bytes
        self.file = os.path.join(self.mount, "fio.file")
        self.file_bytes = min(contestant.size_bytes // 4, 512 * MIB) // MIB * MIB
        self.loop = self.attach(contestant.file)
        proc.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", self.loop])
        os.mkdir(self.mount)
        proc.run(["mount", "-o", "noatime,noinit_itable", self.loop, self.mount])
        with open(self.file, "wb") as file:
            block = os.urandom(MIB)
            for _ in range(self.file_bytes // MIB):
                file.write(block)
            os.fsync(file.fileno())

    @staticmethod
    def attach(path):
        command = ["losetup", "--show", "-f", "--sector-size", "4096", "--direct-io=on", path]
        return proc.run(command).strip()

    def run(self, cell, seconds):
        if cell.rw == "untar":
            return {"seconds": self.untar()}
        if cell.rw == "sqlite":
            return {"seconds": self.database()}
        out = proc.run(fio_command(cell, self.file, self.file_bytes, seconds), seconds=seconds * 4 + 300)
        return fio_result(json.loads(out[out.index("{"):]))

    def untar(self):
        tarball = make_tarball(self.place, self.disk_bytes)
        directory = os.path.join(self.mount, "tree")
        os.mkdir(directory)
        began = time.monotonic()
        proc.run(["tar", "-xf", tarball, "-C", directory])
        proc.run(["sync", "-f", directory])
        took = time.monotonic() - began
        shutil.rmtree(directory)
        proc.run(["sync", "-f", self.mount])
        return took

    def database(self):
        path = os.path.join(self.mount, "base.sqlite")
        began = time.monotonic()
        database_load(path)
        took = time.monotonic() - began
        os.unlink(path)
        return took

    def down(self):
        proc.unmount(self.mount)
        subprocess.run(["losetup", "-d", self.loop], capture_output=True, check=False)
        proc.wait_until(lambda: self.loop not in proc.loops_below(self.place.path), 30, f"detaching {self.loop}")
