"""Images: lists of every kind, what decoding may cost, and augmentation that depends on the sample's seed alone."""

import gzip
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from danlu.base.errors import UserError
from danlu.data import augment_policy
from danlu.data.augment import Augment, Draws, augmented, recoloured, stepped
from danlu.data.image import Image
from danlu.data.image_list import idx, places_of
from danlu.data.order import mixed


def quiet(what, done, total):
    pass


def png(i, size=(12, 9)):
    pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
    held = io.BytesIO()
    Pillow.fromarray(pixels).save(held, "png")
    return held.getvalue()


def test_a_csv_of_paths_with_columns_of_its_own(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    lines = ["split;note;picture;kind"] + [f"{'test' if i > 5 else 'train'};x;{i}.png;{'ab'[i % 2]}" for i in range(8)]
    lines += ["train;x;gone.png;a", "train;x;0.png;", "train;too;few"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    source = Image(path=str(tmp_path / "list.csv"), image_column="picture", label_column="kind", size=8)
    (tmp_path / "out").mkdir()
    card = source.prepare(tmp_path / "out", 0, quiet)
    assert card.features["classes"] == ["a", "b"]
    assert card.splits["test"].n_samples == 2
    assert card.rows_rejected == {"too few fields": 1, "no label": 1, "not an image that can be read": 1}
    assert (card.rows_in, card.rows_used) == (11, 8)
    with pytest.raises(UserError, match=r"label_column.*picture"):
        source.model_copy(update={"label_column": "pictur"}).prepare(tmp_path / "out", 0, quiet)


@pytest.mark.parametrize("form", ["struct", "bytes", "paths"])
def test_parquet_with_the_images_inside_or_beside(tmp_path, form):
    import polars as pl

    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    cell = {"struct": lambda i: {"bytes": png(i), "path": f"{i}.png"}, "bytes": png, "paths": lambda i: f"{i}.png"}[
        form
    ]
    broken = {"struct": {"bytes": b"no", "path": ""}, "bytes": b"no", "paths": "gone.png"}[form]
    frame = pl.DataFrame({"label": [i % 2 for i in range(6)] + [0], "image": [*map(cell, range(6)), broken]})
    frame.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "out").mkdir()
    card = Image(path=str(tmp_path / "t.parquet"), size=8).prepare(tmp_path / "out", 0, quiet)
    assert card.features["classes"] == ["0", "1"]
    assert (card.rows_in, card.rows_used, sum(card.rows_rejected.values())) == (7, 6, 1)
    found = np.concatenate([np.load(p) for p in sorted((tmp_path / "out").glob("*.pixels.npy"))])
    assert found.shape == (6, 3, 8, 8)


def test_columns_are_found_by_usual_names(tmp_path):
    path = tmp_path / "x.csv"
    auto = ("auto", "auto")
    assert places_of(path, ["split", "id", "Label", "file_name"], auto) == (3, 2, 0)
    assert places_of(path, ["a", "b"], auto) == (0, 1, None)
    assert places_of(path, ["label", "b"], auto) == (1, 0, None)
    assert places_of(path, ["a", "b", "c"], ("auto", "a")) == (1, 0, None)
    with pytest.raises(UserError, match="one of labels"):
        places_of(path, ["a"], auto)


def test_an_idx_file_unpacks_no_more_than_it_says(tmp_path):
    head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 3))
    good = tmp_path / "good"
    good.write_bytes(gzip.compress(head + bytes(range(18))))
    assert idx(good).shape == (2, 3, 3)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(head + bytes(50_000_000)))
    with pytest.raises(UserError, match="at least 19 bytes"):
        idx(bomb)
    absurd = tmp_path / "absurd"
    absurd.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12 + bytes(9))
    with pytest.raises(UserError, match="whole idx"):
        idx(absurd)


def test_pixels_of_0_to_1(tmp_path):
    for i, name in itertools.product(range(4), "ab"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{i}.png").write_bytes(png(i))
    (tmp_path / "out").mkdir()
    source = Image(path=str(tmp_path), normalize="unit", size=9)
    card = source.prepare(tmp_path / "out", 0, quiet)
    batch = source.open(tmp_path / "out", card, "train").batch(np.arange(3))
    assert batch.tensors["image"].min() >= 0
    assert 0.9 < batch.tensors["image"].max() <= 1


SEEDS = mixed(np.arange(12, dtype=np.uint64) * np.uint64(77))
EVERY = Augment(
    flip=0.5, pad=0.2, crop=0.5, shift=0.1, rotate=10, zoom=0.1, shear=0.1, brightness=0.2, contrast=0.2,
    saturation=0.5, hue=0.2, policy=3, erase=0.5,
)  # fmt: skip


def changed(x, seeds, how):
    x = recoloured(x, seeds, how)
    return augmented({"image": x, "targets": torch.zeros(len(x), dtype=torch.long)}, seeds, how, 3)["image"]


def test_a_sample_is_changed_by_its_own_seed_alone():
    x = torch.rand(12, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    whole = changed(x, SEEDS, EVERY)
    assert whole.shape == x.shape
    for rows in ([3], [7, 3, 0], list(range(11, -1, -1))):
        torch.testing.assert_close(changed(x[rows], SEEDS[rows], EVERY), whole[rows], rtol=0, atol=2e-6)
    assert not torch.equal(changed(x, mixed(SEEDS), EVERY), whole)


def test_nothing_is_changed_unless_asked():
    assert not Augment().is_on
    assert not Augment(strength=0.9).is_on
    assert Augment(policy=1).is_on
    assert Augment(crop=0.5).is_on


@pytest.mark.parametrize("name", augment_policy.OPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_change_keeps_pixels_between_0_and_1(name, channels):
    x = torch.rand(5, channels, 9, 7)
    x[0] = 0.5  # one colour all over
    strength = torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0])
    y = augment_policy.OPS[name](x, strength)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert y.min() >= 0
    assert y.max() <= 1
    if name in (
        "none",
        "rotate",
        "shear x",
        "shear y",
        "move x",
        "move y",
        "brightness",
        "colour",
        "contrast",
        "sharpness",
    ):
        torch.testing.assert_close(y[2], x[2], rtol=0, atol=1e-5)  # strength 0


def test_changes_against_pillow():
    """Equalize and autocontrast as PIL.ImageOps does them, but for its rounding; solarize exactly."""
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(40, 200, (16, 16), np.uint8)
    x = torch.from_numpy(pixels)[None, None].float() / 255
    picture = Pillow.fromarray(pixels)
    for name, theirs, off in (
        ("equalize", ImageOps.equalize(picture), 3.0),
        ("stretch", ImageOps.autocontrast(picture), 1.0),
    ):
        ours = augment_policy.OPS[name](x, torch.ones(1))[0, 0] * 255
        assert np.abs(ours.numpy() - np.asarray(theirs)).max() <= off, name
    ours = augment_policy.OPS["solarize"](x, torch.tensor([0.5]))[0, 0] * 255
    assert np.abs(ours.numpy() - np.asarray(ImageOps.solarize(picture, 128))).max() < 0.6


def test_whole_pixels_are_moved_and_the_mean_comes_in():
    x = torch.arange(1.0, 26).view(1, 1, 5, 5).expand(40, 1, 5, 5)
    y = stepped(x, Draws(mixed(np.arange(40, dtype=np.uint64))), 0.4)
    seen = set()
    for image in y[:, 0]:
        kept = image[image > 0]
        dy, dx = divmod(int(kept[0]) - 1, 5)
        at = (image > 0).nonzero()[0]
        seen.add((dy - int(at[0]), dx - int(at[1])))
        assert set(kept.tolist()) <= set(range(1, 26))
    assert len(seen) > 10
    assert max(abs(v) for pair in seen for v in pair) == 2


def test_colours_turn_and_grey_stays():
    x = torch.rand(6, 3, 4, 4)
    x[0] = 0.4
    y = augment_policy.coloured(x * 0.2 + 0.4, Draws(SEEDS[:6]), 0.0, 0.5)
    torch.testing.assert_close(augment_policy.grey_of(y), augment_policy.grey_of(x * 0.2 + 0.4), rtol=0, atol=2e-3)
    torch.testing.assert_close(y[0], torch.full((3, 4, 4), 0.48), rtol=0, atol=2e-3)
    assert (y - (x * 0.2 + 0.4))[1:].abs().max() > 0.05
