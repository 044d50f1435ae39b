"""Translation: the search against trying everything, the scores against sacrebleu, the rivals against plain formulas."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.errors import MissingExtra
from danlu.tasks.beam import Search, searched
from danlu.tasks.translate import Translate
from danlu.tasks.translate_rivals import Dictionary, Nearest, words
from danlu.tasks.translate_scores import TextScorer, Translation

HYPOTHESES = ["Ein Hund läuft.", "Zwei Männer, die sitzen", "", "Eine Frau spielt Gitarre auf der Straße."]
REFERENCES = ["Ein Hund rennt.", "Zwei Männer sitzen.", "Ein Kind.", "Eine Frau spielt Gitarre auf der Straße ."]


class Chain:
    """Scores of the next token from the last two and the source: a model small enough to try everything."""

    def __init__(self, seed: int, n_tokens: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(7, n_tokens, n_tokens, n_tokens, generator=generator) * 2

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> Any:
        chain = self

        class Reading:
            sources, before = source[:, 0], None

            def beams(self, rows: torch.Tensor) -> None:
                assert self.before is not None
                self.before = self.before[rows]

            def samples(self, rows: torch.Tensor) -> None:
                self.sources = self.sources[rows]

        assert chain.table is not None
        return Reading()

    def step(self, tokens: torch.Tensor, reading: Any) -> torch.Tensor:
        before = torch.zeros_like(tokens) if reading.before is None else reading.before
        sources = reading.sources.repeat_interleave(len(tokens) // len(reading.sources))
        reading.before = tokens
        return self.table[sources, before, tokens]


def everything(chain: Chain, source: int, limit: int, how: Search) -> list[int]:
    """The best of all sequences of at most `limit` tokens with their end."""
    best, found = -np.inf, []
    free = [t for t in range(chain.table.shape[1]) if t != how.end and t not in how.barred]
    for n in range(limit):
        for body in itertools.product(free, repeat=n):
            before, last, total = 0, how.begin, 0.0
            for token in (*body, how.end):
                scores = chain.table[source, before, last].clone()
                scores[list(how.barred)] = -torch.inf
                total += float(scores.log_softmax(0)[token])
                before, last = last, token
            if (score := total / how.penalty(n + 1)) > best:
                best, found = score, list(body)
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_search_finds_the_best_of_all(alpha: float) -> None:
    sources, limits = torch.arange(7)[:, None], torch.tensor([4, 3, 4, 4, 2, 4, 1])
    for seed in range(4):
        how = Search(64, alpha, begin=0, end=2, barred=(0, 3))
        chain = Chain(seed)
        found = searched(chain, sources, torch.ones(7), limits, how)
        assert found == [everything(chain, i, int(limits[i]), how) for i in range(7)]


def test_one_beam_is_greedy() -> None:
    chain, how = Chain(3), Search(1, 1.0, begin=0, end=2, barred=(0,))
    found = searched(chain, torch.arange(7)[:, None], torch.ones(7), torch.full((7,), 6), how)
    for source, tokens in enumerate(found):
        before, last = 0, 0
        for token in [*tokens, 2]:
            scores = chain.table[source, before, last].clone()
            scores[0] = -torch.inf
            if len(tokens) < 5:
                assert int(scores.argmax()) == token
            before, last = last, token


def test_what_is_in_a_batch_with_others_changes_nothing() -> None:
    chain, how = Chain(5), Search(3, 1.0, begin=0, end=2, barred=(0,))
    limits = torch.tensor([6, 2, 9, 5, 1, 7, 3])
    together = searched(chain, torch.arange(7)[:, None], torch.ones(7), limits, how)
    alone = [searched(chain, torch.tensor([[i]]), torch.ones(1), limits[i : i + 1], how)[0] for i in range(7)]
    assert together == alone


def test_scores_are_those_of_sacrebleu() -> None:
    import sacrebleu

    scorer = TextScorer([Translation(text, 2.0, 4) for text in HYPOTHESES], REFERENCES, "13a", False)
    for rows in (np.arange(4), np.array([3, 3, 0, 1])):
        texts, wanted = [HYPOTHESES[i] for i in rows], [REFERENCES[i] for i in rows]
        found = scorer.values(rows)
        assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [wanted]).score)
        assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [wanted]).score)
        assert found["nats_per_token"] == 0.5
    assert scorer.by_sentence()[0] == pytest.approx(sacrebleu.sentence_chrf(HYPOTHESES[0], [REFERENCES[0]]).score)
    assert "nats_per_token" not in TextScorer([Translation("a")], ["b"], "13a", False).values()


def test_case_can_be_overlooked() -> None:
    given = [Translation(text.title()) for text in REFERENCES]
    assert TextScorer(given, REFERENCES, "13a", True).values()["bleu"] == pytest.approx(100)
    assert TextScorer(given, REFERENCES, "13a", False).values()["bleu"] < 60


def test_without_sacrebleu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(MissingExtra, match=r"danlu\[translation\]"):
        TextScorer([Translation("a")], ["b"], "13a", False)


def test_the_dictionary_is_model_one() -> None:
    sources = ["the house", "the book", "a book", "the"]
    targets = ["das Haus", "das Buch", "ein Buch", "das"]
    share = {(s, t): 1.0 for a in sources for s in ["", *words(a)] for b in targets for t in words(b)}
    for _ in range(5):
        counts = dict.fromkeys(share, 0.0)
        for a, b in zip(sources, targets, strict=True):
            for t in words(b):
                total = sum(share[s, t] for s in ["", *words(a)])
                for s in ["", *words(a)]:
                    counts[s, t] += share[s, t] / total
        sums: dict[str, float] = {}
        for (s, _), n in counts.items():
            sums[s] = sums.get(s, 0.0) + n
        share = {(s, t): n / sums[s] for (s, t), n in counts.items()}
    made = Dictionary(sources, targets)
    for s in {s for s, _ in share}:
        best = max((t for q, t in share if q == s), key=lambda t: share[s, t])
        assert made.best[s] == best
    assert made.translate("a house, the book") == "ein Haus, das Buch"


def test_the_nearest_pair_is_by_rare_words() -> None:
    nearest = Nearest(["a man in a hat", "a dog in a park", "a man in a park"], ["Hut", "Hund", "Park"])
    assert nearest.translate("The dog in a blue hat in a dog house") == "Hund"
    assert nearest.translate("a man in a park") == "Park"
    assert nearest.translate("unknown") == "Hut"


def test_smoothing_is_for_training_alone() -> None:
    task = Translate(label_smoothing=0.3)
    torch.manual_seed(0)
    features, matrix = torch.randn(2, 3, 8), torch.randn(6, 8, requires_grad=True)
    targets = torch.tensor([[1, 2, -1], [0, -1, -1]])
    batch, output = Batch({"targets": targets}, 3), Output(features=features, head_weight=matrix)
    logs, known = (features @ matrix.t()).log_softmax(-1), targets >= 0
    plain = -logs.detach()[known].gather(1, targets[known][:, None]).sum()
    assert float(task.loss_sum(output, batch).detach()) == pytest.approx(
        float(0.7 * plain - 0.3 * logs.detach()[known].mean(1).sum()), rel=1e-5
    )
    with torch.no_grad():
        assert float(task.loss_sum(output, batch)) == pytest.approx(float(plain), rel=1e-5)


def test_translations_are_written_a_line_each(tmp_path: Path) -> None:
    class Lines:
        sources, references = ["a", "b"], ["", ""]

        def name(self, row: int) -> str:
            return f"new.txt:{row + 1}"

    card = DataCard(kind="pairs", source="", rows_in=0, rows_used=0, rows_rejected={})
    split: Any = Lines()
    given = [Translation("ein A"), Translation("ein B")]
    assert Translate().write(given, split, card, tmp_path)
    assert (tmp_path / "translations.txt").read_text() == "ein A\nein B\n"
    assert Translate().rows(given, split, card)[1] == {"name": "new.txt:2", "source": "b", "prediction": "ein B"}
