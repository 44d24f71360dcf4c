# SPDX-License-Identifier: MPL-2.0
"""The figures to reach, and what a run says about each."""

from dataclasses import dataclass
from statistics import median

from cells import BY_NAME

WRITES = ("seq-write", "rnd-w-4k", "rnd-w-32k", "rnd-w-256k")
READS = ("seq-read", "rnd-r-4k", "rnd-r-32k", "rnd-r-256k")
MAIN = WRITES + READS


@dataclass(frozen=True)
class Target:
    cell: str               # of CELLS, or a fact: reopen_ms ...
    against: str            # a contestant, "limit", or nothing (a fact)
    wanted: float
    who: str = "mlsdisk"
    at_most: bool = False   # a ceiling, not a floor
    strict: bool = False    # more than wanted, not only as much


def _all():
    targets = []
    limit = dict(zip(MAIN, (0.75, 0.75, 0.75, 0.75, 0.75, 0.6, 0.75, 0.75)))
    crypt = dict(zip(MAIN, (1.0, 3.0, 1.8, 1.2, 1.0, 1.0, 1.0, 1.0)))
    plain = {"rnd-w-4k": 2.0, "rnd-w-32k": 1.2}
    for against, wanted in (("limit", limit), ("cryptdisk", crypt), ("plain", plain)):
        targets += [Target(cell, against, figure) for cell, figure in wanted.items()]
    for against in ("gocryptfs", "qemu-luks"):
        targets += [Target(cell, against, 2.0) for cell in MAIN]
    targets += [Target(cell + "-d1", "cryptdisk", 0.9) for cell in READS]
    targets += [Target(cell + "-d1", "cryptdisk", 1.0, strict=True) for cell in WRITES]
    targets += [
        Target("sync-1", "plain", 0.5, "mlsdisk-none"), Target("sync-1", "plain", 1 / 3),
        Target("sync-1", "plain", 0.5, "mlsdisk-64m"), Target("sync-1", "plain", 0.5, "mlsdisk-1t"),
        Target("sync-8w", "plain", 1.0, "mlsdisk-none", strict=True), Target("sync-8w", "plain", 1.0, strict=True),
        Target("sync-8w", "plain", 1.0, "engine", strict=True), Target("dsync-8w", "plain", 1.0, strict=True),
        Target("dsync-8w", "plain", 1.0, "mlsdisk-none", strict=True),
        Target("amplification-seq", "", 1.1, at_most=True), Target("amplification-rnd", "", 1.1, at_most=True),
        Target("reopen-ms", "", 1000, at_most=True), Target("peak-rss-mib", "", 512, at_most=True),
    ]
    for against, wanted in (("limit", limit), ("cryptdisk", crypt), ("plain", plain)):
        targets += [Target(cell, against, figure / 2, "mlsdisk-openssl") for cell, figure in wanted.items()]
    return targets


TARGETS = _all()


class Samples:
    """samples: a list of {cell, contestant, repeat, value}."""

    def __init__(self, samples):
        self.table = {}
        for sample in samples:
            self.table.setdefault((sample["cell"], sample["contestant"]), {})[sample["repeat"]] = sample["value"]

    def values(self, cell, who):
        return sorted(self.table.get((cell, who), {}).values())

    def median(self, cell, who):
        values = self.values(cell, who)
        return median(values) if values else None

    def _at(self, cell, who, repeat):
        """In that repeat; the median where it wasn't measured in it."""
        return self.table.get((cell, who), {}).get(repeat, self.median(cell, who))

    def _reference(self, cell, against, repeat):
        if against != "limit":
            return self._at(cell, against, repeat)
        plain_cell = "seq-write" if BY_NAME[cell].writes else cell
        both = self._at(cell, "null", repeat), self._at(plain_cell, "plain", repeat)
        return None if None in both else min(both)

    def ratio(self, cell, who, against):
        """The median of the ratios within each repeat: more than 1 is better than the other. Or nothing."""
        ratios = []
        for repeat, value in self.table.get((cell, who), {}).items():
            reference = self._reference(cell, against, repeat)
            if reference and value:
                ratios.append(value / reference if BY_NAME[cell].higher_is_better else reference / value)
        return median(ratios) if ratios else None


def judge(document):
    """[(target, what was reached or None, met or None)]"""
    samples = Samples(document["samples"])
    verdicts = []
    for target in TARGETS:
        if target.against:
            got = samples.ratio(target.cell, target.who, target.against)
        else:
            got = document["facts"].get(target.who, {}).get(target.cell)
        if got is None:
            met = None
        elif target.at_most:
            met = got <= target.wanted
        else:
            met = got > target.wanted if target.strict else got >= target.wanted
        verdicts.append((target, got, met))
    return verdicts
