"""Dirty text: accounted for row by row, or refused in one sentence; never a replacement character, never silence."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from danlu.base.errors import UserError
from danlu.data.clean import Station
from danlu.data.text import Text, read, told

SMALL = "a text that is fine\n"


def taken(path: Path, **settings: Any) -> tuple[dict[str, str], Station, tuple[str, ...], list[dict[str, str]]]:
    """(row name -> text, the station, the notes, the rejected rows)."""
    rejected: list[dict[str, str]] = []
    station, notes = Station("read", rejected.append), Counter[str]()
    rows = dict(read(Text(path=str(path), **settings), station, notes))
    assert station.n_in == len(rows) + station.n_dropped.total(), "every row is used or rejected"
    assert len(rejected) == station.n_dropped.total()
    assert not any("\ufffd" in text for text in rows.values())
    return rows, station, told(notes), rejected


def test_a_folder_of_dirt_is_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\1")
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    (tmp_path / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(SMALL.encode() * 99)[:-9])
    (tmp_path / "cut.txt.zst").write_bytes(zstandard.compress(SMALL.encode() * 99)[:-3])
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 cr\xe8me".encode("latin-1"))
    (tmp_path / "marked_empty.txt").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "not_gzip.txt.gz").write_bytes(b"plain text")
    (tmp_path / "not_parquet.parquet").write_bytes(b"plain text")
    (tmp_path / "russian.txt").write_bytes("привет, мир".encode("koi8-r"))
    (tmp_path / "wide.txt").write_bytes(SMALL.encode("utf-16"))
    (tmp_path / "wide_no_mark.txt").write_bytes(SMALL.encode("utf-16-be"))
    (tmp_path / "wide_broken.txt").write_bytes(b"\xff\xfe" + "ab".encode("utf-16-le") + b"\x00\xd8")
    rows, station, notes, rejected = taken(tmp_path)
    assert rows == {
        "bom.txt": SMALL, "crlf.txt": "one\ntwo\n", "latin.txt": "café crème", "wide.txt": SMALL,
        "wide_no_mark.txt": SMALL,
    }  # fmt: skip
    assert {r["row"]: r["reason"] for r in rejected} == {
        "binary.txt": "binary", "cut.txt.gz": "broken_compression", "cut.txt.zst": "broken_compression",
        "empty.txt": "empty", "marked_empty.txt": "empty", "not_gzip.txt.gz": "broken_compression",
        "not_parquet.parquet": "broken_parquet", "russian.txt": "unknown_encoding",
        "wide_broken.txt": "not_utf_16_le",
    }  # fmt: skip
    assert station.n_changed == 5
    assert "rows changed in reading: decoded as cp1252: 1" in notes
    assert "rows changed in reading: CRLF to LF: 1" in notes
    assert next(r["detail"] for r in rejected if r["row"] == "russian.txt").startswith("not UTF-8 at byte 0 (0xd0)")


def test_jsonl_row_by_row(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}', b'{"text": broken', b"", b'["a list"]', b'{"other": 1}', b'{"text": null}', b'{"text": 7}',
        b'{"text": ""}', b"  \r", b'{"text": "crlf line"}\r', '{"text": "caf\xe9 au lait"}'.encode("latin-1"),
        b'{"text": "\\ud83d alone"}', b'{"text": "\\ud83d\\ude42 pair"}', b'{"text": "nul \\u0000"}', b'{"text": "n\0l"}',
        '{"text": "привет, мир"}'.encode("koi8-r"), b'{"text": "last", "other": 2}',
    ]  # fmt: skip
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    rows, _, notes, rejected = taken(tmp_path / "r.jsonl")
    assert rows == {
        "r.jsonl:1": "good", "r.jsonl:10": "crlf line", "r.jsonl:11": "café au lait", "r.jsonl:13": "🙂 pair",
        "r.jsonl:14": "nul \0", "r.jsonl:17": "last",
    }  # fmt: skip
    assert {r["row"]: r["reason"] for r in rejected} == {
        "r.jsonl:2": "broken_json", "r.jsonl:4": "not_an_object", "r.jsonl:5": "no_column", "r.jsonl:6": "null",
        "r.jsonl:7": "not_text", "r.jsonl:8": "empty", "r.jsonl:12": "broken_json", "r.jsonl:15": "broken_json",
        "r.jsonl:16": "broken_json",
    }  # fmt: skip
    assert "blank lines in JSONL, passed over: 2" in notes


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_jsonl_in_wide_characters(tmp_path: Path, codec: str) -> None:
    (tmp_path / "r.jsonl").write_bytes('{"text": "一 é"}\n{"text": "b"}\n'.encode(codec))
    assert list(taken(tmp_path / "r.jsonl")[0].values()) == ["一 é", "b"]


def test_jsonl_cut_short_by_its_compression(tmp_path: Path) -> None:
    body = b"".join(b'{"text": "%d"}\n' % n for n in range(300_000))
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(body, 1)[:-100])
    rows, _, _, rejected = taken(tmp_path / "r.jsonl.gz")
    assert len(rows) > 100_000
    assert [r["reason"] for r in rejected] == ["broken_compression"]
    assert rejected[0]["row"] == f"r.jsonl.gz:{len(rows) + 1}"


def test_parquet_nulls_and_an_empty_table(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a", None, ""]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"text": []}, schema={"text": pl.String}).write_parquet(tmp_path / "b.parquet")
    rows, station, _, _ = taken(tmp_path)
    assert rows == {"a.parquet:1": "a"}
    assert station.n_dropped == {"null": 1, "empty": 2}


def test_a_large_file_with_a_bad_middle(tmp_path: Path) -> None:
    lines = [b"x" * 999 + b"\n"] * 10
    (tmp_path / "mixed.txt").write_bytes(b"".join([*lines, b"\0" * 999 + b"\n", *lines]))
    (tmp_path / "wide.txt").write_bytes(("y" * 5000).encode("utf-16") + b"\x00\xdc" * 9)
    rows, station, _, _ = taken(tmp_path, max_document_bytes=1024)
    assert sum(name.startswith("mixed") for name in rows) == 20
    assert "".join(text for name, text in rows.items() if name.startswith("wide")).strip("y") == ""
    assert station.n_dropped == {"binary": 1, "not_utf_16": 1} or station.n_dropped == {"binary": 1, "not_utf_16_le": 1}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: (p / "d").mkdir(), "has no files to read"),
        (lambda p: ((p / "d").mkdir(), (p / "d" / "x.csv").write_text("a,b")), "seen but left out: 1 type .csv"),
        (lambda p: (p / "e").mkdir(), "did you mean .*/e"),
        (lambda p: (p / "d").symlink_to(p / "nowhere"), "does not exist"),
        (lambda p: ((p / "d").mkdir(), (p / "d" / "a.txt").symlink_to(p / "no")), "a.txt cannot be read"),
        (lambda p: ((p / "d").mkdir(), (p / "d" / "a.txt").write_text("")), "one row, and it was rejected .1 empty"),
        (lambda p: ((p / "d").mkdir(), (p / "d" / "a.parquet.gz").write_text("x")), "compressed once more"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=says) as refused:
        taken(tmp_path / "d")
    assert "\n" not in str(refused.value)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(SMALL)
    opened = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.txt cannot be read \(Permission denied\)"):
        taken(tmp_path)


GIANT = """
import resource, sys
from danlu.data.clean import Station
from danlu.data.text import Text, read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
station = Station("read")
n = sum(len(text) for _, text in read(Text(path=sys.argv[1]), station))
print(n, station.n_in, dict(station.n_dropped), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["line.txt", "line.txt.gz", "line.txt.zst", "line.jsonl", "zeros.txt"])
def test_a_giant_line_takes_little_memory(tmp_path: Path, name: str) -> None:
    """One line of 1 GB (a file with holes is read as NUL bytes; packed files unpack to 256 MB)."""
    path = tmp_path / name
    if name == "zeros.txt":
        with path.open("wb") as file:
            file.truncate(10**9)
    elif name.endswith(".gz"):
        with gzip.open(path, "wb", 1) as file:
            for _ in range(256):
                file.write(b"a" * 10**6)
    elif name.endswith(".zst"):
        with zstandard.open(path, "wb") as file:
            for _ in range(256):
                file.write(b"a" * 10**6)
    else:
        with path.open("wb") as file:
            file.write(b'{"text": "fine"}\n{"text": "' if name.endswith("jsonl") else b"")
            for _ in range(1000):
                file.write(b"a" * 10**6)
            file.write(b'"}\n' if name.endswith("jsonl") else b"")
    program = subprocess.run(
        [sys.executable, "-c", GIANT, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    if name == "zeros.txt":
        assert "binary" in program.stderr
        return
    n, n_in, dropped, grown_mb = program.stdout.replace("{}", "{'':0}").split(" ", 2)[:2] + program.stdout.rsplit(
        " ", 1
    )
    if name.endswith("jsonl"):
        assert (n, n_in) == ("4", "2")
        assert "'line_too_long': 1" in dropped
    else:
        assert int(n) == (10**9 if name == "line.txt" else 256 * 10**6)
        assert int(n_in) == int(n) / 4_000_000
    assert int(grown_mb) < 160
