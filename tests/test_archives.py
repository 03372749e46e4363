"""Archives that try to write elsewhere, to fill the disk, or are damaged."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicheloop import archives
from nicheloop.errors import UserError

pytestmark = pytest.mark.faults

LIMITS: dict[str, Any] = {"max_bytes": 10**9, "max_ratio": 1000, "max_files": 100}
KINDS = ["x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"]


def make(path: Path, members: dict[str, bytes]) -> Path:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:" + path.suffix[1:].replace("tar", "")) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o777
            archive.addfile(member, io.BytesIO(content))
    return path


def refused(path: Path, words: str, **limits: Any) -> None:
    target = path.parent / "target"
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(UserError, match=words) as err:
        archives.unpack(path, target, **{**LIMITS, **limits})
    assert str(path) in str(err.value)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", KINDS)
def test_files_and_folders_are_unpacked_without_their_rights(tmp_path: Path, name: str) -> None:
    members = {"a/b/c.txt": b"1", "d.txt": b"22", "empty": b""}
    folder = archives.unpack(make(tmp_path / name, members), tmp_path / "target", **LIMITS)
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == members
    assert not any(p.stat().st_mode & stat.S_IXUSR for p in folder.rglob("*") if p.is_file())
    archives.unpack(make(tmp_path / name, {"new": b"3"}), tmp_path / "target", **LIMITS)
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_an_archive_of_the_folder_itself_is_unpacked(tmp_path: Path) -> None:
    """As `tar czf x.tar.gz .` writes it: the first member is the folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_bytes(b"1")
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, arcname=".")
    folder = archives.unpack(path, tmp_path / "target", **LIMITS)
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("a.txt", b"1")]


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.zip"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil", "a\nb", "x" * 300])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    refused(make(tmp_path / kind, {"good": b"1", name: b"2"}), "outside its folder")


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, type_: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = type_, "/etc/passwd"
        archive.addfile(member)
    refused(tmp_path / "x.tar", "is a (link|device)")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    refused(tmp_path / "x.zip", "is a link")


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.zip"])
def test_a_bomb_is_stopped_by_its_ratio_and_by_its_size(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    path = make(tmp_path / kind, {"zeros": bytes(3_000_000)})
    refused(path, "download.max_ratio", max_ratio=10)
    refused(path, "download.max_unpacked_gb", max_bytes=100_000)
    refused(make(tmp_path / kind, {f"f{i}": b"" for i in range(20)}), "more than 5 files", max_files=5)


def test_a_size_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size in a zip's directory says 1 byte."""
    monkeypatch.setattr(archives, "SMALL", 1000)
    path = make(tmp_path / "x.zip", {"zeros": bytes(1_000_000)})
    data = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (1).to_bytes(4, "little"))
    path.write_bytes(data)
    refused(path, "max_ratio|damaged", max_ratio=2)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", ["half", "nothing", "text"])
def test_damage_is_named(tmp_path: Path, name: str, how: str) -> None:
    path = make(tmp_path / name, {"a": bytes(range(256)) * 400, "b": b"2"})
    data = path.read_bytes()
    path.write_bytes({"half": data[: len(data) // 2], "nothing": b"", "text": b"<html>404</html>"}[how])
    refused(path, "truncated or damaged")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for content in (b"1", b"2"):
            member = tarfile.TarInfo("a")
            member.size = 1
            archive.addfile(member, io.BytesIO(content))
    refused(tmp_path / "x.tar", "'a' stands twice")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab./\\:~-\u00e9 ", min_size=1, max_size=12))
def test_whatever_the_name_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    outside = sorted(p for p in tmp_path.rglob("*") if root not in (p, *p.parents))
    with contextlib.suppress(UserError):
        archives.unpack(make(root / "x.tar", {name: b"1"}), root / "target", **LIMITS)
    assert sorted(p for p in tmp_path.rglob("*") if root not in (p, *p.parents)) == outside
    assert {p.name for p in root.iterdir()} <= {"x.tar", "target"}
