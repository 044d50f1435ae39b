"""Pictures with boxes: every layout, every fault counted, boxes that follow their pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from danlu.base.errors import UserError
from danlu.data.boxes import Boxes
from danlu.data.boxes_files import Left, voc_annotation
from danlu.data.boxes_pixels import decoded, frame_of
from danlu.data.boxes_split import Augment, moved_pictures

NOTHING = Augment(flip_horizontal=0, scale=0, translate=0, brightness=0, contrast=0, saturation=0)
LIGHT = {"brightness": 0, "contrast": 0, "saturation": 0}


def quiet(what, done, total):
    pass


def xml(boxes, size=(64, 48)):
    items = "".join(
        f"<object><name>{n}</name><difficult>{d}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for n, b, d in boxes
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{items}</annotation>"


def picture(path, size=(64, 48), box=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.full((size[1], size[0], 3), 40, np.uint8)
    if box:
        x[box[1] : box[3], box[0] : box[2]] = 220
    Image.fromarray(x).save(path)


@pytest.fixture
def voc(tmp_path):
    """A VOC folder: four good pictures, and one of every fault."""
    root = tmp_path / "voc"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for name in ("a", "b", "c", "d", "torn", "sized"):
        box = (10, 8, 30, 28)
        picture(root / f"JPEGImages/{name}.png", box=box)
        (root / f"Annotations/{name}.xml").write_text(xml([("cell", box, 0)]))
    faulty = [
        ("cell", (10, 8, 30, 28), 0), ("cell", (5, 5, 5, 9), 0), ("cell", (70, 5, 90, 9), 0),
        ("cell", (50, 40, 80, 60), 0), ("cell", ("x", 1, 2, 3), 0), ("cell", (2, 2, 9, 9), 1),
    ]  # fmt: skip
    (root / "Annotations/a.xml").write_text(xml(faulty))
    (root / "Annotations/c.xml").write_text(xml([("cell", (1, 1, 9, 9), 0), ("ghost", (1, 1, 9, 9), 0)]))
    (root / "JPEGImages/torn.png").write_bytes((root / "JPEGImages/a.png").read_bytes()[:60])
    (root / "Annotations/sized.xml").write_text(xml([], (640, 480)))
    (root / "Annotations/lost.xml").write_text(xml([]))
    (root / "Annotations/bad.xml").write_text("<annotation><object>")
    picture(root / "JPEGImages/bad.png")
    picture(root / "JPEGImages/huge.png", (200, 100))
    (root / "Annotations/huge.xml").write_text(xml([]))
    (root / "ImageSets/Main/train.txt").write_text("a\nb\ntorn\nsized\nlost\nbad\nhuge\n")
    (root / "ImageSets/Main/val.txt").write_text("c\n")
    (root / "ImageSets/Main/test.txt").write_text("d\n")
    return root


def test_every_row_and_box_is_accounted_for(voc, tmp_path):
    card = Boxes(path=str(voc), size=(96, 96), max_pixels=10_000).prepare(tmp_path / "data", 0, quiet)
    assert card.rows_in == 9
    assert card.rows_used == 4
    assert card.rows_rejected == {
        "unreadable_picture": 1, "other_size": 1, "missing_picture": 1, "broken_annotation": 1, "too_many_pixels": 1,
    }  # fmt: skip
    boxes = card.stations[1]
    assert boxes.n_in == 10
    assert boxes.n_changed == 1
    assert boxes.n_dropped == {"zero_area": 1, "outside_picture": 1, "not_a_number": 1, "class_not_in_train": 1}
    rejected = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").read_text().splitlines()]
    assert {r["row"]: r["reason"] for r in rejected}["torn"] == "unreadable_picture"
    assert card.features["classes"] == ["cell"]
    assert card.splits["train"].n_targets == 3
    assert card.leakage == {"held_out_rows": 2, "identical_in_train": 2}


def test_boxes_lie_where_the_picture_has_them(voc, tmp_path):
    source = Boxes(path=str(voc), size=(96, 96), augment=NOTHING)
    card = source.prepare(tmp_path / "data", 0, quiet)
    batch = source.open(tmp_path / "data", card, "train").batch(np.array([1, 0]))
    x1, y1, x2, y2 = batch.tensors["boxes"][0, 0].tolist()  # 64 x 48 into 96 x 96: scale 1.5, 12 above
    assert (x1, y1, x2, y2) == (15, 24, 45, 54)
    x = batch.tensors["image"][0, 0]
    bright = (x > (x.min() + x.max()) / 2).nonzero()
    assert bright.min(0).values.tolist() == [24, 15]
    assert bright.max(0).values.tolist() == [53, 44]
    assert batch.tensors["labels"].tolist() == [[0, -1, -1], [0, 0, -2]]
    assert batch.n_targets == 3
    assert batch.row_targets.tolist() == [1, 2]


@pytest.mark.parametrize(
    "augment",
    [Augment(flip_horizontal=1, flip_vertical=1, scale=0, translate=0, **LIGHT),
     Augment(flip_horizontal=0, scale=0.3, translate=0.1, **LIGHT), Augment(flip_vertical=0.5, scale=0.3, **LIGHT)],
)  # fmt: skip
def test_boxes_follow_their_picture(voc, tmp_path, augment):
    source = Boxes(path=str(voc), size=(96, 96), augment=augment)
    card = source.prepare(tmp_path / "data", 0, quiet)
    split = source.open(tmp_path / "data", card, "test")
    seeds = np.arange(1, 9, dtype=np.uint64)
    batch = split.batch(np.zeros(8, np.int64), seeds)
    for image, box in zip(batch.tensors["image"][:, 0], batch.tensors["boxes"][:, 0], strict=True):
        inside = (image > image.max() / 2).nonzero().float()
        found = [*inside.min(0).values.flip(0), *(inside.max(0).values.flip(0) + 1)]
        assert np.abs(np.array(found) - box.numpy()).max() < 1.6
    alone = split.batch(np.zeros(1, np.int64), seeds[5:6]).tensors
    assert np.allclose(alone["image"][0], batch.tensors["image"][5], atol=1e-5)
    assert np.array_equal(alone["boxes"][0], batch.tensors["boxes"][5])


def test_the_geometry_can_fail():
    """A picture moved the other way is another picture."""
    import torch

    image = torch.zeros(1, 3, 32, 32)
    image[:, :, 4:8, 4:8] = 1
    moved = moved_pictures(image, np.ones((1, 2), np.float32), np.array([[8, 0]], np.float32))
    assert moved[0, 0].argmax().item() == 4 * 32 + 12


FAULTY_BOXES = [
    {"image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]}, {"image_id": 0, "category_id": 8},
    {"image_id": 0, "category_id": [7]}, {"image_id": 0, "category_id": 7, "bbox": "none"},
]  # fmt: skip
FAULTY_PICTURES = [{"id": 0, "file_name": "twice.png"}, {"id": {}, "file_name": "odd.png"}]


def coco(path, n=12, split="train", faults=True):
    images, annotations = [], []
    for i in range(n):
        picture(path / f"{split}{i}.png", box=(4, 4, 24, 24))
        images.append({"id": i, "file_name": f"{split}{i}.png", "width": 64, "height": 48})
        annotations.append({"id": i, "image_id": i, "category_id": 7, "bbox": [4, 4, 20, 20], "iscrowd": int(i == 3)})
    if faults:
        annotations += FAULTY_BOXES
        images += FAULTY_PICTURES
    made = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cell"}]}
    (path / "boxes.json").write_text(json.dumps(made))
    return path / "boxes.json"


def test_coco(tmp_path):
    path = coco(tmp_path / "coco")
    source = Boxes(path=str(path), size=(48, 64), split={"validation": 0.25, "test": 0.0})
    card = source.prepare(tmp_path / "data", 0, quiet)
    assert card.rows_in == 14
    assert card.rows_rejected == {"broken_annotation": 2}
    assert [row["row"] for row in card.stations[0].examples] == ["boxes.json: images[12]", "boxes.json: images[13]"]
    assert {name: split.n_samples for name, split in card.splits.items()} == {"train": 9, "validation": 3}
    assert card.stations[1].n_dropped == {"unknown_image": 1, "unknown_category": 2, "not_a_number": 1}
    assert sum(s.n_targets for s in card.splits.values()) == 11
    assert {p.name for p in source.files()} == {"boxes.json", *(f"train{i}.png" for i in range(12))}


def test_splits_of_the_data_are_kept_and_others_made(tmp_path):
    folder = tmp_path / "tool"
    for split in ("train", "valid"):
        coco(folder / split, 10, split, faults=False)
    given = {"kind": "given", "validation": str(folder / "valid/boxes.json")}
    for source, wanted in (
        (Boxes(path=str(folder), size=(48, 64)), {"train": 9, "validation": 10, "test": 1}),
        (Boxes(path=str(folder), size=(48, 64), split={"test": 0.0}), {"train": 10, "validation": 10}),
        (Boxes(path=str(folder / "train/boxes.json"), size=(48, 64), split=given), {"train": 10, "validation": 10}),
    ):
        card = source.prepare(tmp_path / "data", 0, quiet)
        assert {name: split.n_samples for name, split in card.splits.items()} == wanted


def test_the_coco_tree(tmp_path):
    for split in ("train", "val"):
        made = coco(tmp_path / f"{split}2017", 3, split)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        made.rename(tmp_path / f"annotations/instances_{split}2017.json")
    listed = Boxes(path=str(tmp_path)).found().listed
    assert [row.split for row in listed if not row.fault] == ["train"] * 3 + ["validation"] * 3
    assert all(row.picture for row in listed if not row.fault)


@pytest.mark.parametrize(("text", "match"), [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("[]", "COCO file")])
def test_what_is_no_coco_file(tmp_path, text, match):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UserError, match=match):
        Boxes(path=str(tmp_path / "boxes.json")).found()


def test_a_picture_without_annotation_is_counted(tmp_path):
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
        if name != "b":
            (tmp_path / f"{name}.xml").write_text(xml([("cell", (1, 1, 9, 9), 0)]))
    source = Boxes(path=str(tmp_path), size=(48, 64), split={"test": 0.0, "validation": 0.0})
    card = source.prepare(tmp_path / "data", 0, quiet)
    assert (card.rows_in, card.rows_used, card.rows_rejected) == (4, 3, {"missing_annotation": 1})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path, encoding):
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxx">]><annotation>&x;</annotation>'
    (tmp_path / "a.xml").write_text(bomb, encoding=encoding)
    with pytest.raises(Left, match="document type"):
        voc_annotation(tmp_path / "a.xml")


def test_frames():
    assert frame_of((200, 100), (32, 32), "letterbox").tolist() == pytest.approx([0.16, 0.16, 0, 8, 200, 100])
    assert frame_of((200, 100), (32, 32), "stretch").tolist() == pytest.approx([0.16, 0.32, 0, 0, 200, 100])


@pytest.mark.parametrize(("declared", "own"), [(None, [48, 64]), ((48, 64), [48, 64]), ((64, 48), [64, 48])])
def test_a_picture_lies_as_its_annotation_says(tmp_path, declared, own):
    """Cameras turn pictures by a note in the file (EXIF); tools draw boxes on the turned or on the raw one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    frame = decoded((tmp_path / "a.jpg").read_bytes(), (64, 64), "letterbox", 10**6, declared)[1]
    assert frame[4:].tolist() == own


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixels(tmp_path, mode):
    kind = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (40, 30)).save(tmp_path / f"a.{kind}")
    assert decoded((tmp_path / f"a.{kind}").read_bytes(), (32, 32), "stretch", 10**6, None)[0].shape == (32, 32, 3)


def test_names_that_no_file_can_have(voc, tmp_path):
    (voc / "ImageSets/Main/val.txt").write_text("c\n" + 300 * "x" + "\nb\0d\n")
    card = Boxes(path=str(voc), size=(96, 96)).prepare(tmp_path / "data", 0, quiet)
    assert card.rows_in == 11
    assert card.rows_rejected["broken_annotation"] == 3
    images = [{"id": k, "file_name": name} for k, name in enumerate((300 * "x", "a\0b", "", 5, "a.png"))]
    (voc / "boxes.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    listed = Boxes(path=str(voc / "boxes.json"), pictures=str(voc / "JPEGImages")).found().listed
    assert [(bool(row.fault), row.picture is not None) for row in listed] == [
        (False, False), (False, False), (True, False), (True, False), (False, True),
    ]  # fmt: skip


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    for path, match in (("$NOWHERE/x", "not set"), (str(tmp_path), "no annotated"), ("gone", "COCO file or a folder")):
        with pytest.raises(UserError, match=match):
            Boxes(path=path).found()
    with pytest.raises(UserError, match="multiples of 8"):
        Boxes(path="x", size=(100, 100))


def test_new_pictures(voc, tmp_path):
    source = Boxes(path=str(voc), size=(96, 96))
    card = source.prepare(tmp_path / "data", 0, quiet)
    split = source.read(tmp_path / "data", card, [str(voc / "JPEGImages/a.png"), np.zeros((40, 50, 3), np.uint8)])
    assert len(split) == 2
    assert split.name(1) == "input 1"
    assert split.batch(np.arange(2)).tensors["frame"][1, 4:].tolist() == [50, 40]
    with pytest.raises(UserError, match="can be decoded"):
        source.read(tmp_path / "data", card, [str(voc / "JPEGImages/torn.png")])
