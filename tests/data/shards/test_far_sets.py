"""Shards at a URL: fetched once, checked, bounded, and fetched again where a server failed."""

import os
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bbframe.data.images.image_options import ImageFolderOptions
from bbframe.data.shards import downloads
from bbframe.data.shards.shard_cache import ShardCache, bytes_of
from bbframe.data.shards.shard_places import shard_place
from tests.data.helpers import build
from tests.data.shards.helpers import folder_from, labelled, same_batches, sharded, write_tar


class Server:
    """A web server over a folder. `faults` maps a name to what goes wrong, the first time or always."""

    def __init__(self, root):
        self.root, self.faults, self.asked, self.ranges = Path(root), {}, Counter(), []
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                owner.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request):
        name = request.path.lstrip("/")
        self.asked[name] += 1
        path = self.root / name
        fault = self.faults.get(name)
        if not path.is_file():
            return request.send_error(404)
        content = path.read_bytes()
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.ranges.append((name, start))
        if fault == "busy":
            self.faults.pop(name)
            return request.send_error(503)
        if fault == "out of order":
            return request.send_error(500)
        if start >= len(content):
            return request.send_error(416)
        if fault == "changed":
            content = bytes(len(content))
        if fault == "shorter":
            content = content[: len(content) // 2]
        body = content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        if fault == "breaks":
            self.faults.pop(name)
            body = body[: len(body) // 2]
            request.close_connection = True
        request.wfile.write(body)
        return None


@contextmanager
def serving(root):
    server = Server(root)
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


@pytest.fixture
def far(tmp_path, monkeypatch):
    """A server of the digits in shards, and the cache folder of these tests."""
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    place = tmp_path / "site" / "digits"
    place.parent.mkdir()
    sharded(build("digits"), "digits", place, shard_bytes=300_000)
    with serving(tmp_path / "site") as server:
        server.cache = tmp_path / "cache"
        yield server


def digits(far, **options):
    return build("digits", shards=f"{far.url}/digits", **{"shard_cache": str(far.cache)} | options)


def shards_there(far):
    return sorted(path.name.partition("-")[2] for path in far.cache.glob("*.tar"))


@pytest.mark.long
def test_batches_are_those_of_the_folder_in_the_same_order(far, tmp_path):
    near = build("digits", shards=str(tmp_path / "site" / "digits"), shard_window=2)
    data = digits(far, shard_window=2)
    assert same_batches(near.train_dataloader(), data.train_dataloader())
    assert same_batches(near.val_dataloader(), data.val_dataloader())
    assert all(count == 1 for name, count in far.asked.items() if name.endswith(".tar"))


@pytest.mark.long
@pytest.mark.parametrize("fault", ["busy", "breaks"])
def test_a_passing_failure_is_tried_again_and_goes_on_where_it_broke_off(far, fault):
    name = "digits/train-000001.tar"
    far.faults[name] = fault
    data = digits(far)
    count = sum(len(batch["index"]) for batch in data.train_dataloader())
    assert count == data.counts["train"] // 64 * 64
    assert far.asked[name] == 2
    starts = [start for asked, start in far.ranges if asked == name]
    assert (starts[-1] > 0) == (fault == "breaks")


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changed", r"train-000001.tar is not the file that its index says: another SHA-256, twice"),
        ("shorter", r"train-000001.tar cannot be fetched: has \d+ bytes there, not the \d+ that its index says"),
    ],
)
def test_a_wrong_file_is_refused_by_name(far, fault, message):
    far.faults["digits/train-000001.tar"] = fault
    with pytest.raises(ValueError, match=message):
        list(digits(far).train_dataloader())
    assert "train-000001.tar" not in shards_there(far)


@pytest.mark.long
def test_what_is_absent_is_said_at_once(far):
    with pytest.raises(ValueError, match=r"data: shards=.*/nothing: shards.json: .* cannot be fetched: 404"):
        build("digits", shards=f"{far.url}/nothing", shard_cache=str(far.cache))
    (far.root / "digits" / "val.npz").unlink()
    with pytest.raises(ValueError, match=r"val.npz .*cannot be fetched: 404"):
        digits(far)


@pytest.mark.long
def test_the_cache_stays_below_its_bound_and_forgets_the_oldest(far):
    sizes = {path.name: path.stat().st_size for path in (far.root / "digits").glob("*.tar")}
    most = 2 * max(sizes.values()) + 10**6
    data = digits(far, shard_window=1, shard_cache_size=f"{most / 10**6:.3f}MB")
    assert sum(sizes.values()) > most
    loader, seen = data.train_dataloader(), Counter()
    for _ in range(2):
        for batch in loader:
            seen.update(batch["index"].tolist())
            assert sum(path.stat().st_size for path in far.cache.iterdir() if path.is_file()) <= most
    assert len(seen) > data.counts["train"] * 0.9
    assert len(shards_there(far)) < len(sizes)


@pytest.mark.long
def test_a_cache_for_less_than_two_windows_is_refused(far):
    with pytest.raises(ValueError, match=r"shard_cache_size=0.5MB is too small to read shard_window=8 shards .*; set"):
        digits(far, shard_cache_size="0.5MB")


@pytest.mark.long
def test_workers_share_one_download(far):
    data = digits(far, num_workers=2, shard_window=2)
    count = Counter(i for batch in data.train_dataloader() for i in batch["index"].tolist())
    data.teardown("fit")
    assert set(count.values()) == {1}
    assert all(count == 1 for name, count in far.asked.items() if name.endswith(".tar"))


@pytest.mark.long
def test_a_set_that_was_written_anew_is_not_taken_from_the_cache(far, tmp_path):
    list(digits(far).val_dataloader())
    for path in (far.root / "digits").iterdir():
        path.unlink()
    (far.root / "digits").rmdir()
    sharded(build("digits"), "digits", far.root / "digits", shard_bytes=150_000, seed=1)
    near = build("digits", shards=str(tmp_path / "site" / "digits"), shard_window=8)
    assert same_batches(near.train_dataloader(), digits(far).train_dataloader())


@pytest.mark.long
def test_tars_of_other_programs_are_named_by_a_pattern(far):
    for number in range(3):
        write_tar(far.root / f"other-train-{number:03d}.tar", labelled(10, 10 * number))
    write_tar(far.root / "other-val-000.tar", labelled(6))
    place = f"{far.url}/other-{{train-000,train-001,train-002,val-000}}.tar"
    data = folder_from(place, shard_cache=str(far.cache))
    assert data.counts == {"train": 30, "val": 6}
    asked = dict(far.asked)
    again = folder_from(place, shard_cache=str(far.cache))
    assert dict(far.asked) == asked  # the index of the first look was kept
    assert same_batches(data.train_dataloader(), again.train_dataloader())


def test_a_tar_that_was_not_whole_is_fetched_again(far):
    write_tar(far.root / "other-train-0.tar", labelled(20))
    whole = (far.root / "other-train-0.tar").read_bytes()
    (far.root / "other-train-0.tar").write_bytes(whole[:20480])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"not whole: other-train-0.tar \(cut off at byte 20480"):
            folder_from(f"{far.url}/other-train-0.tar", shard_cache=str(far.cache))
    (far.root / "other-train-0.tar").write_bytes(whole)
    data = folder_from(f"{far.url}/other-train-0.tar", shard_cache=str(far.cache))
    assert sum(data.counts.values()) == 20


def test_the_error_of_a_server_is_one_line_after_all_tries(far):
    write_tar(far.root / "other-train-0.tar", labelled(4))
    far.faults["other-train-0.tar"] = "out of order"
    with pytest.raises(ValueError, match=r"other-train-0.tar cannot be fetched: 500 .*, after 3 tries"):
        folder_from(f"{far.url}/other-train-0.tar", shard_cache=str(far.cache))
    assert far.asked["other-train-0.tar"] == 3


def test_a_part_that_is_all_there_is_no_obstacle(far, tmp_path):
    write_tar(far.root / "a.tar", labelled(4))
    part = tmp_path / "part"
    part.write_bytes((far.root / "a.tar").read_bytes())
    downloads.download(f"{far.url}/a.tar", part, None)
    assert part.read_bytes() == (far.root / "a.tar").read_bytes()


def test_a_cache_that_cannot_be_made_is_said(far, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data: shard_cache=.*file/below cannot be made: Not a directory"):
        digits(far, shard_cache=str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("s3://", "must be a folder, or begin with https:// or s3://"),
        ("pipe:cat x.tar", "would run a command; give the URL itself"),
        ("ftp://x/y", "must be a folder, or begin with https:// or s3://"),
        ("https://x/y?token=1", r"must be a URL without \? and #"),
        ("x.tar.gz", "is packed, so that no image in it can be found; type gunzip"),
        ("nowhere", "does not exist; it must be a folder of shards"),
        ("a-{9..0}.tar", "must rise"),
        ("a-{0..9.tar", "a brace is not closed"),
        ("/x/a-{0..9}.tar::/y/b.tar", "/y/b.tar lies elsewhere; all tars must lie below /x"),
    ],
)
def test_other_places_are_refused(shards, message):
    with pytest.raises(ValueError, match=message):
        build("digits", shards=shards)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{08..10}.tar", "a-08.tar a-09.tar a-10.tar"),
        ("{train-{0..1},val}-x.tar", "train-0-x.tar train-1-x.tar val-x.tar"),
        ("{a,b}/{0..1}.tar", "a/0.tar a/1.tar b/0.tar b/1.tar"),
        ("train-{0..1}.tar::val-0.tar", "train-0.tar train-1.tar val-0.tar"),
        ("http://here/x/train-{0..1}.tar::http://here/x/val-0.tar", "train-0.tar train-1.tar val-0.tar"),
        ("http://here/x/train-0.tar::http://here/x/val-0.tar", "train-0.tar val-0.tar"),
    ],
)
def test_braces_are_those_of_a_shell(pattern, names):
    assert shard_place(ImageFolderOptions(shards=pattern))[1] == names.split()


def test_sizes_are_read_as_they_are_written():
    assert [bytes_of(size) for size in ("50GB", "1.5 TB", "200MB")] == [50 * 10**9, 15 * 10**11, 2 * 10**8]


def test_the_least_recently_used_file_makes_room(tmp_path):
    site, cache = tmp_path / "site", ShardCache(tmp_path / "cache", 250)
    site.mkdir()
    for name in "abc":
        (site / name).write_bytes(name.encode() * 100)
    with serving(site) as server:
        a, b = (cache.fetch(f"{server.url}/{name}", 100) for name in "ab")
        os.utime(a, (1, 1))
        os.utime(b, (2, 2))
        assert cache.fetch(f"{server.url}/a", 100) == a  # used again, so that b is the oldest
        cache.fetch(f"{server.url}/c", 100)
        assert a.exists()
        assert not b.exists()
        assert cache.fetch(f"{server.url}/b", 100).read_bytes() == b"b" * 100
        assert server.asked == {"a": 1, "b": 2, "c": 1}


def test_a_bucket_is_read_and_goes_on_where_it_broke_off(far, tmp_path, monkeypatch):
    pytest.importorskip("boto3", reason="needs the extra s3")
    for name, value in {
        "AWS_ENDPOINT_URL": far.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    downloads._s3_client.cache_clear()
    far.faults["digits/train-000001.tar"] = "breaks"
    near = build("digits", shards=str(tmp_path / "site" / "digits"), shard_window=8)
    data = build("digits", shards="s3://digits", shard_cache=str(far.cache))
    assert same_batches(near.train_dataloader(), data.train_dataloader())
    assert [start > 0 for name, start in far.ranges if name == "digits/train-000001.tar"] == [False, True]
    with pytest.raises(ValueError, match=r"shards=s3://digits/nothing: shards.json: .* cannot be fetched: .*404"):
        build("digits", shards="s3://digits/nothing", shard_cache=str(far.cache))
