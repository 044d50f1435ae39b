"""Tagged texts: columns and JSONL, every sentence accounted for."""

from pathlib import Path

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data.arrays import clear
from danlu.data.table_read import Intake
from danlu.data.tagged import Tagged

CONLL = """-DOCSTART- -X- O O

# text = a note
EU NNP I-NP B-ORG
rejects VBZ I-VP O
# NN I-NP O

Peter NNP I-NP B-PER
gone

"""


def test_columns_are_read_with_notes_and_documents(tmp_path: Path) -> None:
    (tmp_path / "x.conll").write_text(CONLL.replace("\n", "\r\n"))
    intake = Intake()
    data = Tagged(path=str(tmp_path / "x.conll"))
    found = data.sentences(data.path, intake)
    assert [(s.words, s.tags) for s in found] == [(("EU", "rejects", "#"), ("B-ORG", "O", "O"))]
    assert (intake.n_in, dict(intake.reasons)) == (2, {"a line without a tag": 1})
    speech = Tagged(path=data.path, tag_column=1)
    assert speech.sentences(data.path, Intake())[0].tags == ("NNP", "VBZ", "NN")


def test_lines_of_json_are_read(tmp_path: Path) -> None:
    rows = [
        '{"tokens": ["a", "b"], "tags": ["X", "Y"]}',
        "{",
        '{"tokens": ["a"], "tags": []}',
        '{"tokens": ["a"], "tags": ["X", "Y"]}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(rows * 2))
    data = Tagged(path=str(tmp_path / "x.jsonl"), least_count=1, split={"kind": "random", "validation": 0, "test": 0})
    with pytest.raises(UserError, match="at least three tagged sentences"):
        data.prepare(tmp_path, 0, lambda *a: None)
    (tmp_path / "x.jsonl").write_text("\n".join(rows * 3))
    out = tmp_path / "out"
    clear(out)
    card = data.prepare(out, 0, lambda *a: None)
    assert (card.rows_in, card.rows_used, sum(card.rows_rejected.values())) == (12, 3, 9)
    batch = data.open(out, card, "train").batch(np.arange(3))
    assert batch.tensors["tokens"].tolist() == [[2, 3]] * 3
    assert batch.tensors["targets"].tolist() == [[0, 1]] * 3
    new = data.read(out, card, ["A zebra", ["b"]])
    assert new.batch(np.arange(2)).tensors["tokens"].tolist() == [[2, 1], [3, 0]]
    assert new.shown([2, 1]) == ["a", "<unknown>"]
