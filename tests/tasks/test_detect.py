"""Detection against plain versions: GIoU, suppression, average precision; and the whole slice on drawn squares."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import danlu
from danlu.base.errors import UserError
from danlu.data.boxes import Boxes
from danlu.models.detector_settings import Detector
from danlu.recipe import Recipe
from danlu.starter import write_starter
from danlu.tasks.detect import Detect, own_pixels
from danlu.tasks.detect_drawing import COLOURS, faults
from danlu.tasks.detect_loss import Grid, detection_loss, giou, grid_of, suppressed, taught
from danlu.tasks.detect_scores import THRESHOLDS, BoxScorer


def plain_iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, w) * max(0, h)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def some_boxes(rng, n, span=60):
    low = rng.uniform(0, span, (n, 2))
    return np.concatenate([low, low + rng.uniform(5, 30, (n, 2))], 1)


def test_giou_is_the_plain_one():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 50), some_boxes(rng, 50)
    for x, y, found in zip(a, b, giou(torch.tensor(a), torch.tensor(b)).tolist(), strict=True):
        hull = (max(x[2], y[2]) - min(x[0], y[0])) * (max(x[3], y[3]) - min(x[1], y[1]))
        iou = plain_iou(x, y)
        both = ((x[2] - x[0]) * (x[3] - x[1]) + (y[2] - y[0]) * (y[3] - y[1])) / (1 + iou)
        assert found == pytest.approx(iou - (hull - both) / hull, abs=1e-6)


def test_suppression_is_the_greedy_one():
    rng = np.random.default_rng(1)
    boxes, classes = some_boxes(rng, 80, 40), rng.integers(0, 2, 80)
    kept: list[int] = []
    for i in range(80):
        if all(classes[i] != classes[j] or plain_iou(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    made = suppressed(
        torch.tensor(boxes)[None], torch.linspace(1, 0.1, 80)[None], torch.tensor(classes)[None], 0.3
    )  # fmt: skip
    assert made[0].nonzero().flatten().tolist() == kept


def plain_map(predictions, truths, n_classes, threshold):
    """Mean AP over the classes that are there, by loops."""
    means = []
    for c in range(n_classes):
        found = sorted(((-b[4], u, n) for u, p in enumerate(predictions) for n, b in enumerate(p) if b[5] == c))
        taken, right = set(), []
        for _, u, n in found:
            best = [
                (plain_iou(predictions[u][n], t), k)
                for k, t in enumerate(truths[u])
                if t[4] == c and (u, k) not in taken
            ]
            iou, k = max(best, key=lambda x: x[0], default=(0, 0))
            right.append(iou >= threshold)
            if right[-1]:
                taken.add((u, k))
        n_true = sum((t[:, 4] == c).sum() for t in truths)
        if not n_true:
            continue
        points = [(sum(right[: i + 1]) / n_true, sum(right[: i + 1]) / (i + 1)) for i in range(len(right))]
        ap, before = 0.0, 0.0
        for i, (recall, _) in enumerate(points):
            ap += (recall - before) * max(p for _, p in points[i:])
            before = recall
        means.append(ap)
    return float(np.mean(means))


def made_up(rng, n_pictures=8):
    predictions, truths = [], []
    for _ in range(n_pictures):
        true = np.concatenate([some_boxes(rng, 6), rng.integers(0, 3, (6, 1))], 1)
        near = true[:, :4] + rng.normal(0, 2.5, (6, 4))
        far = some_boxes(rng, 4)
        boxes = np.concatenate([near, far])
        classes = np.concatenate([true[:, 4], rng.integers(0, 3, 4)])
        predictions.append(np.concatenate([boxes, rng.uniform(0, 1, (10, 1)), classes[:, None]], 1))
        truths.append(true)
    return predictions, truths


def test_average_precision_is_the_plain_one():
    rng = np.random.default_rng(2)
    predictions, truths = made_up(rng)
    values = BoxScorer(predictions, truths, ["a", "b", "c"], 0.3).values()
    assert 0.2 < values["map_50"] < 0.99
    assert values["map_50"] == pytest.approx(plain_map(predictions, truths, 3, 0.5))
    every = np.mean([plain_map(predictions, truths, 3, t) for t in THRESHOLDS])
    assert values["map_50_95"] == pytest.approx(every)


def test_a_resample_is_the_score_of_the_resampled_pictures():
    rng = np.random.default_rng(3)
    predictions, truths = made_up(rng)
    rows = np.array([0, 3, 4, 5, 6, 7])
    taken = BoxScorer([predictions[i] for i in rows], [truths[i] for i in rows], ["a", "b", "c"], 0.3).values()
    assert BoxScorer(predictions, truths, ["a", "b", "c"], 0.3).values(rows) == pytest.approx(taken)
    twice = BoxScorer(predictions, truths, ["a", "b", "c"], 0.3)
    assert twice.values(np.repeat(np.arange(8), 2)) == pytest.approx(twice.values())


def test_a_box_that_is_not_scored_is_neither_right_nor_wrong():
    true = np.array([[0, 0, 10, 10, 0.0], [20, 20, 30, 30, -2.0]])
    found = np.array([[20, 20, 30, 30, 0.9, 0.0], [0, 0, 10, 10, 0.8, 0.0]])
    assert BoxScorer([found], [true], ["a"], 0.3).values()["map_50"] == 1.0
    assert BoxScorer([found], [true[:1]], ["a"], 0.3).values()["map_50"] == 0.5
    assert BoxScorer([np.zeros((0, 6))], [true], ["a"], 0.3).values()["map_50"] == 0.0


def plain_loss(scores, boxes, labels, size, box_weight):
    """The loss of one picture, place by place."""
    n_classes, (rows, columns, stride) = scores.shape[1] - 4, grid_of(*size, len(scores))
    true = [(b, int(v)) for b, v in zip(boxes.tolist(), labels.tolist(), strict=True) if v >= 0]
    cells = [
        (min(columns - 1, int((b[0] + b[2]) / 2 / stride)), min(rows - 1, int((b[1] + b[3]) / 2 / stride)))
        for b, _ in true
    ]
    area = [(b[2] - b[0]) * (b[3] - b[1]) for b, _ in true]
    total, by_box = 0.0, [[] for _ in true]
    for p in range(rows * columns):
        y, x = divmod(p, columns)
        for c in range(n_classes):
            wanted = 0.0
            for (b, v), (cx, cy) in zip(true, cells, strict=True):
                sx, sy = (max(0.4, (b[k + 2] - b[k]) / stride * 0.54 / 6) for k in (0, 1))
                if v == c:
                    wanted = max(wanted, math.exp(-((x - cx) ** 2) / 2 / sx**2 - (y - cy) ** 2 / 2 / sy**2))
            mx, my = (x + 0.5) * stride, (y + 0.5) * stride
            unscored = any(
                v == -2 - c and b[0] < mx < b[2] and b[1] < my < b[3]
                for b, v in zip(boxes.tolist(), labels.tolist(), strict=True)
            )
            q = 1 / (1 + math.exp(-float(scores[p, c])))
            if wanted == 1:
                total -= (1 - q) ** 2 * math.log(q)
            elif not unscored:
                total -= (1 - wanted) ** 4 * q**2 * math.log(1 - q)
        near = [
            (cells[k] != (x, y), area[k], k)
            for k, (b, _) in enumerate(true)
            if cells[k] == (x, y)
            or (abs(x - cells[k][0]) <= 1 and abs(y - cells[k][1]) <= 1 and b[0] < mx < b[2] and b[1] < my < b[3])
        ]
        if near:
            k = min(near)[2]
            far = [math.exp(v) * stride for v in scores[p, n_classes:].tolist()]
            made = torch.tensor([[mx - far[0], my - far[1], mx + far[2], my + far[3]]])
            by_box[k].append(1 - float(giou(made, torch.tensor([true[k][0]]))))
    return total + box_weight * sum(float(np.mean(losses)) for losses in by_box if losses)


def test_the_loss_is_the_plain_one():
    """Crowded boxes, a picture without any, boxes that are not scored, on the border, and two at one place."""
    rng = np.random.default_rng(4)
    boxes = torch.tensor(np.stack([some_boxes(rng, 12, 40) for _ in range(3)])).float().clamp(max=63.9)
    labels = torch.tensor(rng.integers(0, 2, (3, 12)))
    labels[0, 8:], labels[1] = torch.tensor([-1, -2, -3, -1]), -1
    boxes[2, 1] = boxes[2, 0]
    scores = torch.tensor(rng.normal(0, 1, (3, 64, 6))).float()
    whole = float(detection_loss(scores, boxes, labels, (64, 64), 2.0))
    assert whole == pytest.approx(
        sum(plain_loss(s, b, v, (64, 64), 2.0) for s, b, v in zip(scores, boxes, labels, strict=True)), rel=1e-5
    )


def test_every_centre_has_its_peak_and_its_place():
    boxes = torch.tensor([[[10.0, 8, 30, 24], [12, 10, 14, 12], [40, 2, 63, 47]]])
    aim = taught(boxes, torch.tensor([[0, 1, 0]]), 2, Grid(12, 16, 4))
    heat = aim.heat.view(2, 12, 16)
    assert heat[0, 4, 5] == heat[1, 2, 3] == heat[0, 6, 12] == 1
    assert (heat == 1).sum() == 3
    assert set(aim.owner.tolist()) == {0, 1, 2}
    assert dict(zip(aim.place.tolist(), aim.owner.tolist(), strict=True))[4 * 16 + 5] == 0


@pytest.fixture
def squares(tmp_path):
    """Bright squares and dark bars on grey, as a COCO folder of train and valid."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 24), ("valid", 8)):
        folder = tmp_path / "squares" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for i in range(n):
            x = np.full((64, 96, 3), 128, np.uint8)
            for kind, spot in enumerate(rng.permutation(6)[:2]):
                w, h = ((20, 20), (26, 12))[kind]
                left = int(spot % 3 * 32 + rng.integers(0, 32 - w))
                top = int(spot // 3 * 32 + rng.integers(0, 32 - h))
                x[top : top + h, left : left + w] = (230, 20)[kind]
                annotations.append({"image_id": i, "category_id": kind, "bbox": [left, top, w, h]})
            Image.fromarray(x).save(folder / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 64})
        kinds = [{"id": 0, "name": "square"}, {"id": 1, "name": "bar"}]
        made = {"images": images, "annotations": annotations, "categories": kinds}
        (folder / "_annotations.coco.json").write_text(json.dumps(made))
    return Boxes(
        path=str(tmp_path / "squares"), size=(64, 96), augment={"translate": 0.0, "scale": 0.1}, split={"test": 0.0}
    )


def test_a_coco_run_from_end_to_end(squares, tmp_path):
    """Prepare, plan, train, score, report and draw: a COCO folder, a broken picture in it."""
    (Path(squares.path) / "train/5.png").write_bytes(b"torn")
    recipe = Recipe(
        name="squares", data=squares, task={"kind": "detect"}, evaluate={"on": "validation", "bootstrap": 100},
        model={"kind": "detector", "width": 16, "n_stages": 3, "n_layers": 1, "neck_width": 32},
        train={"length": "100 steps", "batch": 8, "precision": "fp32", "threads": 1, "signals": "never"},
        optimizer={"kind": "adamw", "lr": 4e-3, "weight_decay": 0.01}, plan={"budget": "1 s"},
    )  # fmt: skip
    run = danlu.run(recipe, tmp_path / "run")
    assert run.card.rows_rejected == {"unreadable_picture": 1}
    found, rivals = run.scores.metrics, run.scores.baselines
    assert found["map_50"].value > 0.8
    assert found["ap_50_square"].value > 0.7
    assert len(rivals) == 2
    assert all(rival["behind"].low > 0 for rival in rivals.values())
    assert [p["form"] for p in run.scores.panels][:3] == ["listing", "lines", "images"]
    assert "Pictures from all over the split" in run.report.read_text(encoding="utf-8")
    rows = run.predict([str(Path(squares.path) / "valid/0.png"), np.zeros((50, 70), np.uint8)], tmp_path / "drawn")
    assert {box["class"] for box in rows[0]["prediction"]} == {"square", "bar"}
    drawn = sorted((tmp_path / "drawn").glob("*.png"))
    assert [Image.open(path).size for path in drawn] == [(96, 64), (70, 50)]
    assert json.loads((tmp_path / "drawn/boxes.json").read_text())[0]["prediction"] == rows[0]["prediction"]
    colours = {c for _, c in Image.open(drawn[0]).getcolors(10_000)}
    assert {ImageColor.getrgb(colour) for colour in COLOURS[:2]} <= colours
    with pytest.raises(UserError, match="can be decoded"):
        run.predict([str(Path(squares.path) / "train/5.png")])


def test_init_sees_the_boxes(squares, tmp_path):
    recipe = Recipe.load(write_starter(squares.path, tmp_path / "recipe.toml"))
    assert (recipe.data.kind, recipe.model.kind, recipe.task.kind) == ("boxes", "detector", "detect")


def test_faults_of_a_picture():
    true = np.array([[0, 0, 10, 10, 0.0], [20, 20, 30, 30, 1.0], [40, 40, 50, 50, -2.0]])
    found = np.array([[0, 0, 10, 10, 0.9, 0.0], [20, 20, 30, 30, 0.9, 0.0]])
    assert faults(found, true) == 2
    assert faults(found[:0], true) == 2
    assert faults(found, true[:0]) == 2


def test_the_loss_of_pieces_is_the_loss_of_the_whole(squares, tmp_path):
    task = Detect()
    card = squares.prepare(tmp_path / "data", 0, lambda *_: None)
    model = Detector(width=8, n_stages=2, n_layers=1, neck_width=8).build(card, 6, 0).eval()
    batch = squares.open(tmp_path / "data", card, "train").batch(np.arange(6))
    with torch.no_grad():
        whole = task.loss_sum(model(batch), batch)
        parts = [batch.rows(slice(i, i + 2)) for i in (0, 2, 4)]
        pieces = sum(task.loss_sum(model(p), p) for p in parts)
    assert float(whole) == pytest.approx(float(pieces), rel=1e-5)
    assert sum(p.n_targets for p in parts) == batch.n_targets == 12


def test_own_pixels_undo_the_frame():
    frame = np.array([0.5, 0.25, 4, 8, 100, 80.0])
    assert own_pixels(np.array([[9.0, 13, 54, 28]]), frame).tolist() == [[10, 20, 100, 80]]
