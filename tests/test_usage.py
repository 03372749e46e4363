"""What a step says it has used."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from nicheloop import usage

CHILD = """
import sys
block = bytearray(200_000_000)
del block
print("ready", flush=True)
sys.stdin.read()
"""
LINE = re.compile(r"([\d.]+) s: ([\d.]+) s of processor time, peak (\d+) MB")

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes can be looked at on Linux only")


def child() -> subprocess.Popen[str]:
    """A process that has held 200 MB, and ends when its input does."""
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def peak(used: usage.Used) -> float:
    found = LINE.fullmatch(str(used))
    assert found, str(used)
    return float(found[3])


@linux
def test_the_peak_holds_what_children_had_and_not_what_their_parent_has():
    block = bytearray(300_000_000)
    with usage.Used() as alone, child() as one:
        assert str(one.pid) in set(usage.descendants("self"))
        assert 200 < usage.highest(str(one.pid)) < 280  # a child's memory, though its parent holds 300 MB
    assert len(block) and peak(alone) > 300


@linux
def test_children_are_looked_at_while_they_run(monkeypatch):
    monkeypatch.setattr(usage, "INTERVAL", 0.01)
    with usage.Used() as used:
        before, end = peak(used), time.monotonic() + 20
        with child():
            while peak(used) < before + 200 and time.monotonic() < end:
                pass
    assert before + 200 <= peak(used)  # still said when it has ended


def test_the_line_is_there_where_processes_cannot_be_looked_at(monkeypatch):
    monkeypatch.setattr(usage, "highest", lambda process: 0.0)
    with usage.Used() as used:
        pass
    assert peak(used) > 10
