"""Downloads from a real server on this machine that behaves and misbehaves."""

from __future__ import annotations

import gzip
import hashlib
import io as stdio
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_server import Server, running
from nicheloop import download, transfer
from nicheloop.config import Download
from nicheloop.errors import UserError
from nicheloop.transfer import Remote

pytestmark = pytest.mark.faults

K = 1 << 16  # whole blocks arrive or do not
TEXT = bytes(range(256)) * 4096  # 1 MB
SHA = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as it:
        yield it


@pytest.fixture
def options(tmp_path: Path) -> Download:
    return Download(cache=str(tmp_path / "cache"), backoff_seconds=0, min_free_gb=0, retries=2, timeout_seconds=10)


def remote(url: str, name: str = "x.bin", **values: Any) -> Remote:
    return Remote("D", name, url, **values)


def cached(options: Download, name: str = "x.bin") -> Path:
    return Path(options.cache) / "D" / name


def test_a_file_is_fetched_once_and_its_checksum_recorded(server: Server, options: Download) -> None:
    url = server.serve("/x.bin", TEXT)
    receipt = download.fetch(remote(url), options)
    assert receipt == {
        "dataset": "D", "name": "x.bin", "url": url, "path": str(cached(options)), "folder": None, "sha256": SHA, "size": len(TEXT),
    }  # fmt: skip
    assert cached(options).read_bytes() == TEXT
    assert json.loads(cached(options, "x.bin.json").read_text())["sha256"] == SHA
    assert download.fetch(remote(url), options) == receipt
    assert len(server.requests) == 1
    assert sorted(p.name for p in cached(options).parent.iterdir()) == [".x.bin.lock", "x.bin", "x.bin.json"]


def test_404_is_said_at_once_with_the_remedy(server: Server, options: Download) -> None:
    with pytest.raises(UserError) as err:
        download.fetch(remote(server.url + "/gone"), options)
    assert "/gone: the server answered 404" in str(err.value)
    assert str(cached(options)) in str(err.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("failures", [[500], [503, 429]])
def test_a_busy_server_is_tried_again(server: Server, options: Download, failures: list[int]) -> None:
    url = server.serve("/x", TEXT, failures=list(failures))
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert len(server.requests) == len(failures) + 1


def test_a_server_that_stays_busy_ends_in_words(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, failures=[500] * 9)
    with pytest.raises(
        UserError, match=r"could not be downloaded, 3 tries, last: the server answered 500.*HTTPS_PROXY"
    ):
        download.fetch(remote(url), options)
    assert len(server.requests) == 3


def test_waits_double_up_to_the_longest(server: Server, options: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    slow = options.model_copy(update={"retries": 4, "backoff_seconds": 2.0, "max_backoff_seconds": 10.0})
    download.fetch(remote(server.serve("/x", TEXT, failures=[500] * 4)), slow)
    assert waits == [2, 4, 8, 10]


def test_a_transfer_that_breaks_goes_on_where_it_stopped(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, cut=[len(TEXT) // 2])
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert server.requests == [("/x", None), ("/x", f"bytes={len(TEXT) // 2}-")]


def test_what_arrived_is_kept_for_the_next_run(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, cut=[5 * K, K, 2 * K])
    with pytest.raises(UserError, match=r"524,288 bytes that arrived are kept"):
        download.fetch(remote(url), options)
    assert not cached(options).exists()
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert server.requests[-1] == ("/x", f"bytes={8 * K}-")


def test_without_ranges_the_file_is_fetched_from_its_start(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, cut=[500_000], ranges=False)
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert len(server.requests) == 2


def test_a_file_that_changed_meanwhile_is_not_glued_together(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, cut=[300_000] * 3)
    with pytest.raises(UserError):
        download.fetch(remote(url), options)
    other = TEXT[::-1]
    server.serve("/x", other, tag='"v2"')
    assert download.fetch(remote(url), options)["sha256"] == hashlib.sha256(other).hexdigest()
    assert cached(options).read_bytes() == other


def test_without_a_tag_a_file_of_another_size_is_not_glued_together(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, cut=[300_000] * 3, tag=None)
    with pytest.raises(UserError):
        download.fetch(remote(url), options)
    longer = TEXT[::-1] + b"more"
    server.serve("/x", longer, tag=None)
    assert download.fetch(remote(url), options)["sha256"] == hashlib.sha256(longer).hexdigest()


def test_a_silent_server_counts_as_a_failure_and_the_rest_is_fetched(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT, stall=6 * K)
    quick = options.model_copy(update={"timeout_seconds": 0.2})
    assert download.fetch(remote(url), quick)["sha256"] == SHA
    assert server.requests[1] == ("/x", f"bytes={6 * K}-")


def test_a_length_that_is_not_kept_is_noticed(server: Server, options: Download) -> None:
    server.serve("/x", TEXT, announced=len(TEXT) + 5)
    server.pages["/x"].cut = [len(TEXT)] * 9
    server.pages["/x"].ranges = False
    with pytest.raises(UserError, match="could not be downloaded"):
        download.fetch(remote(server.url + "/x"), options)
    assert not cached(options).exists()


def test_a_redirect_is_followed(server: Server, options: Download) -> None:
    target = server.serve("/real", TEXT)
    assert download.fetch(remote(server.serve("/x", redirect=target)), options)["sha256"] == SHA


def test_redirects_without_end_and_addresses_that_are_none_are_named(server: Server, options: Download) -> None:
    url = server.serve("/x", redirect=server.url + "/x")
    with pytest.raises(UserError, match="cannot be fetched"):
        download.fetch(remote(url), options)
    with pytest.raises(UserError, match="cannot be fetched"):
        download.fetch(remote("http://"), options)


def test_nobody_listens(options: Download) -> None:
    with running() as gone:
        url = gone.url + "/x"
    with pytest.raises(UserError, match=r"could not be downloaded, 3 tries"):
        download.fetch(remote(url), options)


def test_a_web_page_is_not_a_matrix(server: Server, options: Download) -> None:
    url = server.serve("/x", b"<html>please log in</html>", kind="text/html; charset=utf-8")
    with pytest.raises(UserError, match="web page instead of the file"):
        download.fetch(remote(url), options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.mtx.gz", b"<html>please log in</html>", "is no .gz file"),
        ("x.h5", b"not found", "is no .h5 file"),
        ("x.zip", b"", "is no .zip file"),
        ("x.mtx.gz", gzip.compress(TEXT, mtime=0)[:-20], "truncated or damaged at its source"),
        ("x.mtx.gz", gzip.compress(TEXT, mtime=0)[:-8] + b"\0" * 8, "truncated or damaged at its source"),
    ],
)
def test_wrong_content_is_never_recorded_as_the_truth(
    server: Server, options: Download, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        download.fetch(remote(server.serve("/x", content), name), options)
    assert [p.name for p in cached(options).parent.iterdir()] == [f".{name}.lock"]
    good = (
        gzip.compress(TEXT)
        if name.endswith(".gz")
        else b"\x89HDF\r\n\x1a\n"
        if name.endswith("h5")
        else b"PK\x05\x06" + bytes(18)
    )
    assert download.fetch(remote(server.serve("/x", good), name), options)["size"] == len(good)


def test_a_known_checksum_is_enforced(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT + b"!")
    with pytest.raises(UserError, match=rf"not the one expected.*by the catalogue it is {SHA}"):
        download.fetch(remote(url, sha256=SHA), options)
    assert not cached(options).exists()
    server.serve("/x", TEXT)
    assert download.fetch(remote(url, sha256=SHA), options)["sha256"] == SHA


def test_a_recorded_checksum_is_enforced_ever_after(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT)
    download.fetch(remote(url), options)
    cached(options).unlink()
    server.serve("/x", TEXT[::-1])
    with pytest.raises(UserError, match=r"by its first download .*x.bin.json.*delete"):
        download.fetch(remote(url), options)
    server.serve("/x", TEXT)
    assert download.fetch(remote(url), options)["sha256"] == SHA


def test_a_damaged_copy_is_fetched_again_and_only_on_line(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT)
    download.fetch(remote(url), options)
    cached(options).write_bytes(TEXT[:-1] + b"?")
    with pytest.raises(UserError, match="is damaged"):
        download.fetch(remote(url), options.model_copy(update={"offline": True}))
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert cached(options).read_bytes() == TEXT


def test_another_address_under_the_same_name_is_another_file(server: Server, options: Download) -> None:
    download.fetch(remote(server.serve("/a", TEXT)), options)
    assert download.fetch(remote(server.serve("/b", b"other")), options)["size"] == 5
    assert cached(options).read_bytes() == b"other"


def test_size_is_checked_before_anything_is_fetched(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT)
    with pytest.raises(UserError, match=r"has 1,048,576 bytes, the catalogue says 7"):
        download.fetch(remote(url, size=7), options)
    usage = shutil.disk_usage(options.cache)
    full = options.model_copy(update={"min_free_gb": usage.total / 1e9})
    with pytest.raises(UserError, match=r"GB free .*must stay free.*NICHELOOP_CACHE"):
        download.fetch(remote(url), full)
    assert not cached(options).exists()


def test_off_line_the_cache_serves_and_what_lacks_is_named(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT)
    off = options.model_copy(update={"offline": True})
    with pytest.raises(UserError, match=r"off line.*nicheloop download D.*put it at"):
        download.fetch(remote(url), off)
    assert server.requests == []
    cached(options).parent.mkdir(parents=True, exist_ok=True)
    cached(options).write_bytes(TEXT)  # put there by hand
    assert download.fetch(remote(url), off)["sha256"] == SHA
    assert server.requests == []


def test_mirrors_replace_the_beginning_and_the_longest_wins(server: Server, options: Download) -> None:
    server.serve("/mirror/geo/x", TEXT)
    mirrors = {
        "https://official.example/": "https://nowhere.invalid/",
        "https://official.example/pub/": server.url + "/mirror/",
    }
    chosen = options.model_copy(update={"mirrors": mirrors})
    receipt = download.fetch(remote("https://official.example/pub/geo/x"), chosen)
    assert receipt["url"] == "https://official.example/pub/geo/x"
    assert server.requests == [("/mirror/geo/x", None)]


def test_the_proxy_is_asked(server: Server, options: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy gets the whole address as the path."""
    server.serve("http://far.invalid/x", TEXT)
    assert (
        download.fetch(remote("http://far.invalid/x"), options.model_copy(update={"proxy": server.url}))["sha256"]
        == SHA
    )
    monkeypatch.setenv("http_proxy", server.url)
    server.serve("http://far.invalid/y", TEXT)
    assert download.fetch(remote("http://far.invalid/y", "y.bin"), options)["sha256"] == SHA


@pytest.mark.parametrize("form", ["path", "file"])
def test_files_of_this_machine_are_used_where_they_are(tmp_path: Path, options: Download, form: str) -> None:
    path = tmp_path / "my data ü.bin"
    path.write_bytes(TEXT)
    url = str(path) if form == "path" else path.as_uri()
    receipt = download.fetch(remote(url), options)
    assert (receipt["path"], receipt["sha256"]) == (str(path), SHA)
    assert not cached(options).exists()
    with pytest.raises(UserError, match="it is another file"):
        download.fetch(remote(url, sha256="0" * 64), options)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        download.fetch(remote(url), options)


def test_two_at_once_fetch_once(server: Server, options: Download) -> None:
    url = server.serve("/x", TEXT)
    receipts: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: receipts.append(download.fetch(remote(url), options))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 4 and len({json.dumps(r) for r in receipts}) == 1
    assert len(server.requests) == 1


def no_locks(*_: object) -> None:
    raise OSError(37, "No locks available")


def test_where_the_file_system_has_no_locks_two_at_once_do_not_write_into_one_file(
    server: Server, options: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", no_locks)
    url = server.serve("/x", TEXT, stall=6 * K)  # the first waits half-way while the second fetches all
    checksums: list[str] = []
    first = threading.Thread(target=lambda: checksums.append(download.fetch(remote(url), options)["sha256"]))
    first.start()
    while not server.requests:
        pass
    checksums.append(download.fetch(remote(url), options)["sha256"])
    server.release.set()
    first.join()
    assert checksums == [SHA, SHA]
    assert cached(options).read_bytes() == TEXT
    assert not list(cached(options).parent.glob("*.part*")) + list(cached(options).parent.glob(".*.part*"))


@pytest.mark.parametrize("killed", [False, True])
def test_without_locks_what_arrived_is_kept_too(
    server: Server, options: Download, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    monkeypatch.setattr("fcntl.flock", no_locks)
    url = server.serve("/x", TEXT, cut=[5 * K, K, 2 * K])
    with pytest.raises(UserError, match="are kept"):
        download.fetch(remote(url), options)
    if killed:  # under the name of a process that is no more
        part = cached(options, "x.bin.part")
        own = cached(options, f".x.bin.{download.io._HOST}-{2**22 + 1}.0.part")
        part.rename(own)
        transfer.note_of(part).rename(transfer.note_of(own))
    assert download.fetch(remote(url), options)["sha256"] == SHA
    assert server.requests[-1] == ("/x", f"bytes={8 * K}-")


def test_another_mirror_goes_on_only_where_a_checksum_tells_if_the_whole_is_right(
    server: Server, options: Download
) -> None:
    def at(place: str) -> Download:
        return options.model_copy(update={"mirrors": {"https://far.invalid/": f"{server.url}/{place}/"}, "retries": 0})

    for name in ("known.bin", "unknown.bin"):
        server.serve(f"/a/{name}", TEXT, cut=[5 * K], tag='"a"')
        server.serve(f"/b/{name}", TEXT, tag='"b"')
    for name, sha256, asked in (("known.bin", SHA, f"bytes={5 * K}-"), ("unknown.bin", None, None)):
        file = remote(f"https://far.invalid/{name}", name, sha256=sha256)
        with pytest.raises(UserError, match="are kept"):
            download.fetch(file, at("a"))
        assert download.fetch(file, at("b"))["sha256"] == SHA
        assert server.requests[-1] == (f"/b/{name}", asked)


def test_two_mirrors_that_do_not_fit_together_are_fetched_anew(server: Server, options: Download) -> None:
    file = remote("https://far.invalid/x", sha256=SHA)
    server.serve("/a/x", TEXT[::-1], cut=[5 * K])
    server.serve("/b/x", TEXT)
    for place, fails in (("a", True), ("b", False)):
        chosen = options.model_copy(
            update={"mirrors": {"https://far.invalid/": f"{server.url}/{place}/"}, "retries": 0}
        )
        if fails:
            with pytest.raises(UserError, match="are kept"):
                download.fetch(file, chosen)
        else:
            assert download.fetch(file, chosen)["sha256"] == SHA
    assert server.requests[1:] == [("/b/x", f"bytes={5 * K}-"), ("/b/x", None)]


def archive(name: str = "a/matrix.mtx", content: bytes = b"counts") -> bytes:
    out = stdio.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, stdio.BytesIO(content))
    return out.getvalue()


def test_an_archive_is_unpacked_beside_itself_once(server: Server, options: Download) -> None:
    url = server.serve("/x.tar.gz", archive())
    asked = remote(url, "x.tar.gz", unpack=True)
    folder = Path(download.fetch(asked, options)["folder"])
    assert (folder / "a/matrix.mtx").read_bytes() == b"counts"
    before = (folder / "a/matrix.mtx").stat().st_mtime_ns
    download.fetch(asked, options)
    assert (folder / "a/matrix.mtx").stat().st_mtime_ns == before
    shutil.rmtree(folder)
    assert Path(download.fetch(asked, options)["folder"], "a/matrix.mtx").exists()


def test_an_archive_that_leads_elsewhere_leaves_nothing(server: Server, options: Download, tmp_path: Path) -> None:
    url = server.serve("/x.tar.gz", archive("../../escaped"))
    with pytest.raises(UserError, match="outside its folder"):
        download.fetch(remote(url, "x.tar.gz", unpack=True), options)
    assert not list(tmp_path.rglob("escaped"))
    assert not cached(options, "x.tar.gz.unpacked").exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NICHELOOP_CACHE", raising=False)
    assert "nicheloop" in str(download.cache_folder(Download()))
    monkeypatch.setenv("NICHELOOP_CACHE", str(tmp_path / "env"))
    assert download.cache_folder(Download()) == tmp_path / "env"
    assert download.cache_folder(Download(cache=str(tmp_path / "opt"))) == tmp_path / "opt"
    with pytest.raises(UserError, match="cannot be created"):
        download.fetch(remote("http://127.0.0.1/x"), Download(cache="/proc/nicheloop"))


def test_the_bar_is_drawn_only_when_asked(
    server: Server, options: Download, capsys: pytest.CaptureFixture[str]
) -> None:
    download.fetch(remote(server.serve("/x", TEXT)), options)
    assert capsys.readouterr().err == ""
    download.fetch(remote(server.serve("/y", TEXT), "y.bin"), options, progress=True)
    assert "y.bin" in capsys.readouterr().err


def test_the_receipt_is_written(server: Server, options: Download, tmp_path: Path) -> None:
    entry = {"name": "x.bin", "url": server.serve("/x", TEXT), "size": len(TEXT), "sha256": SHA, "unpack": False}
    download.run_download(entry, "D", tmp_path / "out" / "r.json", options=options)
    assert json.loads((tmp_path / "out" / "r.json").read_text())["sha256"] == SHA
