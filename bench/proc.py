# SPDX-License-Identifier: MPL-2.0
"""Processes, mounts and their end: whatever is started here is ended here, by its id."""

import os
import shutil
import signal
import subprocess
import sys
import time


class Failed(Exception):
    """Something the run can't do without didn't work; the message is for the user."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not after {seconds:g} s")
        time.sleep(0.01)


def start(command, log, env=None):
    """In a session of its own: Ctrl-C is for us, we end it in order."""
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                env={**os.environ, **(env or {})}, start_new_session=True)


def stop(process, how=signal.SIGTERM, seconds=60):
    """True if it ended as asked."""
    if process is None or process.poll() is not None:
        return True
    process.send_signal(how)
    resume(process)
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def pause(process):
    """It does nothing until resumed, not even what it does by itself."""
    process.send_signal(signal.SIGSTOP)


def resume(process):
    process.send_signal(signal.SIGCONT)


def run(command, seconds=600, env=None, **kwargs):
    """Its standard output. It doesn't outlive us, whatever interrupts us."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, **(env or {})}, start_new_session=True, **kwargs)
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException as interrupted:
        stop(process, seconds=10)
        if isinstance(interrupted, subprocess.TimeoutExpired):
            raise Failed(f"{' '.join(command[:3])} ...: not done after {seconds} s") from None
        raise
    if process.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit status {process.returncode}\n{err[-1500:]}{out[-500:]}")
    return out


def mounts_below(directory):
    """Mount points at or below directory, deepest first."""
    prefix = os.path.realpath(directory)
    with open("/proc/self/mountinfo") as file:
        places = [line.split()[4].encode().decode("unicode_escape") for line in file]
    return sorted((p for p in places if p == prefix or p.startswith(prefix + "/")), key=len, reverse=True)


def loops_below(directory):
    """Loop devices on files at or below directory."""
    prefix = os.path.realpath(directory) + "/"
    found = []
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/loop/backing_file") as file:
                if file.read().startswith(prefix):
                    found.append("/dev/" + name)
        except OSError:
            continue
    return found


def unmount(place):
    """An ordinary unmount; lazily only if its server is dead or it stays busy."""
    for attempt in range(50):
        if place not in mounts_below(place):
            return
        command = ["umount", place] if attempt < 40 else ["umount", "-l", place]
        if os.geteuid() != 0:
            command = ["fusermount3", "-u"] + (["-z"] if attempt >= 40 else []) + [place]
        if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)


class Workplace:
    """The directory where everything lies. Leaving it ends and removes all of it."""

    def __init__(self, below):
        self.path = os.path.join(below, f"mlsdisk-bench.{os.getpid()}")
        self.processes = []

    def __enter__(self):
        os.mkdir(self.path, 0o700)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupted)
        return self

    def _interrupted(self, number, _frame):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)     # the way out isn't interrupted again
        raise SystemExit(128 + number)

    def start(self, command, log, env=None):
        process = start(command, log, env)
        self.processes.append(process)
        return process

    def __exit__(self, *_):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        say("cleaning up ...")
        for process in self.processes:
            resume(process)
        for place in mounts_below(self.path):       # file systems on loop devices lie deepest
            if "/ext4" in place:
                unmount(place)
        for loop in loops_below(self.path):
            subprocess.run(["losetup", "-d", loop], capture_output=True)
        for place in mounts_below(self.path):
            unmount(place)
        for process in self.processes:
            try:
                process.wait(30)                    # unmounted: it ends by itself
            except subprocess.TimeoutExpired:
                stop(process, seconds=30)
        left = mounts_below(self.path)
        if left:
            say(f"still mounted, left as it is: {' '.join(left)}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        return False

    def file(self, name):
        return os.path.join(self.path, name)


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def io_counter(pid, name):
    with open(f"/proc/{pid}/io") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise Failed(f"/proc/{pid}/io has no {name}")


def peak_rss_mib(pid):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0


def wait_idle(pid, seconds, calm):
    """Until a daemon's own work (cleaning, compaction) is done: it uses no processor for as long as calm."""
    began = since = time.monotonic()
    seen = cpu_ticks(pid)
    while time.monotonic() < min(since + calm, began + seconds):
        time.sleep(0.06)
        now = cpu_ticks(pid)
        if now != seen:
            seen, since = now, time.monotonic()
