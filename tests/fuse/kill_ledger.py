# SPDX-License-Identifier: MPL-2.0
#
# kill_ledger.py write|check DIR LEDGER - files on a file system whose disk dies, and what of them must be there.
#
#   write  overwrites blocks of DIR/blocks, makes, renames and deletes files, each step ended by fsync, until the
#          first I/O error; prints "started" after the first step, and how many steps were synced at the end
#   check  everything that fsync had promised is there (or, of blocks, something that was written later), whole
#
# LEDGER is kept outside of the disk. Content tells by itself what it is: a number, a version, and a digest of both.
import hashlib, json, os, random, struct, sys

BLOCK = 4096
NR_BLOCKS = 16384
NR_FILES = 40


def content(number, version, size):
    head = struct.pack("<QQ", number, version)
    return (head + hashlib.shake_128(head).digest(max(size, 16) - 16))[:size]


class Ledger:
    def __init__(self, path):
        self.path = path
        state = json.load(open(path)) if os.path.exists(path) else {}
        self.version = state.get("version", 0)          # the last that was ever used
        self.blocks = state.get("blocks", {})           # number -> version that was synced
        self.files = state.get("files", {})             # name -> size; the version is in the name
        self.gone = state.get("gone", [])               # names whose deletion was synced

    def save(self):
        with open(self.path + ".new", "w") as file:
            json.dump({k: v for k, v in vars(self).items() if k != "path"}, file)
        os.rename(self.path + ".new", self.path)


def sync_dir(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def step_blocks(ledger, path):
    numbers = random.sample(range(NR_BLOCKS), random.randint(1, 64))
    fd = os.open(path + "/blocks", os.O_RDWR | os.O_CREAT)
    try:
        for number in numbers:
            os.pwrite(fd, content(number, ledger.version, BLOCK), number * BLOCK)
        os.fsync(fd)
    finally:
        os.close(fd)
    if not ledger.blocks:
        sync_dir(path)
    for number in numbers:
        ledger.blocks[str(number)] = ledger.version


def step_file(ledger, path):
    name, size = "file.%d" % ledger.version, random.randint(0, 300000)
    fd = os.open(path + "/unfinished", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, content(NR_BLOCKS, ledger.version, size))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + "/unfinished", path + "/" + name)
    sync_dir(path)
    ledger.files[name] = size


def step_delete(ledger, path):
    name = random.choice(list(ledger.files))
    del ledger.files[name]                              # from here on it may be there or not
    os.unlink(path + "/" + name)
    sync_dir(path)
    ledger.gone.append(name)


def write(ledger, path):
    steps = 0
    try:
        while True:
            ledger.version += 1
            if len(ledger.files) > NR_FILES:
                step_delete(ledger, path)
            elif random.random() < 0.3:
                step_file(ledger, path)
            else:
                step_blocks(ledger, path)
            steps += 1
            if steps == 1:
                print("started", flush=True)
    except OSError as error:
        print("%d steps synced, then: %s" % (steps, error.strerror), flush=True)
    ledger.save()


def check(ledger, path):
    lost = []
    with open(path + "/blocks", "rb") as file:
        for number in range(NR_BLOCKS):
            block, synced = file.read(BLOCK), ledger.blocks.get(str(number), 0)
            if len(block) < BLOCK or block == bytes(BLOCK):
                if synced:
                    lost.append("block %d: version %d is gone" % (number, synced))
                continue
            version = struct.unpack("<QQ", block[:16])[1]
            if block != content(number, version, BLOCK):
                lost.append("block %d: neither old nor new" % number)
            elif not synced <= version <= ledger.version:
                lost.append("block %d: version %d, synced was %d" % (number, version, synced))
    for name, size in ledger.files.items():
        try:
            data = open(path + "/" + name, "rb").read()
        except OSError as error:
            lost.append("%s: %s" % (name, error.strerror))
            continue
        if data != content(NR_BLOCKS, int(name.split(".")[1]), size):
            lost.append("%s: isn't what was synced" % name)
    lost += ["%s: is there again" % name for name in ledger.gone if os.path.lexists(path + "/" + name)]
    print("%d blocks, %d files, %d deletions looked at" % (len(ledger.blocks), len(ledger.files), len(ledger.gone)))
    if lost:
        sys.exit("\n".join(lost[:20]))


command, directory, ledger_path = sys.argv[1:]
{"write": write, "check": check}[command](Ledger(ledger_path), directory)
