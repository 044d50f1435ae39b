"""Fifty kinds of defect in the files of all kinds: what came in is used or rejected by name, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data import SOURCES
from tests.contracts.case_fold import chain

GOOD = [f"{i},{i % 7}.5,{'yes' if i % 2 else 'no'}" for i in range(12)]
HEAD = "a,b,label"


@dataclass(frozen=True)
class Dirt:
    """A defect: how it is made, and what must come of it."""

    settings: dict[str, Any]
    make: Callable[[Path], object]
    rejected: dict[str, str] = field(default_factory=dict)
    """Row -> a word of its reason."""
    refused: str = ""
    """A word of the one sentence, where nothing can be read."""
    used: int | None = None


def quiet(what: str, done: float, total: float) -> None:
    pass


def table(content: str | bytes, name: str = "t.csv", **expected: Any) -> Dirt:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    settings = {"kind": "table", "path": name, "target": "label"} | expected.pop("settings", {})
    return Dirt(settings, make, **expected)


def csv(*lines: str, **expected: Any) -> Dirt:
    """Good rows, and these after the fourth."""
    return table("\n".join([HEAD, *GOOD[:4], *lines, *GOOD[4:]]) + "\n", **expected)


def jsonl(*lines: str, **expected: Any) -> Dirt:
    good = [json.dumps({"a": i, "b": i % 3, "label": "xy"[i % 2]}) for i in range(8)]
    return table("\n".join([*good[:2], *lines, *good[2:]]), "t.jsonl", **expected)


TABLES = {
    "too few fields": csv("9,1", rejected={"t.csv:6": "too few"}),
    "too many fields": csv("9,1,yes,7", rejected={"t.csv:6": "too many"}),
    "a quote never closed": csv('9,"1,yes', rejected={"t.csv:6": "quote"}, used=12),
    "a quote never closed, fields fit": csv('9,1,"yes', rejected={"t.csv:6": "quote"}, used=12),
    "stray quotes": csv('9,1,"yes "no" indeed"', used=13),
    "a line break in quotes": csv('9,1,"yes\nindeed"', used=13),
    "blank lines": csv("", "   ", used=12),
    "no target": csv("9,1,", rejected={"t.csv:6": "no target"}),
    "NUL bytes": csv("9,\0,yes", refused="binary"),
    "a column named twice": table("a,a,label\n1,2,yes\n3,4,no\n5,6,no\n", refused="once"),
    "a column without name": table("a,,label\n1,2,yes\n3,4,no\n5,6,no\n", refused="name every column"),
    "header alone": table(HEAD + "\n", refused="at least three rows"),
    "an empty file": table("", refused="empty"),
    "a gzip cut short": table(gzip.compress("\n".join([HEAD, *GOOD]).encode())[:-9], "t.csv.gz", refused="gzip"),
    "no gzip at all": table("a,b\n", "t.csv.gz", refused="gzip"),
    "UTF-16": table("\n".join([HEAD, *GOOD]).encode("utf-16"), used=12),
    "a byte order mark": table(b"\xef\xbb\xbf" + "\n".join([HEAD, *GOOD]).encode(), used=12),
    "Latin-1": table("\n".join([HEAD, *GOOD, "9,1,caf\xe9", "9,2,caf\xe9"]).encode("latin-1"), used=14),
    "line ends of old Macs": table("\r".join([HEAD, *GOOD]), used=12),
    "CRLF": table("\r\n".join([HEAD, *GOOD]), used=12),
    "semicolons": table("\n".join(line.replace(",", ";") for line in [HEAD, *GOOD]), used=12),
    "a target that is not there": table("\n".join([HEAD, *GOOD]), refused="target", settings={"target": "labl"}),
    "infinite and absurd numbers": csv("inf,nan,yes", "1e999,-1e400,no", used=14),
    "words among numbers": csv("seven,2.5,yes", used=13),
    "no JSON": jsonl("{broken", rejected={"t.jsonl:3": "not JSON"}),
    "a JSON list": jsonl("[1, 2]", rejected={"t.jsonl:3": "not an object"}),
    "a nested value": jsonl('{"a": {"b": 1}, "label": "x"}', rejected={"t.jsonl:3": "not one value"}),
    "a key missing": jsonl('{"a": 1, "label": "x"}', used=9),
    "a null target": jsonl('{"a": 1, "label": null}', rejected={"t.jsonl:3": "no target"}),
    "a Parquet file that is none": table(b"PAR1 not", "t.parquet", refused="parquet"),
    "an Arrow file that is none": table(b"ARROW", "t.arrow", refused="arrow"),
}


def image_folder(defect: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        from PIL import Image

        rng = np.random.default_rng(0)
        for i in range(8):
            (folder / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(
                folder / "images" / "ab"[i % 2] / f"{i}.png"
            )
        defect(folder / "images")

    return make


def images(defect: Callable[[Path], object], **expected: Any) -> Dirt:
    return Dirt({"kind": "image", "path": "images"}, image_folder(defect), **expected)


def picture(path: Path, mode: str, size: tuple[int, int] = (9, 9), **saved: Any) -> None:
    from PIL import Image

    Image.new(mode, size, 0).save(path, **saved)


def half_of(path: Path) -> None:
    whole = (path / "a/0.png").read_bytes()
    (path / "a/half.png").write_bytes(whole[: len(whole) // 2])


def bomb(path: Path) -> None:
    """A header that asks for 100,000 x 100,000 pixels."""
    whole = bytearray((path / "a/0.png").read_bytes())
    whole[16:24] = (100_000).to_bytes(4, "big") * 2
    import zlib

    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    (path / "a/bomb.png").write_bytes(bytes(whole))


IMAGES = {
    "text called png": images(lambda p: (p / "a/x.png").write_text("no"), rejected={"a/x.png": "not an image"}),
    "an empty image": images(lambda p: (p / "a/x.png").write_bytes(b""), rejected={"a/x.png": "not an image"}),
    "half an image": images(half_of, rejected={"a/half.png": "not an image"}),
    "a decompression bomb": images(bomb, rejected={"a/bomb.png": "more pixels"}),
    "a palette with transparency": images(lambda p: picture(p / "b/p.png", "P", transparency=0), used=9),
    "sixteen bits": images(lambda p: picture(p / "b/deep.png", "I;16"), used=9),
    "CMYK": images(lambda p: picture(p / "b/c.jpg", "CMYK"), used=9),
    "one pixel": images(lambda p: picture(p / "b/one.png", "L", (1, 1)), used=9),
}


def sounds(defect: Callable[[Path], object], **expected: Any) -> Dirt:
    """Eight good sounds in two class folders, and a defect."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for i in range(8):
            (folder / "sounds" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            sound(folder / "sounds" / "ab"[i % 2] / f"{i}.wav", rng.normal(0, 0.1, 2000))
        defect(folder / "sounds")

    return Dirt({"kind": "audio", "path": "sounds"}, make, **expected)


def sound(path: Path, samples: Any, rate: int = 8000, subtype: str = "PCM_16") -> None:
    import soundfile

    soundfile.write(path, samples, rate, subtype=subtype)


def cut_sound(path: Path) -> None:
    whole = (path / "a/0.wav").read_bytes()
    (path / "a/x.wav").write_bytes(whole[: len(whole) // 2])


def noise(n: int, channels: int = 1) -> Any:
    return np.random.default_rng(1).normal(0, 0.1, (n, channels))


SOUNDS = {
    "text called wav": sounds(lambda p: (p / "a/x.wav").write_text("no"), rejected={"a/x.wav": "not a sound"}),
    "an empty sound file": sounds(lambda p: (p / "a/x.wav").write_bytes(b""), rejected={"a/x.wav": "empty"}),
    "a sound cut short": sounds(cut_sound, rejected={"a/x.wav": "truncated"}),
    "silence": sounds(lambda p: sound(p / "a/x.wav", np.zeros(2000)), rejected={"a/x.wav": "silent"}),
    "no frames": sounds(lambda p: sound(p / "a/x.wav", np.zeros(0)), rejected={"a/x.wav": "empty"}),
    "NaN samples": sounds(
        lambda p: sound(p / "a/x.wav", np.full(2000, np.nan, "f4"), subtype="FLOAT"), rejected={"a/x.wav": "not finite"}
    ),
    "an hour too long": sounds(
        lambda p: sound(p / "a/x.wav", noise(8000 * 100)), rejected={"a/x.wav": "longer than data.longest"}
    ),
    "another rate, two channels": sounds(lambda p: sound(p / "a/x.wav", noise(9000, 2), 44_100), used=9),
}


def cells(defect: Callable[[Path], object], **expected: Any) -> Dirt:
    """Six good pictures with a box each, as Pascal VOC, and a defect in what belongs to a seventh."""

    def make(folder: Path) -> None:
        for i in range(7):
            annotated(folder / "voc", f"p{i}")
        defect(folder / "voc")

    return Dirt({"kind": "boxes", "path": "voc", "size": (64, 64)}, make, **expected)


def annotated(root: Path, name: str, box: str = "<xmin>4</xmin><ymin>4</ymin><xmax>20</xmax><ymax>20</ymax>") -> None:
    root.mkdir(exist_ok=True)
    picture(root / f"{name}.png", "RGB", (32, 32))
    about = f"<filename>{name}.png</filename><size><width>32</width><height>32</height></size>"
    item = f"<object><name>cell</name><bndbox>{box}</bndbox></object>"
    (root / f"{name}.xml").write_text(f"<annotation>{about}{item}</annotation>")


BOXES = {
    "XML cut short": cells(lambda p: (p / "p0.xml").write_text("<annotation><object>"), rejected={"p0": "broken_ann"}),
    "XML that declares entities": cells(
        lambda p: (p / "p0.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'),
        rejected={"p0": "broken_ann"},
    ),
    "a picture that is not there": cells(lambda p: (p / "p0.png").unlink(), rejected={"p0": "missing_picture"}),
    "a picture of another size": cells(lambda p: picture(p / "p0.png", "RGB", (40, 40)), rejected={"p0": "other_size"}),
    "a picture that is none": cells(lambda p: (p / "p0.png").write_text("no"), rejected={"p0": "unreadable"}),
    "a box of no area": cells(
        lambda p: annotated(p, "p0", "<xmin>4</xmin><ymin>4</ymin><xmax>4</xmax><ymax>9</ymax>"), used=7
    ),
    "a box without numbers": cells(lambda p: annotated(p, "p0", "<xmin>left</xmin>"), used=7),
}


def chains(defect: Callable[[Path], object], **expected: Any) -> Dirt:
    """Ten good chains as PDB files, and a defect."""

    def make(folder: Path) -> None:
        (folder / "pdb").mkdir()
        for i in range(10):
            (folder / f"pdb/c{i}.pdb").write_text(chain(i, 9), encoding="ascii")
        defect(folder / "pdb")

    settings = {"kind": "structure", "path": "pdb", "min_length": 5, "split": {"validation": 0.2, "test": 0.2}}
    return Dirt(settings, make, **expected)


def changed(find: str, put: str) -> Callable[[Path], object]:
    """An eleventh file: a good one with every `find` replaced."""
    return lambda p: (p / "x.pdb").write_text(chain(11, 9).replace(find, put), encoding="ascii")


STRUCTURES = {
    "text called pdb": chains(lambda p: (p / "x.pdb").write_text("no structure\n"), rejected={"x.pdb": "no "}),
    "an empty structure file": chains(lambda p: (p / "x.pdb").write_bytes(b""), rejected={"x.pdb": ""}),
    "a structure cut within a line": chains(
        lambda p: (p / "x.pdb").write_text(chain(11, 9)[: 19 * 79 + 40]), rejected={"x.pdb": "broken line"}
    ),
    "coordinates that are none": chains(changed("  1.00 10.00", "  1.00  nine"), used=11),
    "binary": chains(lambda p: (p / "x.pdb").write_bytes(bytes(range(256)) * 9), rejected={"x.pdb": ""}),
}

DIRT: dict[str, Dirt] = {**TABLES, **IMAGES, **SOUNDS, **BOXES, **STRUCTURES}


@pytest.mark.parametrize("name", DIRT)
def test_dirt_is_named_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dirt = DIRT[name]
    monkeypatch.chdir(tmp_path)
    dirt.make(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    source: Any = SOURCES[dirt.settings["kind"]](**{k: v for k, v in dirt.settings.items() if k != "kind"})
    if dirt.refused:
        with pytest.raises(UserError, match=f"(?i){dirt.refused}"):
            source.prepare(out, 0, quiet)
        assert not (out / "card.json").exists()
        return
    card = source.prepare(out, 0, quiet)
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    assert sum(card.rows_rejected.values()) == len(rows)
    found = {row["row"]: row["reason"] for row in rows}
    assert found.keys() == dirt.rejected.keys()
    assert all(word in found[row] for row, word in dirt.rejected.items()), found
    if dirt.used is not None:
        assert card.rows_used == dirt.used


def test_there_are_fifty_kinds_of_dirt() -> None:
    assert len(DIRT) >= 50
