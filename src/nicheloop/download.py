"""Fetching the files of a data set into a shared cache: resumed, checked, and never trusted.  See docs/datasets.md.

pooch does the bookkeeping of cache and checksums; the transfer itself is here, because pooch starts over where a
connection broke.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from nicheloop import archives, io
from nicheloop.errors import UserError

if TYPE_CHECKING:
    import requests

    from nicheloop.config import Download

log = logging.getLogger("nicheloop")
BLOCK = 1 << 16  # what a broken connection can cost
RETRIED = {408, 425, 429, 500, 502, 503, 504}
# First bytes by ending: an error page saved under the name of a matrix must not be recorded as the truth.
MAGIC = {
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".zip": b"PK",
    ".h5": b"\x89HDF",
    ".h5ad": b"\x89HDF",
    ".loom": b"\x89HDF",
}
REPORTED = 0.1  # share of a file between two lines of the log


class Transient(Exception):
    """A failure that may pass: the transfer is tried again where it stopped."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch: an entry of the catalogue and the data set it belongs to."""

    dataset: str
    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    unpack: bool = False


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
def locked(path: Path) -> Iterator[None]:
    """One process at a time; where the file system has no locks, the atomic renames alone must do."""
    import fcntl

    with open(path, "w") as handle:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- transfer ---------------------------------------------------------------------------------------------------------


@dataclass
class Resumable:
    """Downloader in pooch's sense: keeps what has arrived beside the target and goes on from there.

    Attributes
    ----------
    part : file that grows; its note ``<part>.json`` holds what the server said of the file
    remote : what is fetched
    options : section ``download``
    progress : whether to draw a bar on the terminal (else lines in the log)
    """

    part: Path
    remote: Remote
    options: Download
    progress: bool = False

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Fetch `url` and put it at `output_file`."""
        import requests

        tries = self.options.retries + 1
        with requests.Session() as session:
            if self.options.proxy:
                session.proxies = {"http": self.options.proxy, "https": self.options.proxy}
            for n in range(tries):
                try:
                    self._transfer(session, url)
                    break
                except Transient as err:
                    if n + 1 == tries:
                        raise UserError(self._given_up(url, tries, str(err))) from None
                    wait = min(self.options.backoff_seconds * 2**n, self.options.max_backoff_seconds)
                    log.info("%s: %s; trying again in %.3g s", self.remote.name, err, wait)
                    time.sleep(wait)
        self._note.unlink(missing_ok=True)
        shutil.move(self.part, output_file)

    @property
    def _note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def _given_up(self, url: str, tries: int, why: str) -> str:
        have = self.part.stat().st_size if self.part.exists() else 0
        kept = f" The {have:,} bytes that arrived are kept and the next try goes on from there." if have else ""
        return (
            f"{url}: could not be downloaded, {tries} tries, last: {why}.{kept} Check the network and the proxy "
            f"(HTTPS_PROXY or 'download.proxy'), set 'download.mirrors', or put the file at "
            f"{self.part.with_name(self.remote.name)} yourself."
        )

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _transfer(self, session: requests.Session, url: str) -> None:
        import requests
        import urllib3

        noted = io.read_json(self._note) if self._note.exists() and self.part.exists() else {}
        have = self.part.stat().st_size if noted.get("tag") or noted.get("total") else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "nicheloop"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if noted.get("tag"):
                headers["If-Range"] = noted["tag"]
        try:
            with session.get(url, headers=headers, stream=True, timeout=self.options.timeout_seconds) as answer:
                self._receive(answer, url, have, noted)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError,
                urllib3.exceptions.HTTPError, ConnectionError) as err:  # fmt: skip
            raise Transient(_short(err)) from None
        except requests.RequestException as err:
            raise UserError(f"{url}: cannot be fetched ({_short(err)}). Check the address.") from None

    def _receive(self, answer: requests.Response, url: str, have: int, noted: Mapping[str, Any]) -> None:
        status = answer.status_code
        if status == 416:
            self._forget()
            raise Transient("the server does not hold the rest of the file")
        if status in RETRIED:
            raise Transient(f"the server answered {status} {answer.reason}")
        if status not in (200, 206):
            raise UserError(
                f"{url}: the server answered {status} {answer.reason}. Check the address in the catalogue, or put the "
                f"file at {self.part.with_name(self.remote.name)} yourself."
            )
        if "text/html" in answer.headers.get("Content-Type", "") and not self.remote.name.endswith((".html", ".htm")):
            raise UserError(
                f"{url}: the server sent a web page instead of the file (a login or error page?). Check the address."
            )
        total = _total(answer, status)
        start = have if status == 206 else 0
        if status == 206 and (_start(answer) != have or (noted.get("total") and total and total != noted["total"])):
            self._forget()
            raise Transient("the file on the server has changed")
        self._check_size(url, total, start)
        # A weak tag does not promise the same bytes, so it cannot be used to go on.
        tag = answer.headers.get("ETag", "")
        tag = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        io.write_json(self._note, {"total": total, "tag": tag or None, "url": url})
        with open(self.part, "r+b" if start else "wb") as out, self._bar(total, start) as update:
            out.seek(start)
            out.truncate()
            for block in answer.iter_content(BLOCK):
                out.write(block)
                update(len(block))
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        if total is not None and size != total:
            if size > total:
                self._forget()
            raise Transient(f"{size:,} of {total:,} bytes arrived")

    def _check_size(self, url: str, total: int | None, start: int) -> None:
        if total is not None and self.remote.size is not None and total != self.remote.size:
            self._forget()
            raise UserError(
                f"{url}: has {total:,} bytes, the catalogue says {self.remote.size:,}. It is another file: check the "
                "address, or correct 'size' and 'sha256' of the entry."
            )
        need = total if total is not None else self.remote.size
        free = shutil.disk_usage(self.part.parent).free
        keep = int(self.options.min_free_gb * 1e9)
        if need is not None and need - start + keep > free:
            raise UserError(
                f"{url}: {(need - start) / 1e9:.2f} GB to fetch, but {self.part.parent} has {free / 1e9:.2f} GB free "
                f"and {keep / 1e9:g} GB must stay free ('download.min_free_gb'). Free some or set NICHELOOP_CACHE."
            )

    @contextlib.contextmanager
    def _bar(self, total: int | None, start: int) -> Iterator[Any]:
        if self.progress:
            from tqdm import tqdm

            with tqdm(
                total=total, initial=start, unit="B", unit_scale=True, desc=self.remote.name[:40], leave=False
            ) as bar:
                yield bar.update
            return
        done, said = start, (start / total if total else 0.0)

        def update(n: int) -> None:
            nonlocal done, said
            done += n
            if total and done / total >= said + REPORTED:
                said = done / total
                log.info("%s: %.0f %% of %.1f MB", self.remote.name, 100 * said, total / 1e6)

        yield update


def _short(err: BaseException) -> str:
    text = " ".join(str(err).split())
    return text if len(text) <= 160 else text[:157] + "..."


def _total(answer: requests.Response, status: int) -> int | None:
    """Size of the whole file as the server says it, or None."""
    text = (
        answer.headers.get("Content-Range", "").rpartition("/")[2]
        if status == 206
        else answer.headers.get("Content-Length")
    )
    return int(text) if text and text.strip().isdigit() else None


def _start(answer: requests.Response) -> int:
    text = answer.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("-")[0]
    return int(text) if text.isdigit() else -1


# --- checks -----------------------------------------------------------------------------------------------------------


def check_content(path: Path, name: str) -> None:
    """Refuse a file whose content is not what its name says, and a gzip file that ends early.

    Only for files whose checksum is not known: with one, every byte is checked anyway.
    """
    ending = next((e for e in MAGIC if name.lower().endswith(e)), "")
    with open(path, "rb") as handle:
        head = handle.read(8)
    if ending and not head.startswith(MAGIC[ending]):
        raise UserError(
            f"{path}: is no {ending} file (it starts with {head[:8]!r}): the server sent something else. "
            "Check the address."
        )
    if MAGIC.get(ending) == b"\x1f\x8b":
        try:
            with gzip.open(path, "rb") as handle:
                while handle.read(64 * BLOCK):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise UserError(
                f"{path}: the compressed file is truncated or damaged at its source ({err}). Try another mirror."
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


def _retrieve(remote: Remote, target: Path, known: str | None, options: Download, progress: bool) -> None:
    """Download into the cache; the file appears whole and checked, or not at all."""
    import pooch

    url = mirrored(remote.url, options.mirrors)
    pooch.get_logger().setLevel(logging.ERROR)
    part = target.with_name(target.name + ".part")
    fetched = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        # Checked under a name of its own, so that a file that was good stays until a better one is there.
        Resumable(part, remote, options, progress)(url, str(fetched), pooch)
        checksum = pooch.file_hash(str(fetched), alg="sha256")
        if known is None:
            check_content(fetched, remote.name)
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


def _cached(remote: Remote, target: Path, options: Download, progress: bool) -> str:
    """Make sure that the file is in the cache; returns its checksum."""
    memo_path = target.with_name(target.name + ".json")
    memo = io.read_json(memo_path) if memo_path.exists() else {}
    # Another address under the same name is another file: what was recorded of the first says nothing of it.
    same = memo.get("url") in (None, remote.url)
    known = remote.sha256 or (memo.get("sha256") if same else None)
    if target.exists() and (same or remote.sha256):
        checksum = _known_checksum(target, memo)
        if known is None:
            check_content(target, remote.name)
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
    _retrieve(remote, target, known, options, progress)
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
        with locked(folder / f".{remote.name}.lock"):
            path = local_path(remote.url)
            if path is None:
                checksum, path = _cached(remote, target, options, progress), target
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
