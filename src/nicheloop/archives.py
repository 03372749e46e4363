"""Unpacking archives of strangers: nothing outside the target, no links, bounded size.  See docs/datasets.md."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from nicheloop.errors import UserError

BLOCK = 1 << 20
SMALL = 10 << 20  # what an archive may always unpack to, whatever its own size
UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")
MAX_PATH = 240
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, OSError,
           NotImplementedError, RuntimeError, UnicodeError, ValueError)  # fmt: skip


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """Relative path of a member below the target.

    Raises
    ------
    UserError
        For absolute paths, ``..``, backslashes, drive letters, control characters, and names that are too long.
    """
    path = PurePosixPath(name)
    if UNUSABLE.search(name) or path.is_absolute() or ".." in path.parts or not path.parts or len(name) > MAX_PATH:
        raise UserError(
            f"{archive}: holds {name[:100]!a}, which would be written outside its folder or cannot be a file's name. "
            "Nothing was unpacked; do not trust this archive."
        )
    return path


class _Budget:
    """What may still be written."""

    def __init__(self, archive: Path, max_bytes: int, max_ratio: float, max_files: int):
        self.archive, self.max_files, self.files = archive, max_files, 0
        by_ratio = int(max(archive.stat().st_size * max_ratio, SMALL))
        self.left = min(max_bytes, by_ratio)
        self.why = (
            f"download.max_unpacked_gb, {max_bytes / 1e9:g} GB"
            if max_bytes <= by_ratio
            else f"download.max_ratio, {max_ratio:g} times its size"
        )

    def file(self) -> None:
        self.files += 1
        if self.files > self.max_files:
            raise UserError(
                f"{self.archive}: holds more than {self.max_files} files (download.max_files). Nothing was unpacked."
            )

    def take(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise UserError(
                f"{self.archive}: unpacks to more than is allowed ({self.why}). Nothing was unpacked; raise the limit "
                "in the section 'download' if you trust the archive."
            )


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isdir() and member.name in (".", "./"):
                continue
            safe_name(member.name, path)
            if member.isdir():
                continue
            if not member.isfile():
                kind = "a link" if member.islnk() or member.issym() else "a device or other special file"
                raise UserError(
                    f"{path}: {member.name[:100]!a} is {kind}. Nothing was unpacked; only files are allowed."
                )
            content = archive.extractfile(member)
            assert content is not None
            yield member.name, content


def _zip_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            safe_name(member.filename, path)
            if member.is_dir():
                continue
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise UserError(
                    f"{path}: {member.filename[:100]!a} is a link. Nothing was unpacked; only files are allowed."
                )
            if member.flag_bits & 1:
                raise UserError(f"{path}: {member.filename[:100]!a} needs a password. Unpack the archive by hand.")
            with archive.open(member) as content:
                yield member.filename, content


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except DAMAGED as err:
        if isinstance(err, OSError) and err.errno is not None:  # the disk, not the archive
            raise UserError(f"{path}: cannot be unpacked ({err.strerror}: {err.filename}). Free some space.") from None
        reason = " ".join(str(err).split()) or type(err).__name__
        raise UserError(
            f"{path}: the archive is truncated or damaged ({reason}). Delete it and download it again."
        ) from None


def unpack(path: Path, folder: Path, *, max_bytes: int, max_ratio: float, max_files: int) -> Path:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into `folder`, which appears whole or not at all.

    Parameters
    ----------
    path
        The archive.
    folder
        Target; replaced if it exists.
    max_bytes
        Most that may be written, in bytes.
    max_ratio
        Most that may be written, in multiples of the archive's size (10 MB are always allowed).
    max_files
        Most files.

    Raises
    ------
    UserError
        For a member that is a link or leads elsewhere, an archive over a limit, damage, or a full disk.
    """
    budget = _Budget(path, max_bytes, max_ratio, max_files)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        with _damage(path):
            temporary.mkdir(parents=True)
            members = _zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path)
            for name, content in members:
                budget.file()
                target = temporary / safe_name(name, path)
                if target.exists():
                    raise UserError(f"{path}: {name[:100]!a} stands twice. Nothing was unpacked; do not trust it.")
                target.parent.mkdir(parents=True, exist_ok=True)
                # "x": never through a file that is there.  The mode is ours, so nothing becomes executable.
                with open(target, "xb") as out:
                    while block := content.read(BLOCK):
                        budget.take(len(block))
                        out.write(block)
                    out.flush()
                    os.fsync(out.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        try:
            temporary.replace(folder)
        except OSError:  # where the file system has no locks, another process may have been faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
