"""The transfer of one file: resumed where a connection broke, tried again with growing waits, never glued together.

pooch does the bookkeeping of cache and checksums (`nicheloop.download`); the transfer itself is here, because pooch
starts over where a connection broke.  See docs/datasets.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import io
from nicheloop.errors import UserError

if TYPE_CHECKING:
    import requests

    from nicheloop.config import Download

log = logging.getLogger("nicheloop")
BLOCK = 1 << 16  # what a broken connection can cost
RETRIED = {408, 425, 429, 500, 502, 503, 504}
REPORTED = 0.1  # share of a file between two lines of the log, which are at least so many seconds apart
QUIET_SECONDS = 10.0


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


@dataclass
class Resumable:
    """Downloader in pooch's sense: keeps what has arrived beside the target and goes on from there.

    Attributes
    ----------
    part : file that grows; its note ``<part>.json`` holds what the server said of the file
    remote : what is fetched
    options : section ``download``
    progress : whether to draw a bar on the terminal (else lines in the log)
    checked : whether a checksum will tell if the whole is right; only then may another server go on with a file
    mixed : whether the file came from more than one server
    """

    part: Path
    remote: Remote
    options: Download
    progress: bool = False
    checked: bool = False
    mixed: bool = False

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Fetch `url` and put it at `output_file`."""
        import requests

        tries = self.options.retries + 1
        self.mixed = False
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
    def target(self) -> Path:
        """Where the whole file will stand."""
        return self.part.with_name(self.remote.name)

    @property
    def _note(self) -> Path:
        return note_of(self.part)

    def _given_up(self, url: str, tries: int, why: str) -> str:
        have = self.part.stat().st_size if self.part.exists() else 0
        kept = f" The {have:,} bytes that arrived are kept and the next try goes on from there." if have else ""
        return (
            f"{url}: could not be downloaded, {tries} tries, last: {why}.{kept} Check the network and the proxy "
            f"(HTTPS_PROXY or 'download.proxy'), set 'download.mirrors', or put the file at "
            f"{self.target} yourself."
        )

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _transfer(self, session: requests.Session, url: str) -> None:
        import requests
        import urllib3

        noted = io.read_json(self._note) if self._note.exists() and self.part.exists() else {}
        have = self.part.stat().st_size if noted.get("tag") or noted.get("total") else 0
        elsewhere = noted.get("url") != url  # its tags mean nothing to this server
        if have and elsewhere and not (self.checked and noted.get("total")):
            log.info("%s: begun at %s, so fetched anew from %s", self.remote.name, noted.get("url"), url)
            self._forget()
            have, noted = 0, {}
        headers = {"Accept-Encoding": "identity", "User-Agent": "nicheloop"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if noted.get("tag") and not elsewhere:
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
                f"file at {self.target} yourself."
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
        self.mixed = bool(start) and (self.mixed or bool(noted.get("mixed")) or noted.get("url") != url)
        # A weak tag does not promise the same bytes, so it cannot be used to go on.
        tag = answer.headers.get("ETag", "")
        tag = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
        io.write_json(self._note, {"total": total, "tag": tag or None, "url": url, "mixed": self.mixed})
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
        done, said, when = start, (start / total if total else 0.0), time.monotonic()

        def update(n: int) -> None:
            nonlocal done, said, when
            done += n
            if total and done / total >= said + REPORTED and time.monotonic() >= when + QUIET_SECONDS:
                said, when = done / total, time.monotonic()
                log.info("%s: %.0f %% of %.1f MB", self.remote.name, 100 * said, total / 1e6)

        yield update


def note_of(part: Path) -> Path:
    """File beside a partial one that says where it comes from."""
    return part.with_name(part.name + ".json")


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
