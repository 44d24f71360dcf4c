# SPDX-License-Identifier: MPL-2.0
"""Who is measured: how each disk is made, brought up, and taken down."""

import json
import os
import shutil

import proc
from cells import fio_command, fio_result, Cell, MIB
from ext4 import FileSystem
from proc import Failed, wait_until

WANTED_GROUPS = ("main", "depth1", "mixed", "sync", "ext4")


class Contestant:
    """A disk that fio reaches as a file."""

    name = title = ""
    groups = WANTED_GROUPS
    only_cells = None       # names; None: all of the groups
    sparse = False          # its size isn't the run's: it isn't filled
    by_others = False       # if it fails, that is a result; if ours does, the run fails
    is_log = False          # where its blocks lie depends on what was written before
    calm = 0.06             # seconds without work after which its daemon does none of its own any more
    primary = False         # measured in every repeat; the others in every second one

    def __init__(self, place, options):
        self.place = place
        self.options = options
        self.size_bytes = options.size_bytes        # of what is filled and measured
        self.disk_bytes = options.size_bytes
        self.process = None
        self.log = place.file(f"{self.name}.log")
        self.file_system = None     # ext4 on it, from the first cell that wants it on

    @staticmethod
    def missing():
        """What isn't installed, or nothing."""
        return None

    def takes(self, cell):
        return cell.name in self.only_cells if self.only_cells else cell.group in self.groups

    def up(self):
        raise NotImplementedError

    def down(self):
        pass

    def make_file(self, name):
        path = self.place.file(name)
        with open(path, "wb") as file:
            file.truncate(self.size_bytes)
        return path

    def run(self, cell, seconds, io_bytes=None):
        if cell.group == "ext4":
            if not self.file_system:
                self.file_system = FileSystem(self)
            return self.file_system.run(cell, seconds)
        command = fio_command(cell, self.file, self.size_bytes, seconds, io_bytes)
        out = proc.run(command, seconds=seconds * 4 + 300)
        return fio_result(json.loads(out[out.index("{"):]))

    def fill(self):
        """Once from end to end."""
        if not self.sparse:
            self.run(Cell("fill", "main", "write", MIB, 16), 600, io_bytes=self.size_bytes)

    def overwrite(self, seconds):
        """At random, as much as the disk holds or the time allows."""
        self.run(Cell("overwrite", "main", "randwrite", 4096, 32), seconds, io_bytes=self.size_bytes)

    def file_system_down(self):
        if self.file_system:
            self.file_system.down()
            self.file_system = None

    def settle(self):
        if self.process:
            proc.wait_idle(self.process.pid, self.options.settle, self.calm)

    def pause(self):
        """While others are measured it does nothing."""
        if self.process:
            proc.pause(self.process)

    def resume(self):
        if self.process:
            proc.resume(self.process)

    def peak_rss_mib(self):
        return proc.peak_rss_mib(self.process.pid) if self.process else None


class Plain(Contestant):
    name, title, primary = "plain", "plain file", True

    def up(self):
        self.file = self.make_file("plain.img")


class FuseDaemon(Contestant):
    """A daemon of ours: MOUNTPOINT/image.raw."""

    env = None

    def command(self):
        raise NotImplementedError

    def up(self):
        self.mount = self.place.file(self.name)
        self.file = os.path.join(self.mount, "image.raw")
        os.makedirs(self.mount, exist_ok=True)
        self.serve()

    def serve(self):
        self.process = self.place.start(self.command(), self.log, self.env)
        wait_until(lambda: os.path.exists(self.file) or self.process.poll() is not None, 120, f"{self.name} coming up")
        if self.process.poll() is not None:
            raise Failed(f"{self.name} didn't start:\n{proc.tail(self.log)}")

    def down(self):
        proc.unmount(self.mount)
        self.process.wait(120)


class Baseline(FuseDaemon):
    kind = ""

    def command(self):
        backing = self.place.file(f"{self.name}.img")
        if not os.path.exists(backing):
            self.make_file(f"{self.name}.img")
        return [self.options.program("bench/baseline-fuse"), self.kind, "-f", f"--key-file={self.options.key_file}",
                "--trusted-store=none", backing, self.mount]


class Null(Baseline):
    name, title, kind, primary = "null", "FUSE null device", "null", True
    groups = ("main", "depth1", "mixed", "sync")
    sparse = True


class Pass(Baseline):
    name, title, kind = "pass", "FUSE pass-through", "pass"
    groups = ("main", "depth1", "mixed", "sync")


class Crypt(Baseline):
    name, title, kind, primary = "cryptdisk", "CryptDisk", "crypt", True


class Pfs(Baseline):
    name, title, kind = "pfsdisk", "PfsDisk", "pfs"

    def make_file(self, name):
        """Tree and journal take room beside the data."""
        path = self.place.file(name)
        with open(path, "wb") as file:
            file.truncate(self.size_bytes + self.size_bytes // 8 + (64 << 20))
        return path


class MlsDisk(FuseDaemon):
    name, title, primary = "mlsdisk", "MlsDisk", True
    is_log = True
    calm = 0.4          # the cleaner begins a quarter of a second after the last write
    store = "file"

    def __init__(self, place, options):
        super().__init__(place, options)
        self.disk_bytes = self.size_bytes * 100 // options.fill

    def store_uri(self):
        return "none" if self.store == "none" else "file:" + self.place.file(f"{self.name}.store")

    def format(self):
        backing = self.place.file(f"{self.name}.img")
        proc.run([self.options.program("mlsdisk-format"), f"--size={self.disk_bytes // 4096 * 4096}",
                  f"--key-file={self.options.key_file}", f"--trusted-store={self.store_uri()}", backing])
        return backing

    def command(self):
        backing = self.place.file(f"{self.name}.img")
        if not os.path.exists(backing):
            self.format()
        return [self.options.program("mlsdisk-fuse"), "-f", f"--key-file={self.options.key_file}",
                f"--trusted-store={self.store_uri()}", backing, self.mount]

    def stats(self):
        return json.loads(os.getxattr(self.file, "user.mlsdisk.stats"))


class MlsDiskOpenssl(MlsDisk):
    name, title, primary = "mlsdisk-openssl", "MlsDisk, OpenSSL alone", False
    groups = ("main",)
    env = {"MLS_AEAD_ENGINE": "openssl"}


class MlsDiskNone(MlsDisk):
    """No trusted store: the sync without the cost of the register's own file."""
    name, title = "mlsdisk-none", "MlsDisk, store none"
    groups = ("sync",)
    store = "none"


class MlsDiskFull(MlsDisk):
    """Every block of it holds data: the cleaner has only the spare space that each disk has."""

    name, title, primary = "mlsdisk-full", "MlsDisk, 100 % full", False
    only_cells = ("seq-write", "rnd-w-4k", "seq-read", "rnd-r-4k")

    def __init__(self, place, options):
        super().__init__(place, options)
        self.disk_bytes = self.size_bytes


class OtherSize(MlsDisk):
    only_cells = ("sync-1",)
    sparse = True
    store = "none"
    primary = False
    bytes = 0

    def __init__(self, place, options):
        super().__init__(place, options)
        self.size_bytes = self.disk_bytes = self.bytes


class MlsDisk64M(OtherSize):
    name, title, bytes = "mlsdisk-64m", "MlsDisk of 64 MiB, store none", 64 << 20


class MlsDisk1T(OtherSize):
    name, title, bytes = "mlsdisk-1t", "MlsDisk of 1 TiB, store none", 1 << 40


class Engine(MlsDisk):
    """No FUSE and no daemon: engine_bench opens the disk for each cell."""

    name, title, primary = "engine", "MlsDisk in-process", False
    groups = ("main", "depth1", "mixed", "sync")
    store = "file"
    rss = None

    def takes(self, cell):
        return MlsDisk.takes(self, cell) and not cell.dsync     # a call of its own in a file, not in the engine

    def up(self):
        self.backing = self.format()

    def down(self):
        pass

    def run(self, cell, seconds, io_bytes=None):
        out = proc.run(
            [self.options.program("bench/engine_bench"), f"--key-file={self.options.key_file}",
             f"--store={self.store_uri()}", f"--rw={cell.rw}", f"--bs={cell.block_bytes}", f"--depth={cell.depth}",
             f"--writers={cell.writers}", f"--sync-every={cell.sync_every}", f"--size={self.size_bytes}",
             f"--ms={int(seconds * 1000)}"] + ([f"--io-bytes={io_bytes}"] if io_bytes else []) + [self.backing],
            seconds=seconds * 4 + 300)
        result = json.loads(out)
        self.rss = max(self.rss or 0, result.pop("peak_rss_mib"))
        return result

    def settle(self):
        pass

    def peak_rss_mib(self):
        return self.rss


class QemuLuks(Contestant):
    """qemu-storage-daemon: LUKS (AES-256-XTS) exported as one file, O_DIRECT below."""

    name, title, by_others = "qemu-luks", "qemu-storage-daemon, LUKS", True

    @staticmethod
    def missing():
        absent = [tool for tool in ("qemu-img", "qemu-storage-daemon") if not shutil.which(tool)]
        return f"{' and '.join(absent)} not installed (packages qemu-utils, qemu-system-common)" if absent else None

    def up(self):
        image, secret = self.place.file("qemu.luks"), self.place.file("qemu.secret")
        self.file = self.place.file("qemu.raw")
        for path, content in ((secret, "only a benchmark"), (self.file, "")):
            with open(path, "w") as file:
                file.write(content)
        create = ["qemu-img", "create", "-q", "-f", "luks", "--object", f"secret,id=key,file={secret}", "-o",
                  "key-secret=key,cipher-alg=aes-256,cipher-mode=xts,iter-time=100", image, str(self.size_bytes)]
        try:
            proc.run(create)
        except Failed:              # on a busy machine it can't time its key derivation
            proc.run(create)
        self.process = self.place.start(
            ["qemu-storage-daemon", "--object", f"secret,id=key,file={secret}",
             "--blockdev", f"driver=file,node-name=below,filename={image},cache.direct=on,aio={self.aio()}",
             "--blockdev", "driver=luks,node-name=disk,file=below,key-secret=key",
             "--export", f"type=fuse,id=export,node-name=disk,mountpoint={self.file},writable=on,growable=off"], self.log)
        wait_until(lambda: os.path.getsize(self.file) == self.size_bytes or self.process.poll() is not None, 60,
                   "qemu-storage-daemon")
        if self.process.poll() is not None:
            raise Failed(f"qemu-storage-daemon didn't start:\n{proc.tail(self.log)}")

    @staticmethod
    def aio():
        """io_uring where this build of qemu has it."""
        try:
            proc.run(["qemu-io", "-f", "raw", "-n", "-c", "read 0 512", "--image-opts",
                      "driver=file,aio=io_uring,cache.direct=on,filename=/dev/zero"])
        except (Failed, OSError):
            return "threads"
        return "io_uring"

    def down(self):
        proc.stop(self.process)
        proc.unmount(self.file)


class Gocryptfs(Contestant):
    """A directory of encrypted files (AES-256-GCM per block, no tree: stale blocks aren't noticed), one big file in it."""

    name, title, by_others = "gocryptfs", "gocryptfs", True

    @staticmethod
    def missing():
        return None if shutil.which("gocryptfs") else "not installed (package gocryptfs)"

    def up(self):
        cipher, password = self.place.file("gocryptfs.cipher"), self.place.file("gocryptfs.password")
        self.mount = self.place.file("gocryptfs")
        self.file = os.path.join(self.mount, "image.raw")
        os.mkdir(cipher)
        os.mkdir(self.mount)
        with open(password, "w") as file:
            file.write("only a benchmark\n")
        proc.run(["gocryptfs", "-init", "-q", "-passfile", password, "-scryptn", "10", cipher])
        self.process = self.place.start(["gocryptfs", "-fg", "-q", "-passfile", password, cipher, self.mount], self.log)
        wait_until(lambda: os.path.ismount(self.mount) or self.process.poll() is not None, 60, "gocryptfs")
        if self.process.poll() is not None:
            raise Failed(f"gocryptfs didn't start:\n{proc.tail(self.log)}")
        with open(self.file, "wb") as file:
            file.truncate(self.size_bytes)

    def run(self, cell, seconds, io_bytes=None):
        drop_page_cache()       # it doesn't read its files with O_DIRECT: let it read the disk as the others do
        return super().run(cell, seconds, io_bytes)

    def down(self):
        proc.unmount(self.mount)
        proc.stop(self.process)


def drop_page_cache():
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
    except OSError:
        pass                    # not root: said in doc/performance.md


ALL = (Plain, Null, Pass, Crypt, Pfs, QemuLuks, Gocryptfs, MlsDisk, Engine, MlsDiskOpenssl, MlsDiskFull, MlsDiskNone,
       MlsDisk64M, MlsDisk1T)
AMPLIFYING = (Crypt, Pfs, MlsDisk)
