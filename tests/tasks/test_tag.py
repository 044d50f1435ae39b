"""Tags: scores against a plain count, spans, rivals, and ranks."""

from typing import Any

import numpy as np
import pytest
import torch

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.errors import UserError
from danlu.tasks.regress_sequences import Ranked, design, spearman
from danlu.tasks.tag import Tag
from danlu.tasks.tag_rivals import tag_rivals
from danlu.tasks.tag_scores import TagScorer, span_counts, spans_of

NAMES = ["C", "E", "H"]


def card(**features: Any) -> DataCard:
    found = {"classes": NAMES, "class_counts": [50, 30, 20], "per_position": True, "vocab_size": 5} | features
    return DataCard(kind="protein", source="", rows_in=0, rows_used=0, rows_rejected={}, features=found)


class Few:
    """A split of a few sequences."""

    def __init__(self, tokens: list[list[int]], targets: list[list[int]]) -> None:
        self.tokens, self.targets = tokens, targets

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: np.ndarray, seeds: Any = None) -> Batch:
        n = max(len(self.tokens[i]) for i in rows)
        tokens, targets = torch.zeros(len(rows), n, dtype=torch.int64), torch.full((len(rows), n), -1)
        for at, i in enumerate(rows):
            tokens[at, : len(self.tokens[i])] = torch.tensor(self.tokens[i])
            targets[at, : len(self.targets[i])] = torch.tensor(self.targets[i])
        lengths = torch.tensor([len(self.tokens[i]) for i in rows])
        return Batch({"tokens": tokens, "lengths": lengths, "targets": targets}, int((targets >= 0).sum()))

    def name(self, row: int) -> str:
        return f"s{row}"


def made(n: int = 20) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, n)
    return [rng.dirichlet(np.ones(3), k) for k in sizes], [rng.integers(-1, 3, k) for k in sizes]


def test_scores_are_what_a_plain_count_gives() -> None:
    shares, truths = made()
    scorer = TagScorer(shares, truths, NAMES)
    rows = np.array([0, 3, 3, 7, 19])
    for chosen in (np.arange(20), rows):
        truth = np.concatenate([truths[i] for i in chosen])
        said = np.concatenate([shares[i].argmax(1) for i in chosen])
        known = truth >= 0
        found = scorer.values(None if len(chosen) == 20 else rows)
        assert found["accuracy"] == pytest.approx((truth == said)[known].mean())
        for c, name in enumerate(NAMES):
            hits = (known & (truth == c) & (said == c)).sum()
            f1 = 2 * hits / ((truth == c).sum() + (known & (said == c)).sum())
            assert found[f"f1_{name}"] == pytest.approx(f1)
        assert found["f1"] == pytest.approx(np.mean([found[f"f1_{n}"] for n in NAMES]))


def test_many_classes_are_counted_in_a_smaller_table(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*NAMES, "T"]
    shares, truths = made()
    wide = [np.pad(s, ((0, 0), (0, 1))) for s in shares]
    whole = TagScorer(wide, truths, names).values()
    monkeypatch.setattr("danlu.tasks.tag_scores.MAX_CELLS", 0)
    assert TagScorer(wide, truths, names).values() == pytest.approx(whole)


def test_spans_are_read_as_conlleval_reads_them() -> None:
    tags = ["B-x", "I-x", "O", "I-y", "B-y", "I-z", "O", "E-x", "S-x"]
    assert spans_of(tags) == {(0, 2, "x"), (3, 4, "y"), (4, 5, "y"), (5, 6, "z"), (7, 8, "x"), (8, 9, "x")}
    names = ["O", "B-x", "I-x"]
    assert span_counts(np.array([1, 2, 0, 1]), np.array([1, 2, 0, 2]), names) == (2, 2, 2)
    assert span_counts(np.array([1, 2, 0]), np.array([1, 0, 0]), names) == (0, 1, 1)


def test_rivals_learn_what_the_window_tells() -> None:
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 5, 40).tolist() for _ in range(60)]
    targets = [[0, *(int(t > 2) for t in row[:-1])] for row in tokens]  # by the token before
    train, split = Few(tokens[:50], targets[:50]), Few(tokens[50:], targets[50:])
    found = tag_rivals(train, split, 5, 2, 5)  # type: ignore[arg-type]
    assert list(found) == ["most frequent class", "class by token", "window of 5"]
    right = {
        name: np.mean([(s.argmax(1) == t).mean() for s, t in zip(shares, split.targets, strict=True)])
        for name, shares in found.items()
    }
    assert right["window of 5"] > 0.95
    assert right["class by token"] < 0.7
    for shares in found.values():
        assert all(s.sum(1) == pytest.approx(1.0) for s in shares)
        assert [len(s) for s in shares] == [40] * 10


def test_the_loss_leaves_out_what_is_not_scored() -> None:
    scores, targets = torch.randn(2, 4, 3), torch.tensor([[0, 1, -1, 2], [2, -1, -1, -1]])
    batch = Batch({"targets": targets}, 4)
    plain = -sum(scores.log_softmax(-1)[b, t, targets[b, t]] for b in range(2) for t in range(4) if targets[b, t] >= 0)
    assert float(Tag().loss_sum(Output(scores=scores), batch)) == pytest.approx(float(plain), rel=1e-5)
    weighted = Tag(class_weights={"H": 3.0})
    weighted.check(card())
    by_hand = -sum(
        (3.0 if targets[b, t] == 2 else 1.0) * scores.log_softmax(-1)[b, t, targets[b, t]]
        for b in range(2) for t in range(4) if targets[b, t] >= 0
    )  # fmt: skip
    assert float(weighted.loss_sum(Output(scores=scores), batch)) == pytest.approx(float(by_hand), rel=1e-5)
    with pytest.raises(UserError, match="scores for every position"):
        Tag().loss_sum(Output(scores=scores[:, 0]), batch)


def test_data_without_positions_are_refused() -> None:
    with pytest.raises(UserError, match="a class for every position"):
        Tag().check(card(per_position=False))
    with pytest.raises(UserError, match="must name classes"):
        Tag(class_weights={"Q": 2.0}).check(card())


def test_what_predict_prints(tmp_path: Any) -> None:
    shares = [np.eye(3)[[0, 2, 2, 1]], np.eye(3)[[1]]]
    split = Few([[1, 2, 3, 4], [1]], [[0, 0, 0, 0], [0]])
    rows = Tag().rows(shares, split, card())  # type: ignore[arg-type]
    assert rows[0] == {"name": "s0", "prediction": "CHHE", "share": 1.0}
    assert Tag().write(shares, split, card(), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "predictions.fasta").read_text() == ">s0\nCHHE\n>s1\nE\n"
    words = Tag().rows(shares, split, card(classes=["O", "B-x", "I-x"]))  # type: ignore[arg-type]
    assert words[0]["prediction"] == ["O", "I-x", "I-x", "B-x"]


def test_spearman_under_a_resample_is_that_of_the_resample() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 60).astype(float)
    y = x + rng.integers(0, 6, 60)
    rows = rng.integers(0, 60, 60)

    def ranks(v: np.ndarray) -> np.ndarray:
        return np.array([(v < a).sum() + ((v == a).sum() + 1) / 2 for a in v])

    counts = np.bincount(rows, minlength=60).astype(float)
    plain = np.corrcoef(ranks(x[rows]), ranks(y[rows]))[0, 1]
    assert spearman(Ranked.of(x), Ranked.of(y), counts) == pytest.approx(plain)
    assert spearman(Ranked.of(np.ones(5)), Ranked.of(np.arange(5.0)), np.ones(5)) == 0


def test_the_linear_rival_sees_places_that_vary_or_shares_of_tokens() -> None:
    tokens = np.array([[1, 2, 3], [1, 4, 3], [1, 2, 2]])
    part = {"tokens": tokens, "lengths": np.array([3, 3, 3])}
    ours, theirs = design([part], [part], 5) or (None, None)
    assert ours is not None
    assert (ours == theirs).all()
    assert ours.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]]  # place 1: 2, 4; place 2: 2, 3
    ragged = {"tokens": np.array([[1, 2, 0], [1, 1, 3]]), "lengths": np.array([2, 3])}
    shares = (design([ragged], [ragged], 4) or (np.empty(0),))[0]
    assert shares[:, :4] == pytest.approx(np.array([[0, 0.5, 0.5, 0], [0, 2 / 3, 0, 1 / 3]]))
    assert design([ragged], [ragged], 100_000) is None
