"""Reading text: which files, in what order, by what format, and every row accounted for."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from danlu.base.errors import MissingExtra, UserError
from danlu.base.settings import Settings
from danlu.data import SOURCES
from danlu.data.clean import Station
from danlu.data.hub import HubName
from danlu.data.survey import estimate, look_at
from danlu.data.text import Text, read, told
from danlu.recipe import Recipe

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "text-data.md"


def taken(path: str | Path | tuple[str, ...], **settings: Any) -> tuple[dict[str, str], Station, tuple[str, ...]]:
    """(row name -> text, the station, the notes)."""
    station, notes = Station("read"), Counter[str]()
    given = path if isinstance(path, tuple) else str(path)
    rows = list(read(Text(path=given, **settings), station, notes))
    assert len(dict(rows)) == len(rows), "row names are unique"
    assert station.n_in == len(rows) + station.n_dropped.total(), "every row is used or rejected"
    return dict(rows), station, told(notes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of many kinds."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "a.md").write_text("# ay")
    (tmp_path / "sub" / "c.py").write_text("c = 1")
    (tmp_path / "B.txt.gz").write_bytes(gzip.compress(b"big bee"))
    (tmp_path / "sub" / "d.txt.zst").write_bytes(zstandard.compress(b"dee"))
    (tmp_path / "sub" / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / ".git" / "hidden.txt").write_text("hidden")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    pl.DataFrame({"text": ["three", "four"]}).write_parquet(tmp_path / "rows.parquet")
    return tmp_path


def test_the_kind_is_on_the_shelf() -> None:
    assert SOURCES["text"] is Text
    assert issubclass(Text, Settings)


def test_a_folder_is_read_whole_in_a_stable_order(folder: Path) -> None:
    rows, _, notes = taken(folder)
    assert rows == {
        "B.txt.gz": "big bee", "a.md": "# ay", "b.txt": "bee", "rows.jsonl:1": "one", "rows.jsonl:2": "two",
        "rows.parquet:1": "three", "rows.parquet:2": "four", "sub/c.py": "c = 1", "sub/d.txt.zst": "dee",
    }  # fmt: skip
    assert list(rows) == sorted(rows)
    assert "files left out: type .png: 1" in notes
    assert "folders left out: hidden: 1" in notes


def test_globs_patterns_and_several_paths(folder: Path) -> None:
    assert list(taken(folder / "**" / "*.py")[0]) == ["sub/c.py"]
    assert list(taken(folder / "?.txt")[0]) == ["b.txt"]
    rows, _, notes = taken(folder, pattern="*.md")
    assert list(rows) == ["a.md"]
    assert "files left out: not of data.pattern: 7" in notes
    both = (str(folder / "b.txt"), str(folder / "sub"), str(folder / "?.txt"))
    rows, _, notes = taken(both)
    assert list(rows) == [str(folder / "b.txt"), str(folder / "sub/c.py"), str(folder / "sub/d.txt.zst")]
    assert "files named more than once, read once: 1" in notes


def test_a_setting_that_would_do_nothing_is_refused(folder: Path) -> None:
    for path in (folder / "b.txt", folder / "*.txt", "hub:a/b"):
        with pytest.raises(UserError, match=r"data\.pattern is for folders"):
            taken(path, pattern="*.md")
    for path in ("python-stdlib", "hub:a/b"):
        with pytest.raises(UserError, match=r"data\.format is for files"):
            taken(path, format="text")
    split = {"kind": "given", "validation": "b.txt"}
    assert list(taken(folder / "b.txt", pattern="*.md", split=split)[0]) == ["b.txt"]
    rows, _, notes = taken("python-stdlib", pattern="json/*.py")
    assert (
        {"json/decoder.py", "json/encoder.py"} <= set(rows) < {name for name in rows if name.startswith("json/")} | {""}
    )
    assert any(note.startswith("files left out: not of data.pattern") for note in notes)
    with pytest.raises(UserError, match="matches no file of python-stdlib"):
        taken("python-stdlib", pattern="*.txt")


def test_a_name_that_is_no_utf8_and_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "odd\udcff.txt").write_text("fine")
    rows, _, _ = taken(tmp_path)
    assert rows == {"odd\\xff.txt": "fine"}
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt is not a regular file"):
        taken(tmp_path)


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "what[1].txt").write_text("brackets")
    assert taken(tmp_path / "what[1].txt")[0] == {"what[1].txt": "brackets"}


def test_format_overrides_the_ending(tmp_path: Path) -> None:
    (tmp_path / "notes.tex").write_text("\\section{}")
    (tmp_path / "rows.json").write_text('{"text": "one"}\n')
    assert list(taken(tmp_path, format="text")[0]) == ["notes.tex", "rows.json"]
    assert taken(tmp_path / "rows.json", format="jsonl")[0] == {"rows.json:1": "one"}
    with pytest.raises(UserError, match=r'unknown type.*format = "text"'):
        taken(tmp_path / "notes.tex")


def test_a_large_text_is_cut_at_line_ends(tmp_path: Path) -> None:
    text = "".join(f"line {n} é\n" for n in range(1000))
    (tmp_path / "big.txt").write_text(text)
    (tmp_path / "big.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "wide.txt").write_bytes(text.encode("utf-16"))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": text}))
    for name in ("big.txt", "big.txt.gz", "wide.txt", "rows.jsonl"):
        rows, _, notes = taken(tmp_path / name, max_document_bytes=2000)
        assert "".join(rows.values()) == text
        assert all(len(piece.encode()) <= 2000 and piece.endswith("\n") for piece in rows.values())
        assert len(rows) == 6
        assert "documents cut into pieces: larger than data.max_document_bytes: 1" in notes


@pytest.mark.parametrize("character", ["a", "é", "一", "🙂"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_a_line_without_end_is_cut_between_characters(tmp_path: Path, character: str, codec: str) -> None:
    (tmp_path / "line.txt").write_bytes((character * 5001).encode(codec))
    rows, _, _ = taken(tmp_path / "line.txt", max_document_bytes=1024)
    assert "".join(rows.values()) == character * 5001
    assert all(1020 < len(piece.encode()) <= 1024 for piece in list(rows.values())[:-1])


@pytest.mark.parametrize("size", [1023, 1024, 1025, 2048, 2049])
def test_no_byte_is_lost_at_the_limit(tmp_path: Path, size: int) -> None:
    text = ("x\r\n" * size)[:size]
    (tmp_path / "t.txt").write_bytes(text.encode())
    rows, _, _ = taken(tmp_path / "t.txt", max_document_bytes=1024)
    assert "".join(rows.values()) == text.replace("\r\n", "\n")


def test_a_line_end_of_two_characters_is_not_cut_apart(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes((b"x" * 1023 + b"\r\n") * 3)
    assert "".join(taken(tmp_path / "t.txt", max_document_bytes=1024)[0].values()) == ("x" * 1023 + "\n") * 3


def test_a_jsonl_line_too_long_is_rejected_alone(tmp_path: Path) -> None:
    texts = ["a" * 1_040_000, "b" * 1_100_000, "c"]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    rows, station, _ = taken(tmp_path / "r.jsonl", max_document_bytes=100_000)
    assert "".join(rows.values()) == texts[0] + texts[2]
    assert station.n_dropped == {"line_too_long": 1}


def test_jsonl_lines_cross_blocks(tmp_path: Path) -> None:
    texts = [f"{n} " + "word " * (n % 4000) for n in range(600)]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert list(taken(tmp_path / "r.jsonl")[0].values()) == texts


def test_parquet_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danlu.data.rows.SLICE_BYTES", 40_000)
    texts = [f"{n} " * (1 + n % 50) for n in range(5000)]
    pl.DataFrame({"id": range(5000), "body": texts}).write_parquet(tmp_path / "r.parquet", row_group_size=700)
    assert list(taken(tmp_path / "r.parquet", column="body")[0].values()) == texts


def test_the_column_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"texts": "one", "id": 1}\n')
    pl.DataFrame({"texts": ["one"], "id": [1]}).write_parquet(tmp_path / "r.parquet")
    for name in ("r.jsonl", "r.parquet"):
        with pytest.raises(UserError, match=r'data.column names a column.*Got "text".*data.column = "texts"'):
            taken(tmp_path / name)
    with pytest.raises(UserError, match=r"holds no text.*one of texts"):
        taken(tmp_path / "r.parquet", column="id")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"path": ""}, "data.path|path"),
        ({"path": []}, "path"),
        ({"path": "a", "encoding": "utf8x"}, "codec name"),
        ({"path": "a", "encoding": "rot13"}, "codec name"),
        ({"path": "a", "max_document_bytes": "1 kb"}, "max_document_bytes"),
        ({"path": "a", "format": "csv"}, "format"),
        ({"path": "a", "colum": "x"}, "column"),
    ],
)
def test_wrong_settings_are_one_sentence(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        Text(**values)
    assert "\n" not in str(refused.value)


def test_hub_names() -> None:
    assert HubName.parse("hub:a/b") == HubName("a/b", "", "train", "")
    assert HubName.parse("hub:a/b@v1:small:test") == HubName("a/b", "small", "test", "v1")
    for wrong in ("hub:", "hub:a b", "hub:a/b:c:d:e"):
        with pytest.raises(UserError, match="must look like"):
            HubName.parse(wrong)


def test_hub_rows_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load_dataset(path: str, name: str | None, **options: Any) -> Any:
        asked.update(path=path, name=name, **options)
        if path == "a/none":
            raise FileNotFoundError("no such data set\nlong explanation")
        return iter([{"text": "one"}, {"text": None}, {"text": "three"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    rows, station, _ = taken("hub:a/b:c:test")
    assert rows == {"hub:a/b:test:1": "one", "hub:a/b:test:3": "three"}
    assert station.n_dropped == {"null": 1}
    assert asked == {"path": "a/b", "name": "c", "split": "test", "revision": None, "streaming": True}
    with pytest.raises(UserError, match=r"cannot be read at all.*no such data set"):
        taken("hub:a/none")
    with pytest.raises(UserError, match=r"data.column.*text"):
        taken("hub:a/b", column="texts")


def test_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"danlu\[hf\]"):
        taken("hub:a/b")


def test_estimate_comes_close_without_reading_all(tmp_path: Path) -> None:
    texts = [f"number {n}: " + "some words here and there " * 10 for n in range(20_000)]
    body = "\n".join(texts)
    lines = "\n".join(json.dumps({"text": text, "id": n}) for n, text in enumerate(texts))
    (tmp_path / "a.txt").write_text(body)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(body.encode(), 1))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(body.encode()))
    (tmp_path / "d.jsonl").write_text(lines)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
    (tmp_path / "f.txt").write_bytes(body.encode("utf-16"))
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / "g.parquet")
    for path in sorted(tmp_path.iterdir()):
        guess = estimate(Text(path=str(path)))
        assert guess.n_bytes == path.stat().st_size
        assert guess.n_text_bytes == pytest.approx(len(body), rel=0.25), path.name
        assert guess.sample[0][1].startswith("number 0:")
    assert estimate(Text(path=str(tmp_path))).n_files == 7
    assert estimate(Text(path="hub:a/b")).n_text_bytes == 0


def test_look_at_proposes_a_section(tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text('broken\n{"id": "x7", "content_en": "' + "long text " * 50 + '"}\n')
    found = look_at(str(tmp_path))
    assert found.settings["column"] == "content_en"
    assert "longest of its 2 columns" in found.reasons["column"]
    assert found.settings["tokenizer"] == {"kind": "bpe", "vocab_size": 1024}
    assert set(found.reasons) == set(found.settings)
    rows, _, _ = taken(found.settings["path"], **{k: v for k, v in found.settings.items() if k not in ("kind", "path")})
    assert list(rows) == ["posts.jsonl:2"]
    (tmp_path / "posts.jsonl").write_text('{"id": 7}\n')
    with pytest.raises(UserError, match="no column of text"):
        look_at(str(tmp_path))


def guide(language: str) -> list[str]:
    """The guide's blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", guide("toml"))
def test_the_guides_recipes_load(tmp_path: Path, block: str) -> None:
    (tmp_path / "recipe.toml").write_text(block)
    assert isinstance(Recipe.load(tmp_path / "recipe.toml").data, Text)


def test_the_guides_commands_run(tmp_path: Path) -> None:
    (block,), (program,) = guide("bash"), guide("python")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, words in (("python", ""), ("danlu", "-m danlu")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (bin_folder / name).chmod(0o755)
    place = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(GUIDE.parents[2])}
    options: dict[str, Any] = {"cwd": tmp_path, "env": place, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(["bash", "-euc", block], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Rows: [\d,]+ in = [\d,]+ used \+ [\d,]+ rejected", done.stdout)
    assert (tmp_path / "run" / "data" / "card.json").exists()
    done = subprocess.run([sys.executable, "-c", program], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "json/decoder.py " in done.stdout
