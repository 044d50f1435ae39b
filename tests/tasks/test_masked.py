"""Masked words: what is hidden follows from each sample's seed, in BERT's shares; scores and rivals by hand."""

import math

import numpy as np
import pytest
import torch

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.errors import UserError
from danlu.data.samples import fixed_seeds as scored_with
from danlu.tasks.masked import FillScorer, Masked, fixed_seeds
from danlu.tasks.masked_rivals import Pairs, beside_gap, fill_rivals, fitted_weights

V, FIRST, HIDDEN = 50, 4, 2


def card(**features):
    found = {"vocab_size": V, "mask_id": HIDDEN, "n_special": FIRST} | features
    return DataCard(kind="sentences", source="x", rows_in=0, rows_used=0, rows_rejected={}, features=found)


def ready(**settings):
    task = Masked(**settings)
    task.check(card())
    return task


def batch_of(rows, grams=False):
    n = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (n - len(row))] for row in rows])
    tensors = {
        "tokens": tokens,
        "lengths": torch.tensor([len(row) for row in rows]),
        "targets": torch.zeros(len(rows), dtype=torch.int64),
    }
    if grams:
        tensors["grams"] = tokens[..., None] * torch.tensor([1, 2])
    return Batch(tensors, len(rows))


def many(n=400, length=40):
    rng = np.random.default_rng(0)
    return batch_of(rng.integers(FIRST, V, (n, length)).tolist())


def test_shares_are_berts():
    batch = many()
    changed = ready().change(batch, fixed_seeds(np.arange(400)))
    before, after, targets = batch.tensors["tokens"], changed.tensors["tokens"], changed.tensors["targets"]
    asked = targets >= 0
    assert changed.n_targets == int(asked.sum()) == 400 * 6
    assert (targets[asked] == before[asked]).all()
    assert (after[~asked] == before[~asked]).all()
    n = float(asked.sum())
    assert float((after == HIDDEN).sum()) / n == pytest.approx(0.8, abs=0.03)
    assert float((after[asked] == before[asked]).sum()) / n == pytest.approx(0.1 + 0.1 / (V - FIRST), abs=0.03)
    assert int(after[asked & (after != HIDDEN)].min()) >= FIRST
    assert asked.any(0).all()  # every place has its turn


def test_a_sample_depends_on_its_own_seed_alone():
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17]]
    task, seeds = ready(share=0.5), fixed_seeds(np.array([3, 1, 2]))
    whole = task.change(batch_of(rows), seeds)
    for i, row in enumerate(rows):
        alone = task.change(batch_of([row]), seeds[i : i + 1])
        for name in ("tokens", "targets"):
            assert alone.tensors[name][0].tolist() == whole.tensors[name][i, : len(row)].tolist()
    assert whole.tensors["targets"][1, 2:].tolist() == [-1] * 5


def test_seeds_are_those_of_the_stages():
    rows = np.array([0, 1, 7, 123_456])
    assert (fixed_seeds(rows) == scored_with(rows)).all()


def test_special_tokens_are_never_asked_and_gaps_stay():
    changed = ready(share=0.9).change(batch_of([[3, 1, 5], [5, HIDDEN, 6], [1, 1, 1]]), fixed_seeds(np.arange(3)))
    assert changed.tensors["targets"].tolist() == [[-1, -1, 5], [-1] * 3, [-1] * 3]
    assert changed.tensors["tokens"][1].tolist() == [5, HIDDEN, 6]
    assert changed.n_targets == 1


def test_spelled_words_are_hidden_with_their_spelling():
    rows = np.random.default_rng(1).integers(FIRST, V, (60, 12)).tolist()
    before = batch_of(rows, grams=True)
    changed = ready(share=0.5).change(before, fixed_seeds(np.arange(60)))
    tokens, grams = changed.tensors["tokens"], changed.tensors["grams"]
    assert (grams[tokens == HIDDEN] == 0).all()
    seen = tokens != HIDDEN
    assert (grams[seen] == tokens[seen][:, None] * torch.tensor([1, 2])).all()


def test_loss_is_of_the_hidden_words_alone():
    torch.manual_seed(0)
    features, table = torch.randn(2, 3, 8), torch.randn(V, 8)
    targets = torch.tensor([[-1, 5, -1], [7, -1, 9]])
    batch = Batch({"targets": targets, "tokens": torch.zeros(2, 3, dtype=torch.int64)}, 3)
    scores = features @ table.t()
    wanted = sum(
        float(torch.logsumexp(scores[i, j], 0) - scores[i, j, targets[i, j]]) for i, j in ((0, 1), (1, 0), (1, 2))
    )
    task = ready()
    assert float(task.loss_sum(Output(features=features, head_weight=table), batch)) == pytest.approx(wanted, rel=1e-5)
    assert float(task.loss_sum(Output(scores=scores), batch)) == pytest.approx(wanted, rel=1e-5)
    found = task.predict(lambda batch: Output(features=features, head_weight=table), batch, card())
    assert [len(f) for f in found] == [1, 2]
    assert sum(f[:, 0].sum() for f in found) == pytest.approx(wanted, rel=1e-5)
    assert found[0][0, 1] == int(scores[0, 1].argmax())


def test_scores_by_hand():
    predictions = [np.array([[1.0, 5], [2.0, 6]]), np.array([[3.0, 7]]), np.zeros((0, 2))]
    truths = [np.array([[5, 9], [0, 1]]), np.array([[7], [4]]), np.zeros((2, 0))]
    scorer = FillScorer(predictions, truths)
    assert scorer.n_units == 2
    assert scorer.values() == {
        "nats_per_token": 2.0,
        "perplexity": pytest.approx(math.exp(2)),
        "accuracy": pytest.approx(2 / 3),
    }
    assert scorer.values(np.array([1, 1]))["nats_per_token"] == 3.0


def test_pairs_are_counted_and_the_rest_is_the_unigram():
    a, b = np.array([4, 4, 4, 5]), np.array([6, 6, 7, 6])
    pairs = Pairs.of(a, b, V)
    assert pairs.count(np.array([4, 4, 5, 9]), np.array([6, 7, 6, 9])).tolist() == [2, 1, 1, 0]
    alone = np.full(V, 1 / V)
    nats, best = beside_gap(pairs, pairs, alone, (0.5, 0.2), (4, 9), 6, HIDDEN)
    assert nats == pytest.approx(-math.log(0.5 * 2 / 3 + 0.5 / V))
    assert best == 6
    nats, _ = beside_gap(pairs, pairs, alone, (0.5, 0.2), (HIDDEN, HIDDEN), 6, HIDDEN)
    assert nats == pytest.approx(math.log(V))


def test_neighbours_beat_the_unigram_where_they_decide():
    rows = [[4 + (i + j) % 40 for j in range(10)] for i in range(80)]
    split = type(
        "Split", (), {"__len__": lambda self: len(rows), "batch": lambda self, at: batch_of([rows[i] for i in at])}
    )()
    task = ready()
    found = fill_rivals(split, split, task, card())
    truths = [
        t for i in range(80) for t in task.truths(task.change(split.batch([i]), fixed_seeds(np.array([i]))), card())
    ]
    nats = {name: FillScorer(made, truths).values()["nats_per_token"] for name, made in found.items()}
    assert nats["neighbours"] < 0.5 < 3 < nats["unigram"]


def test_weights_leave_each_word_out_of_its_own_counts():
    rng = np.random.default_rng(0)
    before, word, after = rng.integers(4, V, (3, 400))
    left, right = Pairs.of(before, word, V), Pairs.of(after, word, V)
    alone = np.bincount(word, minlength=V) / len(word)
    weights = fitted_weights(left, right, alone, before, word, after)
    assert sum(weights) <= 0.3  # neighbours say nothing here


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UserError, match="mask token"):
        Masked().check(DataCard(kind="table", source="x", rows_in=0, rows_used=0, rows_rejected={}))
    with pytest.raises(UserError, match="at most 1"):
        Masked(hidden=0.8, replaced=0.5).check(card())
    with pytest.raises(UserError, match="at each position"):
        ready().loss_sum(Output(), Batch({"targets": torch.tensor([[1]])}, 1))
