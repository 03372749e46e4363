"""Packaging: the lock, the conda environment and the files that travel with the package."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pins() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, flags=re.MULTILINE))


def test_lock_has_hashes_and_no_host():
    text = (ROOT / "requirements.lock").read_text()
    for word in ("http", "index-url", "find-links", "file:", "://", "/opt/"):
        assert word not in text, word
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    for block in blocks:
        if "==" in block.split("\n")[0]:
            assert "--hash=sha256:" in block, block.split("\n")[0]


def test_lock_meets_every_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(requirement for extra in optional for requirement in extra)]
    locked = pins()
    for requirement in wanted:
        name = re.split(r"[<>=!~\[ ;]", requirement, maxsplit=1)[0].lower()
        assert name in locked, name
        if "==" in requirement:
            assert locked[name] == requirement.split("==")[1].strip()


def test_conda_environment_has_the_same_pins():
    script = runpy.run_path(str(ROOT / ".ci/environment.py"))
    assert (ROOT / "environment.yml").read_text() == script["environment"](), "run `make lock`"
    text = (ROOT / "environment.yml").read_text()
    for name, version in re.findall(r"- ([a-z0-9._-]+)==(\S+)", text):
        assert pins()[name] == version


def test_wheel_carries_workflow_and_resources():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in build["force-include"].items():
        assert (ROOT / source).exists(), source
        assert target.startswith("nicheloop/")
    assert (ROOT / "src/nicheloop/py.typed").exists()


def test_no_foreign_path_or_large_file_is_tracked():
    for path in (p for part in ("src", "resources", "workflow", "docs") for p in (ROOT / part).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.stat().st_size <= 2**20, f"{path} is larger than 1 MiB"
