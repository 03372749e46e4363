"""The table of what was tried and what happened, from a run of the tests.

    python tests/reliability.py JUNIT.xml ...     writes benchmarks/results/reliability.json and docs/reliability.md

`make test-faults` and `make test-cluster` call it; results of tests that were not run again are kept.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks/results/reliability.json"
PAGE = ROOT / "docs/reliability.md"
MARK = "<!-- generated below this line by `make test-faults` and `make test-cluster` -->\n"
GROUPS = {
    "tests.faults.test_broken_runs": "Runs that were killed or disturbed",
    "tests.faults.test_disk_and_memory": "Disk and memory",
    "tests.test_download": "Servers that misbehave",
    "tests.test_archives": "Archives that lie",
    "tests.cluster.test_slurm": "A real SLURM of one node",
    "tests.cluster.test_profile": "Profile, conda, container, module (static, and a dry run)",
    "tests.cluster.test_wheel": "The wheel in a clean environment",
}
OTHER = "Bad input"


def read_junit(path: Path) -> dict[str, dict[str, str]]:
    """Outcome of every test of a junit file: by its id, what was tried and what happened."""
    found = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        name, module = case.get("name", ""), case.get("classname", "")
        outcome, words = "as it should", ""
        for tag, said in (("failure", "FAILED"), ("error", "FAILED"), ("skipped", "not run")):
            node = case.find(tag)
            if node is not None:
                outcome = said
                words = (node.get("message") or "").splitlines()[0][:200] if said == "not run" else ""
        found[f"{module}::{name}"] = {"module": module, "name": name, "outcome": outcome, "reason": words}
    return found


def words(name: str) -> str:
    """A test's name as a sentence; its parameters stay as they are."""
    head, bracket, parameters = name.partition("[")
    text = head.removeprefix("test_").replace("_", " ")
    shown = re.sub(r"[|`\\]", " ", parameters.removesuffix("]"))
    return text[0].upper() + text[1:] + (f" ({shown[:60]})" if bracket else "")


def table(record: dict[str, dict[str, str]]) -> str:
    """Markdown: a count per group, then what was tried; cases of one test with parameters are one line."""
    groups: dict[str, dict[str, list[dict[str, str]]]] = {}
    for entry in record.values():
        group = GROUPS.get(entry["module"], OTHER)
        groups.setdefault(group, {}).setdefault(f"{entry['module']}::{entry['name'].partition('[')[0]}", []).append(
            entry
        )
    n = len(record)
    good = sum(e["outcome"] == "as it should" for e in record.values())
    skipped = sum(e["outcome"] == "not run" for e in record.values())
    lines = [f"{n} cases: {good} ended as they should, {n - good - skipped} failed, {skipped} were not run.", ""]
    for group in [*dict.fromkeys(GROUPS.values()), OTHER]:
        if group not in groups:
            continue
        lines += [f"### {group}", "", "| what was tried | cases | what happened |", "|---|---:|---|"]
        for _, entries in sorted(groups[group].items()):
            outcomes = sorted({e["outcome"] + (f" ({e['reason']})" if e["reason"] else "") for e in entries})
            label = words(entries[0]["name"].partition("[")[0])
            lines.append(f"| {label} | {len(entries)} | {'; '.join(outcomes).replace('|', ' ')} |")
        lines.append("")
    return "\n".join(lines)


def main(paths: list[str]) -> int:
    """Merge the outcomes into the record and write the page; returns 1 if any case failed."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    new: dict[str, dict[str, str]] = {}
    for path in paths:
        new |= read_junit(Path(path))
    modules = {e["module"] for e in new.values()}
    record = {k: v for k, v in record.items() if v["module"] not in modules} | new
    record = dict(sorted(record.items()))
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    head = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(head + MARK + "\n" + table(record))
    return int(any(e["outcome"] == "FAILED" for e in record.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
