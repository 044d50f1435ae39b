"""Data sets by name."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.base.errors import UserError
from danlu.data import catalog, catalog_sets
from danlu.data.catalog import CATALOG, Download, Entry, data_folder, in_data_folder, python_stdlib
from danlu.data.clean import Station
from danlu.data.text import Text, read, told

BODY = b"Once upon a time.\n" * 100


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DANLU_DATA."""
    monkeypatch.setenv("DANLU_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def server() -> Iterator[str]:
    """A web server on this machine that has /tale.txt alone; gives its address."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/tale.txt" else 404)
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{site.server_port}"
    site.shutdown()
    thread.join()
    site.server_close()


def add(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = "") -> None:
    """Put a set "tale" into the catalog."""
    file = Download("tale.txt", url, sha256 or hashlib.sha256(BODY).hexdigest(), len(BODY))
    monkeypatch.setitem(CATALOG, "tale", Entry("a tale", "none", (file,)))


def test_the_standard_library_is_read_whole() -> None:
    station, notes = Station("read"), Counter[str]()
    rows = list(read(Text(path="python-stdlib"), station, notes))
    names = [name for name, _ in rows]
    assert names == sorted(names)
    assert {"abc.py", "asyncio/base_events.py", "json/decoder.py"} <= set(names)
    assert not any(part in {"test", "tests", "site-packages"} for name in names for part in name.split("/"))
    assert station.n_in == len(rows) + station.n_dropped.total() == len(python_stdlib(Counter()))
    assert set(station.n_dropped) <= {"empty"}, "every file of it is text we can decode"
    assert sum(len(text) for _, text in rows) > 5_000_000
    assert all("test suites left out" in note for note in told(notes) if note.startswith("python-stdlib"))


def test_a_set_is_downloaded_once_and_checked(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, f"{server}/tale.txt")
    assert list(read(Text(path="tale"), Station("read"))) == [("tale.txt", BODY.decode())]
    assert [p.name for p in (folder / "tale").iterdir()] == ["tale.txt"], "no temporary file is left"
    monkeypatch.setattr(catalog, "urlopen", None)  # a second download would fail
    assert len(list(read(Text(path="tale"), Station("read")))) == 1
    (folder / "tale" / "tale.txt").write_bytes(BODY[:-1] + b"!")
    with pytest.raises(UserError, match="SHA-256 differs"):
        read(Text(path="tale"), Station("read"))


def test_a_wrong_download_is_not_kept(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, f"{server}/tale.txt", sha256="0" * 64)
    with pytest.raises(UserError, match="wrong SHA-256"):
        read(Text(path="tale"), Station("read"))
    assert list((folder / "tale").iterdir()) == []


def test_no_network_is_one_sentence(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"{server}/nothing", "http://127.0.0.1:1/tale.txt"):
        add(monkeypatch, url)
        with pytest.raises(UserError, match=r"could not be downloaded.*put the file at"):
            read(Text(path="tale"), Station("read"))
    assert list((folder / "tale").iterdir()) == []


def test_a_folder_of_ones_own_in_the_data_folder(folder: Path) -> None:
    (folder / "letters").mkdir(parents=True)
    (folder / "letters" / "a.txt").write_text("dear")
    assert list(read(Text(path="letters"), Station("read"))) == [("a.txt", "dear")]
    with pytest.raises(UserError, match='did you mean "letters"'):
        read(Text(path="leters"), Station("read"))


def test_an_unknown_name_gets_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match='did you mean "python-stdlib"'):
        read(Text(path="python-stdlb"), Station("read"))
    with pytest.raises(UserError, match="catalog names are python-stdlib, tiny_shakespeare"):
        in_data_folder("zzzzzzzz")


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DANLU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "danlu" / "data"


def test_every_entry_is_pinned() -> None:
    for entry in CATALOG.values():
        assert entry.about
        assert entry.licence
        for file in entry.files:
            assert file.url.startswith("https://")
            assert len(file.sha256) == 64
            assert file.n_bytes > 0


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("DANLU_DATA"), reason="DANLU_DATA names no folder with the well-known sets")
@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.files])
def test_the_well_known_sets(name: str) -> None:
    rows = list(read(Text(path=name), Station("read")))
    assert len(rows) == len(CATALOG[name].files)
    assert sum(len(text.encode()) for _, text in rows) == sum(file.n_bytes for file in CATALOG[name].files)


def test_a_set_in_the_data_folder_is_downloaded_whole_or_not_at_all(
    folder: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_sets, "SETS", tmp_path / "sets")
    (tmp_path / "sets").mkdir()
    digest = hashlib.sha256(BODY).hexdigest()
    good, bad = f"{digest} {len(BODY)} tale.txt", f"{digest} {len(BODY)} inner/lost.txt\t{server}/lost.txt"
    listing = tmp_path / "sets/tales.txt"
    listing.write_text("\n".join(["# tales", "# licence", f"# {server}/", good, bad]))
    with pytest.raises(UserError, match=r"lost\.txt"):
        catalog_sets.located("$DANLU_DATA/tales/*.txt")
    assert not (folder / "tales").exists()
    listing.write_text(
        "\n".join(["# tales", "# licence", f"# {server}/", good, bad.replace("lost.txt\t", "a b.txt\t")])
    )
    with pytest.raises(UserError, match=r"a b\.txt"):
        catalog_sets.located("$DANLU_DATA/tales/*.txt")
    own = f"{digest} {len(BODY)} inner/own.txt\t{server}/tale.txt"
    listing.write_text("\n".join(["# tales", "# licence", f"# {server}/", good, own]))
    assert catalog_sets.located("${DANLU_DATA}/tales/*.txt") == f"{folder}/tales/*.txt"
    assert (folder / "tales/inner/own.txt").read_bytes() == BODY
    (folder / "tales/inner/own.txt").write_bytes(b"mine")
    catalog_sets.located("$DANLU_DATA/tales")
    assert (folder / "tales/inner/own.txt").read_bytes() == b"mine", "a folder that is there is used as it is"


def test_every_listed_set_is_in_order() -> None:
    names = {path.stem for path in catalog_sets.SETS.glob("*.txt")}
    recipes = Path(__file__).resolve().parents[2] / "recipes"
    asked = {n for path in recipes.rglob("*.toml") for n in re.findall(r"\$DANLU_DATA/(\w+)", path.read_text("utf-8"))}
    assert len(names & asked) > 10
    assert asked - names <= {"imagenet", "librispeech", "vctk", "reviews"}, "a recipe's set can be fetched"
    for name in names:
        files = catalog_sets.listed(catalog_sets.SETS / f"{name}.txt")
        assert files
        assert all(len(f.sha256) == 64 and f.url.startswith("https://") and f.url.isascii() for f in files)


@pytest.mark.data
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA")
def test_the_sets_at_hand_are_the_listed_ones() -> None:
    for path in catalog_sets.SETS.glob("*.txt"):
        folder = data_folder() / path.stem
        files = catalog_sets.listed(path) if folder.is_dir() else []
        assert all(catalog.sha256_of(folder / f.name) == f.sha256 for f in files), path.stem
