"""Protein files: dirty records, labels, masks, splits, zips, near copies, changes."""

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data.arrays import clear
from danlu.data.protein import Proteins
from danlu.data.protein_change import exchange_chances
from danlu.data.protein_copies import near_copies
from danlu.data.protein_read import RESIDUES, cleaned
from danlu.data.protein_targets import FIRST, PAD, UNKNOWN, encoded

DIRTY = """lost
; a note
>a SET=train
acde
FG*
>b SET=train

WWYX
>c SET=test
AC*DE
>a SET=train
MMMM
>d SET=valid
>e SET=test
A1C
>f SET=test
M-K.L
>g SET=train
UUBZ
"""


def prepared(folder: Path, **settings: Any) -> tuple[Proteins, Any, Path]:
    data = Proteins(**settings)
    out = folder / "data"
    clear(out)
    return data, data.prepare(out, 0, lambda *a: None), out


def reference_shared(one: str, other: str) -> float:
    pieces = [{s[i : i + 5] for i in range(len(s) - 4)} for s in (one, other)]
    return len(pieces[0] & pieces[1]) / len(pieces[0])


def test_every_dirty_record_is_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(DIRTY)
    data, card, out = prepared(tmp_path, path=str(tmp_path / "x.fa"), split={"kind": "named"})
    assert card.rows_in == 9
    assert card.rows_used == 4
    assert card.rows_rejected == {
        "before the first header": 1, "a stop inside": 1, "a name that was there before": 1, "no residues": 1,
        "letters that are no residue": 1,
    }  # fmt: skip
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 5
    assert json.loads((out / "rejected.jsonl").read_text().splitlines()[0])["row"] == "x.fa:1"
    assert any("5 of 17 residues" in w for w in card.warnings)
    split = data.open(out, card, "test")
    assert split.name(0) == "f"
    assert split.shown(split.row_tokens(0)) == list("MKL")


def test_labels_masks_and_unscored_positions(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">a\nACDE\n>b\nACD\n>c\nAC\n>d\nAAAA\n>e\nAA\n>f\nAA\n")
    (tmp_path / "y.fasta").write_text(">a\nHHEC\n>b\nHH\n>c\nH?\n>d\nCCCC\n>f\nEE\n")
    (tmp_path / "m.fasta").write_text(">a\n0110\n>b\n111\n>c\n11\n>d\n1111\n")
    split = {"kind": "random", "validation": 0, "test": 0}
    data, card, out = prepared(tmp_path, path=str(tmp_path / "x.fasta"), labels="y.fasta", mask="m.fasta", split=split)
    assert card.rows_rejected == {"labels of another length": 1, "no label": 1, "no mask": 1}
    assert card.features["classes"] == ["C", "E", "H"]
    assert card.features["class_counts"] == [4, 1, 2]
    assert card.features["per_position"] is True
    opened = data.open(out, card, "train")
    rows = {opened.name(i): i for i in range(3)}
    batch = opened.batch(np.array([rows["c"], rows["a"]]))
    assert batch.tensors["targets"].tolist() == [[2, -1, -1, -1], [-1, 2, 1, -1]]
    assert batch.tensors["tokens"][0].tolist() == [FIRST, FIRST + 1, PAD, PAD]
    assert batch.n_targets == 3


@pytest.mark.parametrize("packed", ["plain", "gzip", "zip"])
def test_plain_gzipped_and_zipped_files_are_one(tmp_path: Path, packed: str) -> None:
    text = "".join(f">p{i} TARGET={i}.5\nACDEFGHIKL{'ACDEFGHIKLMNPQRSTVWY'[i % 20]}\n" for i in range(30))
    path = tmp_path / "x.fasta"
    if packed == "gzip":
        path = tmp_path / "x.fasta.gz"
        path.write_bytes(gzip.compress(text.encode()))
    elif packed == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("in/x.fasta", text)
            archive.writestr("in/y.txt", "no")
        path = tmp_path / "x.zip"
    else:
        path.write_text(text)
    _, card, _ = prepared(tmp_path, path=str(path))
    assert (card.rows_in, card.rows_used) == (30, 30)
    assert card.features["targets"] == ["target"]
    if packed == "zip":
        again = Proteins(path=f"{path}/in/x.fasta")
        assert again.files() == [path]
        with pytest.raises(UserError, match=r"must hold in/z\.fasta"):
            Proteins(path=f"{path}/in/z.fasta").expected()


def test_wrong_input_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("seq,y\nACD,1\nACE,2\nACF,3\n")
    with pytest.raises(UserError, match="sequence"):
        Proteins(path=str(tmp_path / "x.csv")).expected()
    with pytest.raises(UserError, match=r"data\.target"):
        Proteins(path=str(tmp_path / "x.csv"), sequence="seq", target="z", target_kind="number").expected()
    (tmp_path / "x.zip").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="is not a zip"):
        Proteins(path=str(tmp_path / "x.zip")).expected()
    with pytest.raises(UserError, match="train, validation or test"):
        prepared(
            tmp_path, path=str(tmp_path / "x.csv"), sequence="seq", target="y", split={"kind": "named", "column": "y"}
        )


def test_near_copies_are_found_as_a_plain_count_finds_them() -> None:
    rng = np.random.default_rng(0)
    train = ["".join(RESIDUES[i] for i in rng.integers(0, 20, 80)) for _ in range(30)]
    held = [train[7][:60] + "".join(RESIDUES[i] for i in rng.integers(0, 20, 10)), train[3][::-1], train[5][:30] * 2]
    found = near_copies([encoded(t) for t in train], [encoded(t) for t in held])
    assert [(h, t) for h, t, _ in found] == [(0, 7), (2, 5)]
    for one, other, share in found:
        assert share == pytest.approx(reference_shared(held[one], train[other]))
    assert near_copies([encoded("AC")], [encoded("AC")]) == []


def test_changes_are_a_function_of_the_samples_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f">p{i}\n" + "".join(RESIDUES[j] for j in rng.integers(0, 20, 300)) for i in range(40)]
    (tmp_path / "x.fasta").write_text("\n".join(rows))
    augment = {"hide": 0.1, "exchange": 0.2, "crop": 200}
    data, card, out = prepared(
        tmp_path, path=str(tmp_path / "x.fasta"), augment=augment, split={"kind": "random", "validation": 0, "test": 0}
    )
    split = data.open(out, card, "train")
    seeds = np.arange(40, dtype=np.uint64) * np.uint64(977)
    whole = split.batch(np.arange(40), seeds).tensors["tokens"].numpy()
    assert whole.shape == (40, 200)
    alone = split.batch(np.array([17]), seeds[17:18]).tensors["tokens"].numpy()
    assert (alone == whole[17:18]).all()
    assert abs(float((whole == UNKNOWN).mean()) - 0.1) < 0.02
    plain = split.batch(np.arange(40)).tensors["tokens"].numpy()
    assert plain.shape == (40, 300)
    data_crop = Proteins(path=str(tmp_path / "x.fasta"), augment={"crop": 200})
    cropped = data_crop.open(out, card, "train").batch(np.arange(40), seeds).tensors["tokens"].numpy()
    known = whole != UNKNOWN
    assert abs(float((whole != cropped)[known].mean()) - 0.2) < 0.02
    for i in range(40):
        assert cropped[i].tobytes() in plain[i].tobytes()


def test_blosum_prefers_what_is_alike() -> None:
    chances = exchange_chances(RESIDUES)
    assert chances.sum(1) == pytest.approx(1.0)
    of = {a: dict(zip(RESIDUES, row, strict=True)) for a, row in zip(RESIDUES, chances, strict=True)}
    assert of["I"]["I"] == 0
    assert max(of["I"], key=lambda b: of["I"][b]) in "VL"
    assert of["K"]["R"] > 5 * of["K"]["W"]


def test_a_sequence_is_cleaned() -> None:
    assert cleaned(" mk-l.\n*") == ("MKL", "")
    assert cleaned("**") == ("", "no residues")
    assert cleaned("MJ\u00e9") == ("", "letters that are no residue")


@pytest.mark.data
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA to name a folder with the well-known sets")
def test_flip_is_read_from_its_zip(tmp_path: Path) -> None:
    path = "$DANLU_DATA/protein_sequences/flip_secondary_structure_splits.zip/splits/sequences.fasta"
    split = {"kind": "named", "validation_column": "validation"}
    _, card, _ = prepared(tmp_path, path=path, labels="sampled.fasta", mask="mask.fasta", split=split)
    assert {name: (s.n_samples, s.n_targets) for name, s in card.splits.items()} == {
        "train": (9712, 2319963), "validation": (1080, 262853), "test": (364, 75402),
    }  # fmt: skip
    assert card.leakage["n_test_near_copies_of_training_proteins"] == 0
