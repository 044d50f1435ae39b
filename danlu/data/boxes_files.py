"""Which pictures there are and what boxes stand on them: Pascal VOC (one XML file a picture) and COCO (one JSON file a
split), in the layouts they are found in.

    VOC/{Annotations, JPEGImages, ImageSets/Main/{train,val,test}.txt}      Pascal VOC (Everingham et al. 2010)
    folder/{train,valid,test}/{*.xml + pictures | *.json + pictures}        as annotation tools export it
    annotations/instances_{train,val}*.json + {train,val}*/ pictures        COCO (Lin et al. 2014, 1405.0312)
    folder/{*.xml + pictures}      file.json                                without splits
"""

from __future__ import annotations

import json
import math
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
SPLIT_NAMES = {"train": ("train",), "validation": ("valid", "val", "validation"), "test": ("test",)}
MAX_XML = 16 * 2**20


@dataclass(frozen=True)
class Box:
    """One box in pixels of its picture: corners as given (x1, y1, x2, y2), class name, and whether it goes unscored."""

    corners: tuple[float, float, float, float]
    name: str
    ignored: bool = False


@dataclass(frozen=True)
class Listed:
    """One picture that the data set speaks of, its annotation read or still to be read."""

    name: str
    split: str
    """train, validation, test, or "" where the data set does not say."""
    picture: Path | None = None
    annotation: Path | None = None
    """Its XML file; None where `boxes` are known already."""
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    """(width, height) as the annotation has it."""
    fault: str = ""
    """Why it cannot be used, where the listing shows that."""


@dataclass
class Found:
    """All pictures of a data set."""

    listed: list[Listed] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    """Files that list pictures: splits, JSON."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Boxes of a JSON file that belong to no picture or class, by reason."""


class Left(Exception):  # noqa: N818 - reads as what it is
    """A picture that is left out: the reason (a word to count it by), and the sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """A document type could declare entities: never taken."""
        raise broken("declares a document type, which is refused")


def broken(text: str) -> Left:
    """An annotation that cannot be used."""
    return Left("broken_annotation", text)


def voc_annotation(path: Path) -> tuple[tuple[int, int] | None, list[Box]]:
    """((width, height) or None, boxes) of a Pascal VOC file; `Left` where it is not one."""
    try:
        if path.stat().st_size > MAX_XML:
            raise broken(f"{path.name} is larger than {MAX_XML >> 20} MB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise Left("missing_annotation", f"there is no {path.name[:80]}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise broken(f"{path.name[:80]} cannot be read ({error})") from None
    plain = data.replace(b"\0", b"").upper()  # UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise broken(f"{path.name} declares a document type, which is refused")
    parser = ET.XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise broken(f"{path.name} is not XML ({error})") from None
    if root.tag != "annotation":
        raise broken(f"{path.name} has the root <{root.tag[:40]}>, not <annotation>")
    boxes = []
    for item in root.iter("object"):
        name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
        if not name or box is None:
            raise broken(f"{path.name} has an object without a name or box")
        x1, y1, x2, y2 = (number(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
        boxes.append(Box((x1, y1, x2, y2), name, difficult))
    return size_of(root.findtext("size/width"), root.findtext("size/height")), boxes


def number(given: Any) -> float:
    """A finite number, or nan."""
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return value if math.isfinite(value) else math.nan


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) where an annotation tells them."""
    w, h = number(width), number(height)
    return (round(w), round(h)) if w > 0 and h > 0 else None


def key(item: Any, name: str) -> str | float | None:
    """An id: a number or a text; None is no id."""
    value = item.get(name) if isinstance(item, dict) else None
    return value if isinstance(value, (str, int, float)) else None


def coco_file(path: Path, split: str, pictures: str, found: Found) -> None:
    """Add the pictures of a COCO file to `found`."""
    given = read_coco(path)
    names = {key(c, "id"): str(c["name"]) for c in given["categories"] if key(c, "id") is not None and "name" in c}
    ids = {key(item, "id") for item in given["images"]} - {None}
    boxes: dict[str | float | None, list[Box]] = {}
    for item in given["annotations"]:
        image, category = key(item, "image_id"), key(item, "category_id")
        if image not in ids or category not in names:
            found.dropped["unknown_category" if image in ids else "unknown_image"] += 1
            continue
        raw = item.get("bbox")
        x, y, w, h = (number(v) for v in raw) if isinstance(raw, list) and len(raw) == 4 else [math.nan] * 4
        boxes.setdefault(image, []).append(Box((x, y, x + w, y + h), names[category], bool(item.get("iscrowd"))))
    folders, seen = picture_folders(path, split, pictures), set()
    for place, item in enumerate(given["images"]):
        own, file = key(item, "id"), item.get("file_name") if isinstance(item, dict) else None
        if own is None or not isinstance(file, str) or not file or own in seen:
            what = "has the id of another picture" if own in seen else "has no id or no file_name"
            found.listed.append(Listed(f"{path.name}: images[{place}]", split, fault=what))
            continue
        seen.add(own)
        at = next((folder / file for folder in folders if os.path.isfile(folder / file)), None)
        size = size_of(item.get("width"), item.get("height"))
        name = f"{split}/{file}" if split else file
        found.listed.append(Listed(name, split, at, None, tuple(boxes.get(own, ())), size))
    found.sources.append(path)


def read_coco(path: Path) -> Mapping[str, list[Any]]:
    """A COCO file as it is; one sentence where it is none."""
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", fix="check the path") from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"is not JSON ({error})", fix="mend the file") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(given, dict) or not all(isinstance(given.get(name), list) for name in lists):
        raise UserError(str(path), "must be a COCO file: an object with the lists images, annotations and categories")
    return given


def picture_folders(path: Path, split: str, pictures: str) -> list[Path]:
    """Where a COCO file's pictures may lie, likeliest first."""
    if pictures:
        return [Path(pictures)]
    base, stem = path.parent, path.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    near = [base, base / "images", base / stem, base.parent / stem, base.parent / "images" / stem]
    return [*near, base.parent / "images", *(base.parent / word for word in SPLIT_NAMES.get(split, ()))]


def look(path: Path, pictures: str = "") -> Found:
    """All pictures that a path means, in a fixed order."""
    found = Found()
    if path.is_file():
        coco_file(path, "", pictures, found)
    elif not path.is_dir():
        raise UserError("data.path", "must be a COCO file or a folder of annotations", got=str(path))
    elif (path / "Annotations").is_dir():
        voc_tree(path, pictures, found)
    elif own := by_split((path / "annotations").glob("instances_*.json")):
        for split, file in own:
            coco_file(file, split, pictures, found)
    else:
        split_folders(path, pictures, found)
    if not found.listed:
        fix = "name a VOC folder (Annotations, JPEGImages), a COCO file, or a folder with train and valid inside"
        raise UserError("data.path", "has no annotated pictures", got=str(path), fix=fix)
    return found


def voc_tree(path: Path, pictures: str, found: Found) -> None:
    """Annotations/, JPEGImages/ and, where there, ImageSets/Main/."""
    inside, notes, sets = Path(pictures or path / "JPEGImages"), path / "Annotations", path / "ImageSets" / "Main"
    lists = [
        (split, sets / f"{word}.txt")
        for split, words in SPLIT_NAMES.items()
        for word in words
        if (sets / f"{word}.txt").is_file()
    ]
    if not any(split == "train" for split, _ in lists):
        found.listed += pairs(inside, notes, "")
        return
    known = by_stem(inside)
    for split, file in lists:
        found.sources.append(file)
        for stem in dict.fromkeys(line if line in known else line.split()[0] for line in lines_of(file)):
            found.listed.append(Listed(stem, split, known.get(stem), notes / f"{stem}.xml"))


def lines_of(file: Path) -> list[str]:
    """Lines with something on them, without the space around it."""
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(file), f"cannot be read ({error})") from None


def by_stem(folder: Path) -> dict[str, Path]:
    """Picture files by name without ending."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {p.stem: p for p in inside if p.suffix.lower() in PICTURES}


def pairs(pictures: Path, notes: Path, split: str) -> list[Listed]:
    """Every picture with the XML file of its name, and what lacks the other."""
    known, told = by_stem(pictures), {p.stem for p in notes.glob("*.xml")}
    stems = sorted(known.keys() | told) if told else []
    return [Listed(f"{split}/{s}" if split else s, split, known.get(s), notes / f"{s}.xml") for s in stems]


def by_split(files: Iterable[Path]) -> list[tuple[str, Path]]:
    """(split, file) for the files whose names speak of one, in the order train, validation, test."""
    found = {}
    for file in sorted(files, reverse=True):
        for split, words in SPLIT_NAMES.items():
            if file.stem.removeprefix("instances_").startswith(words):
                found[split] = file
    return [(split, found[split]) for split in SPLIT_NAMES if split in found]


def split_folders(path: Path, pictures: str, found: Found) -> None:
    """train/, valid/ and test/ with annotations beside the pictures; or one folder with everything."""
    inside = [(split, path / word) for split, words in SPLIT_NAMES.items() for word in words if (path / word).is_dir()]
    for split, folder in inside or [("", path)]:
        files = sorted(folder.glob("*.json"))
        if len(files) == 1:
            coco_file(files[0], split, pictures, found)
        else:
            found.listed += pairs(Path(pictures or folder), folder, split)
