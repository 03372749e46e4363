"""What a step has used when it ends: seconds, processor seconds, peak memory of it and of the processes it started."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

INTERVAL = 0.5  # seconds between two looks at other processes; each look finds the highest point since their start


class Used:
    """Counts from its start; in a ``with`` block it also looks at the processes that are started meanwhile.

    ``str`` gives the line of the log.  Memory is the highest point of this process and, added to it, the highest sum
    over processes that ran at the same time of their highest points: pages that processes share count for each.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._children = 0.0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Used:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(INTERVAL):
            with contextlib.suppress(OSError):  # a process ended while it was looked at
                self._children = max(self._children, sum(highest(child) for child in descendants("self")))

    def __str__(self) -> str:
        """Seconds, processor seconds and peak."""
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        processor = sum(u.ru_utime + u.ru_stime for u in (own, others))
        # where processes cannot be looked at: the largest of the others; bytes on macOS, kB elsewhere
        peak = highest("self") or (own.ru_maxrss + others.ru_maxrss) / (1e6 if sys.platform == "darwin" else 1e3)
        return (
            f"{time.perf_counter() - self._start:.2f} s: {processor:.2f} s of processor time, "
            f"peak {peak + self._children:.0f} MB"
        )


def descendants(process: str) -> Iterator[str]:
    """Identifiers of the processes a process has started, and of theirs (Linux; elsewhere none)."""
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        for child in listed.read_text().split():
            yield child
            yield from descendants(child)


def highest(process: str) -> float:
    """Highest resident memory of a process in MB; 0 where it cannot be known.

    Not ``ru_maxrss``: for a process that was started by another it begins with the memory of that other.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)
