"""Fetching the files of a data set into a shared cache: resumed, checked, and never trusted.  See docs/datasets.md.

pooch does the bookkeeping of cache and checksums; `nicheloop.transfer` the transfer.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from nicheloop import archives, io
from nicheloop.errors import UserError
from nicheloop.transfer import BLOCK, Remote, Resumable, note_of

if TYPE_CHECKING:
    from nicheloop.config import Download

log = logging.getLogger("nicheloop")
# First bytes by ending: an error page saved under the name of a matrix must not be recorded as the truth.
MAGIC = {
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".zip": b"PK",
    ".h5": b"\x89HDF",
    ".h5ad": b"\x89HDF",
    ".loom": b"\x89HDF",
}


def cache_folder(options: Download) -> Path:
    """Folder shared by all runs: option `cache`, else ``NICHELOOP_CACHE``, else the platform's cache folder."""
    import pooch

    chosen = options.cache or os.environ.get("NICHELOOP_CACHE")
    return Path(chosen).expanduser().resolve() if chosen else Path(pooch.os_cache("nicheloop"))


def local_path(url: str) -> Path | None:
    """Path of a ``file:`` address or a plain path; None for an address of the network."""
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme.lower() in ("http", "https") else Path(url).expanduser()


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """Address with its beginning replaced where a mirror is set; the longest beginning wins."""
    for start in sorted(mirrors, key=len, reverse=True):
        if url.startswith(start):
            return mirrors[start] + url[len(start) :]
    return url


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """One process at a time; yields False where the file system has no locks and several may come this far."""
    import fcntl

    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def partial(target: Path, *, alone: bool) -> Iterator[Path]:
    """File in which what arrives of `target` is kept, for the next try or the next run.

    Without a lock each process fills a file of its own: it takes over what another one left by renaming it, which only
    one can do, and leaves what it has under the common name for the next.
    """
    common = target.with_name(target.name + ".part")
    if alone:
        yield common
        return
    own = io.own_name(target, "part")
    for left in [common, *(p for p in target.parent.glob(f".{target.name}.*.part") if io.stale(p))]:
        with contextlib.suppress(OSError):
            note_of(left).replace(note_of(own))
        with contextlib.suppress(OSError):
            left.replace(own)
            break
    try:
        yield own
    finally:
        for mine, theirs in ((own, common), (note_of(own), note_of(common))):
            with contextlib.suppress(OSError):
                mine.replace(theirs)


# --- checks -----------------------------------------------------------------------------------------------------------


def check_content(path: Path, name: str, place: str) -> None:
    """Refuse a file whose content is not what its name says, and a gzip file that ends early.

    `place` is the address or path to name.  Only for files whose checksum is not known: with one, every byte is checked
    anyway.
    """
    ending = next((e for e in MAGIC if name.lower().endswith(e)), "")
    with open(path, "rb") as handle:
        head = handle.read(8)
    if ending and not head.startswith(MAGIC[ending]):
        raise UserError(
            f"{place}: is no {ending} file (it starts with {head[:8]!r}): the server sent something else. "
            "Check the address."
        )
    if MAGIC.get(ending) == b"\x1f\x8b":
        try:
            with gzip.open(path, "rb") as handle:
                while handle.read(64 * BLOCK):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise UserError(
                f"{place}: the compressed file is truncated or damaged at its source ({err}). Try another mirror."
            ) from None


def _unpacked(path: Path, checksum: str, folder: Path, options: Download) -> Path:
    """Folder of an unpacked archive; unpacked again only if the archive is another."""
    mark = folder.with_name(folder.name + ".sha256")
    if not (folder.is_dir() and mark.exists() and mark.read_text() == checksum):
        mark.unlink(missing_ok=True)
        archives.unpack(
            path,
            folder,
            max_bytes=int(options.max_unpacked_gb * 1e9),
            max_ratio=options.max_ratio,
            max_files=options.max_files,
        )
        io.write_text(mark, checksum)
    return folder


# --- the cache --------------------------------------------------------------------------------------------------------


def _known_checksum(path: Path, memo: Mapping[str, Any]) -> str:
    """Checksum of a cached file; not computed again while size and time are those of the memo."""
    import pooch

    stat = path.stat()
    if memo.get("sha256") and (memo.get("size"), memo.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
        return str(memo["sha256"])
    return str(pooch.file_hash(str(path), alg="sha256"))


def _remember(path: Path, memo: Path, checksum: str, url: str) -> None:
    stat = path.stat()
    io.write_json(memo, {"sha256": checksum, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "url": url})


def _retrieve(
    remote: Remote, target: Path, known: str | None, options: Download, *, progress: bool, alone: bool
) -> None:
    """Download into the cache; the file appears whole and checked, or not at all."""
    import pooch

    url = mirrored(remote.url, options.mirrors)
    pooch.get_logger().setLevel(logging.ERROR)
    fetched = io.own_name(target, "new")
    try:
        # Checked under a name of its own, so that a file that was good stays until a better one is there.
        with partial(target, alone=alone) as part:
            transfer = Resumable(part, remote, options, progress, checked=known is not None)
            transfer(url, str(fetched), pooch)
            checksum = pooch.file_hash(str(fetched), alg="sha256")
            if checksum != known and transfer.mixed:
                log.info("%s: what two servers gave does not fit together; fetched again from its start", remote.name)
                transfer(url, str(fetched), pooch)
                checksum = pooch.file_hash(str(fetched), alg="sha256")
        if known is None:
            check_content(fetched, remote.name, url)
        elif checksum != known:
            where = "the catalogue" if remote.sha256 else f"its first download ({target.name}.json in the cache)"
            remedy = (
                "correct 'sha256' of the entry"
                if remote.sha256
                else f"delete {target} and {target}.json to accept the new one"
            )
            raise UserError(
                f"{url}: the content is not the one expected: sha256 {checksum}, by {where} it is {known}. If the "
                f"publisher replaced the file on purpose, {remedy}."
            )
        fetched.replace(target)
    finally:
        fetched.unlink(missing_ok=True)


def _cached(remote: Remote, target: Path, options: Download, *, progress: bool, alone: bool) -> str:
    """Make sure that the file is in the cache; returns its checksum."""
    memo_path = target.with_name(target.name + ".json")
    memo = io.read_json(memo_path) if memo_path.exists() else {}
    # Another address under the same name is another file: what was recorded of the first says nothing of it.
    same = memo.get("url") in (None, remote.url)
    known = remote.sha256 or (memo.get("sha256") if same else None)
    if target.exists() and (same or remote.sha256):
        checksum = _known_checksum(target, memo)
        if known is None:
            check_content(target, remote.name, str(target))
        if known in (None, checksum):
            _remember(target, memo_path, checksum, remote.url)
            return checksum
        if options.offline:
            raise UserError(
                f"{target}: is damaged (sha256 {checksum}, expected {known}). Fetch it again with the network on."
            )
        log.info("%s: the cached copy is damaged and is fetched again", remote.name)
    if options.offline:
        raise UserError(
            f"{remote.url}: is not in the cache, and the run is off line ('download.offline'). Fetch it where there is "
            f"a network with `nicheloop download {remote.dataset}`, or put it at {target}."
        )
    _retrieve(remote, target, known, options, progress=progress, alone=alone)
    checksum = _known_checksum(target, {})
    _remember(target, memo_path, checksum, remote.url)
    return checksum


def fetch(remote: Remote, options: Download, *, progress: bool = False) -> dict[str, Any]:
    """Make sure that a file is on this machine, checked and, where asked for, unpacked.

    Parameters
    ----------
    remote
        The file.
    options
        Section ``download`` of the configuration.
    progress
        Draw a bar on the terminal.

    Returns
    -------
    dict
        The receipt: ``dataset``, ``name``, ``url``, ``path``, ``folder`` (of the unpacked archive, or None),
        ``sha256``, ``size`` in bytes.  The same file gives the same receipt.

    Raises
    ------
    UserError
        If the file cannot be had, or is not the one expected: what, where, and what to do.
    """
    import pooch

    cache = cache_folder(options)
    folder = cache / remote.dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(
            f"{folder}: cannot be created ({err.strerror}). Set NICHELOOP_CACHE to a folder of yours."
        ) from None
    target = folder / remote.name
    try:
        with locked(folder / f".{remote.name}.lock") as alone:
            path = local_path(remote.url)
            if path is None:
                checksum, path = _cached(remote, target, options, progress=progress, alone=alone), target
            else:
                if not path.is_file():
                    raise UserError(f"{path}: no such file (of data set {remote.dataset}). Check its address.")
                checksum = pooch.file_hash(str(path), alg="sha256")
                if remote.sha256 not in (None, checksum):
                    raise UserError(f"{path}: sha256 {checksum}, expected {remote.sha256}: it is another file.")
            unpacked = _unpacked(path, checksum, folder / f"{remote.name}.unpacked", options) if remote.unpack else None
    except OSError as err:
        raise UserError(
            f"{err.filename or folder}: {err.strerror or err}. Check space and permissions of the cache {cache}."
        ) from None
    return {
        "dataset": remote.dataset, "name": remote.name, "url": remote.url, "path": str(path),
        "folder": None if unpacked is None else str(unpacked), "sha256": checksum, "size": path.stat().st_size,
    }  # fmt: skip


def run_download(
    file: Mapping[str, Any], dataset: str, out: str | Path, *, options: Download, progress: bool = False
) -> None:
    """Fetch one file of a data set and write its receipt; see `fetch`."""
    io.write_json(out, fetch(Remote(dataset=dataset, **file), options, progress=progress))
