# SPDX-License-Identifier: MPL-2.0
#
# host_full.py IMAGE MODEL COMMAND... - writes, discards and checks chunks of a disk, by their numbers.
#
#   fill FROM        write chunks from FROM on until ENOSPC, syncing after each eighth; then sync: prints how many
#   write FROM NR    as many, none of which may fail; sync
#   later FROM NR    the same, but ENOSPC is tried again for five seconds
#   discard FROM NR  sync
#   check            every chunk is what was written to it last
#
# MODEL is a file with a version a chunk: what was acknowledged and synced.
import errno, fcntl, json, mmap, os, struct, subprocess, sys, time

CHUNK = 256 << 10

def content(number, version):
    if version == 0:
        return bytes(CHUNK)
    return struct.pack("<QQ", number * 0x9e3779b97f4a7c15 & (1 << 64) - 1, version) * (CHUNK // 16)

class Disk:
    def __init__(self, image, model):
        self.fd = os.open(image, os.O_RDWR | os.O_DIRECT)
        self.buf = mmap.mmap(-1, CHUNK)
        self.path = model
        self.versions = json.load(open(model)) if os.path.exists(model) else [0] * (os.fstat(self.fd).st_size // CHUNK)

    def write(self, number):
        self.buf[:] = content(number, max(self.versions) + 1)
        if os.pwritev(self.fd, [self.buf], number * CHUNK) != CHUNK:
            raise OSError(errno.ENOSPC, "a part")
        self.versions[number] = max(self.versions) + 1

    def sync(self):
        os.fsync(self.fd)
        json.dump(self.versions, open(self.path, "w"))

    def fill(self, first):
        number = first
        try:
            while True:
                self.write(number)
                number += 1
                if number % 8 == 0:
                    self.sync()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        self.torn = number          # its blocks are the old ones or the new ones: nobody knows
        self.sync()
        self.discard(number, 1)
        print(number - first)

    def discard(self, first, nr):
        subprocess.run(["fallocate", "--punch-hole", "--offset", str(first * CHUNK), "--length", str(nr * CHUNK),
                        "/proc/self/fd/%d" % self.fd], pass_fds=[self.fd], check=True)
        self.versions[first:first + nr] = [0] * nr
        self.sync()

    def write_all(self, first, nr, seconds):
        for number in range(first, first + nr):
            until = time.monotonic() + seconds
            while True:
                try:
                    self.write(number)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC or time.monotonic() > until:
                        raise
                    time.sleep(0.02)
        self.sync()

    def check(self):
        for number, version in enumerate(self.versions):
            os.preadv(self.fd, [self.buf], number * CHUNK)
            if self.buf[:] != content(number, version):
                sys.exit("chunk %d isn't version %d" % (number, version))

disk = Disk(sys.argv[1], sys.argv[2])
command, numbers = sys.argv[3], [int(arg) for arg in sys.argv[4:]]
if command == "fill":
    disk.fill(numbers[0])
elif command in ("write", "later"):
    disk.write_all(numbers[0], numbers[1], 5 if command == "later" else 0)
elif command == "discard":
    disk.discard(numbers[0], numbers[1])
else:
    disk.check()
