"""Which images there are and what boxes stand on them: Pascal VOC (one XML file an image) and COCO (one JSON file a
split), in the layouts they are found in.

    VOC/{Annotations, JPEGImages, ImageSets/Main/{train,val,test}.txt}      Pascal VOC (Everingham et al. 2010)
    folder/{train,valid,test}/{*.xml + images | *.json + images}            as annotation tools export it
    annotations/instances_{train,val}*.json + {train,val}*/ images          COCO (Lin et al. 2014, 1405.0312)
    folder/{*.xml + images}      file.json                                  no splits: cut by a hash of the name
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
SPLIT_NAMES = {"train": ("train",), "validation": ("valid", "val", "validation"), "test": ("test",)}
MAX_XML = 16 * 2**20


@dataclass(frozen=True)
class Box:
    """One box in pixels of its image: corners as given (x1, y1, x2, y2), class name, and whether it goes unscored."""

    corners: tuple[float, float, float, float]
    name: str
    ignored: bool = False


@dataclass(frozen=True)
class Listed:
    """One image that the data set speaks of, its annotation read or still to be read."""

    name: str
    split: str
    """train, validation, test, or "" where the data set does not say."""
    image: Path | None
    annotation: Path | None = None
    """Its XML file; None where `boxes` are known already."""
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    """(width, height) as the annotation has it."""


@dataclass
class Found:
    """All images of a data set."""

    listed: list[Listed] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    """Files that list images: splits, JSON."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Boxes of a JSON file that belong to no image or class, by reason."""
    categories: tuple[str, ...] = ()
    """Class names that a JSON file declares."""


class Broken(Exception):  # noqa: N818 - reads as what it is
    """An annotation that cannot be used, and why."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """A document type could declare entities: never taken."""
        raise Broken("declares a document type, which is refused")


def voc_annotation(path: Path) -> tuple[tuple[int, int] | None, list[Box]]:
    """((width, height) or None, boxes) of a Pascal VOC file. Broken, with the reason, where it is not one."""
    try:
        if path.stat().st_size > MAX_XML:
            raise Broken(f"is larger than {MAX_XML >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise Broken(f"cannot be read ({error.strerror})") from None
    plain = data.replace(b"\0", b"").upper()
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise Broken("declares a document type, which is refused")
    parser = ET.XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root = parser.close()
    except (ET.ParseError, ValueError, LookupError) as error:
        raise Broken(f"is not XML ({error})") from None
    if root.tag != "annotation":
        raise Broken(f"has the root <{root.tag}>, not <annotation>")
    width, height = (number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    size = (round(width), round(height)) if width > 0 and height > 0 else None
    boxes = []
    for item in root.iter("object"):
        name = (item.findtext("name") or "").strip()
        box = item.find("bndbox")
        if not name or box is None:
            raise Broken("has an object without a name or box")
        corners = tuple(number(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (item.findtext("difficult") or "0").strip() in ("1", "true", "True")
        boxes.append(Box(corners, name, difficult))  # type: ignore[arg-type]
    return size, boxes


def number(text: Any) -> float:
    """A finite number, or nan."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return math.nan
    return value if math.isfinite(value) else math.nan


def coco_file(path: Path, split: str, images: str, found: Found) -> None:
    """Add the images of a COCO file to `found`."""
    given = read_coco(path)
    folders = image_folders(path, split, images)
    names = {c["id"]: str(c["name"]) for c in given["categories"] if isinstance(c, dict) and "id" in c and "name" in c}
    boxes: dict[Any, list[Box]] = {}
    ids = {i["id"] for i in given["images"] if isinstance(i, dict) and "id" in i}
    for item in given["annotations"]:
        if not isinstance(item, dict) or item.get("image_id") not in ids or item.get("category_id") not in names:
            known = isinstance(item, dict) and item.get("image_id") in ids
            reason = "unknown_category" if known else "unknown_image"
            found.dropped[reason] = found.dropped.get(reason, 0) + 1
            continue
        raw = item.get("bbox")
        values = [number(v) for v in raw] if isinstance(raw, list) and len(raw) == 4 else [math.nan] * 4
        x, y, w, h = values
        box = Box((x, y, x + w, y + h), names[item["category_id"]], bool(item.get("iscrowd")))
        boxes.setdefault(item["image_id"], []).append(box)
    for item in given["images"]:
        if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("file_name"), str):
            raise UserError(str(path), "must give every image an id and a file_name", got=item)
        size = (number(item.get("width")), number(item.get("height")))
        sized = (round(size[0]), round(size[1])) if size[0] > 0 and size[1] > 0 else None
        at = next((f / item["file_name"] for f in folders if (f / item["file_name"]).is_file()), None)
        name = f"{split}/{item['file_name']}" if split else item["file_name"]
        found.listed.append(Listed(name, split, at, None, tuple(boxes.get(item["id"], ())), sized))
    found.sources.append(path)
    found.categories = tuple(dict.fromkeys([*found.categories, *names.values()]))


def read_coco(path: Path) -> dict[str, Any]:
    """A COCO file as it is; one sentence where it is none."""
    try:
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"is not JSON ({error})", fix="mend the file") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(given, dict) or not all(isinstance(given.get(key), list) for key in lists):
        raise UserError(str(path), "must be a COCO file with the lists images, annotations and categories")
    return given


def image_folders(path: Path, split: str, images: str) -> list[Path]:
    """Where a COCO file's images may lie, likeliest first."""
    base = path.parent
    stem = path.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    near = [
        base,
        base / "images",
        base / stem,
        base.parent / stem,
        base.parent / "images" / stem,
        base.parent / "images",
    ]
    near += [base.parent / word for word in SPLIT_NAMES.get(split, ())]
    return [Path(images)] if images else near


def look(path: Path, images: str = "", validation: str = "", test: str = "") -> Found:
    """All images that a path means, in a fixed order."""
    found = Found()
    if path.is_file():
        files = {"train": path, "validation": Path(validation or "-"), "test": Path(test or "-")}
        given = {split: file for split, file in files.items() if str(file) != "-"}
        for split, file in given.items():
            coco_file(file, split if len(given) > 1 else "", images, found)
    elif not path.is_dir():
        raise UserError("data.path", "must be a COCO file or a folder of annotations", got=str(path))
    elif (path / "Annotations").is_dir():
        voc_tree(path, images, found)
    elif (path / "annotations").is_dir() and (own := by_split((path / "annotations").glob("instances_*.json"))):
        for split, file in own:
            coco_file(file, split, images, found)
    else:
        split_folders(path, images, found)
    if not found.listed:
        fix = "name a VOC folder (Annotations, JPEGImages), a COCO file, or a folder with train and valid inside"
        raise UserError("data.path", "has no annotated images", got=str(path), fix=fix)
    return found


def voc_tree(path: Path, images: str, found: Found) -> None:
    """Annotations/, JPEGImages/ and, where there, ImageSets/Main/."""
    pictures = by_stem(Path(images) if images else path / "JPEGImages")
    sets = path / "ImageSets" / "Main"
    lists = [
        (split, sets / f"{word}.txt")
        for split, words in SPLIT_NAMES.items()
        for word in words
        if (sets / f"{word}.txt").is_file()
    ]
    if not any(split == "train" for split, _ in lists):
        stems = [("", p.stem) for p in sorted((path / "Annotations").glob("*.xml"))]
    else:
        stems = [(split, line.split()[0]) for split, file in lists for line in lines_of(file)]
        found.sources += [file for _, file in lists]
    for split, stem in stems:
        found.listed.append(Listed(stem, split, pictures.get(stem), path / "Annotations" / f"{stem}.xml"))


def lines_of(file: Path) -> list[str]:
    """Lines with something on them."""
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(file), f"cannot be read ({error})") from None


def by_stem(folder: Path) -> dict[str, Path]:
    """Image files by name without ending."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {p.stem: p for p in inside if p.suffix.lower() in PICTURES}


def by_split(files: Iterable[Path]) -> list[tuple[str, Path]]:
    """(split, file) for the files whose names speak of one, in the order train, validation, test."""
    found = {}
    for file in sorted(files, reverse=True):
        for split, words in SPLIT_NAMES.items():
            if any(file.stem.removeprefix("instances_").startswith(word) for word in words):
                found[split] = file
    return [(split, found[split]) for split in SPLIT_NAMES if split in found]


def split_folders(path: Path, images: str, found: Found) -> None:
    """train/, valid/ and test/ with annotations beside the images; or one folder with everything."""
    inside = [(split, path / word) for split, words in SPLIT_NAMES.items() for word in words if (path / word).is_dir()]
    for split, folder in inside or [("", path)]:
        files = sorted(folder.glob("*.json"))
        if len(files) == 1:
            coco_file(files[0], split, images, found)
            continue
        pictures = by_stem(Path(images) if images else folder)
        for file in sorted(folder.glob("*.xml")):
            name = f"{split}/{file.stem}" if split else file.stem
            found.listed.append(Listed(name, split, pictures.get(file.stem), file))
