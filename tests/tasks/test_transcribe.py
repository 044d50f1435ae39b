"""Decoding and the loss against every alignment there is; errors against jiwer."""

import itertools
import math

import numpy as np
import pytest
import torch

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.errors import UserError
from danlu.tasks.transcribe import Transcribe
from danlu.tasks.transcribe_decode import greedy, prefix_search
from danlu.tasks.transcribe_panels import transcript_panels
from danlu.tasks.transcribe_rivals import outlines, rivals
from danlu.tasks.transcribe_scores import TranscriptScorer, edits

pytest.importorskip("jiwer")
CARD = DataCard(
    kind="audio", source="", rows_in=0, rows_used=0, rows_rejected={},
    features={"units": ["a", "b", " "], "unit": "characters", "n_bins": 2},
)  # fmt: skip


def logs_of(n_frames: int, n_codes: int, seed: int) -> np.ndarray:
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(n_frames, n_codes)) * 2)
    return scores.log_softmax(-1).numpy()


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(code - 1 for code, _ in itertools.groupby(path) if code)


def by_transcript(logs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Share of every transcript: the sum over all its alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        share = math.exp(sum(logs[t, code] for t, code in enumerate(path)))
        found[collapsed(path)] = found.get(collapsed(path), 0.0) + share
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_the_likeliest_transcript(seed: int) -> None:
    logs = logs_of(5, 4, seed)
    shares = by_transcript(logs)
    best = max(shares, key=lambda units: shares[units])
    units, share = prefix_search(logs, 10_000, least=-100.0)
    assert tuple(units) == best
    assert math.exp(share) == pytest.approx(shares[best], rel=1e-9)
    assert tuple(greedy(logs)) == collapsed(tuple(logs.argmax(1)))
    narrow, narrow_share = prefix_search(logs, 3)
    assert math.exp(narrow_share) <= shares[tuple(narrow)] * (1 + 1e-9)


def test_the_search_sums_where_greedy_does_not() -> None:
    """Graves et al. 2006, figure 2: blank is likeliest at both frames, but "a" is likelier than nothing."""
    logs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert greedy(logs) == []
    assert prefix_search(logs, 4)[0] == [0]


def test_repeats_need_a_blank_between() -> None:
    logs = np.log(np.array([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]))
    assert greedy(logs) == [0, 0]
    assert greedy(np.zeros((0, 3))) == []
    assert prefix_search(np.zeros((0, 3)), 4) == ([], 0.0)


def batch_of(targets: list[list[int]], lengths: list[int]) -> Batch:
    width = max(map(len, targets))
    padded = torch.tensor([row + [-1] * (width - len(row)) for row in targets])
    return Batch({"targets": padded, "lengths": torch.tensor(lengths), "text": padded}, int((padded >= 0).sum()))


def test_the_loss_is_over_all_alignments() -> None:
    logs = np.stack([logs_of(5, 4, 1), logs_of(5, 4, 2)])
    batch = batch_of([[0, 1], [2, 2]], [5, 4])
    wanted = -math.log(by_transcript(logs[0])[0, 1]) - math.log(by_transcript(logs[1][:4])[2, 2])
    found = Transcribe().loss_sum(Output(scores=torch.from_numpy(logs)), batch)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_errors_are_those_of_jiwer_and_counted_once() -> None:
    import jiwer

    said = ["the cat sat", "a b c d", "yes", "", "one two"]
    heard = ["the bat sat down", "a c d", "yes", "noise here", ""]
    assert edits(said, heard).tolist() == [[1, 0, 1, 3], [0, 1, 0, 4], [0, 0, 0, 1], [0, 0, 2, 0], [0, 2, 0, 2]]
    scorer = TranscriptScorer(heard, said)
    rows = np.array([0, 1, 1, 4])
    found = scorer.values(rows)
    assert found["word_error"] == pytest.approx(jiwer.wer([said[i] for i in rows], [heard[i] for i in rows]))
    assert found["character_error"] == pytest.approx(jiwer.cer([said[i] for i in rows], [heard[i] for i in rows]))
    assert scorer.values()["right"] == pytest.approx(0.2)
    assert found["words_changed"] + found["words_left_out"] + found["words_put_in"] == pytest.approx(
        found["word_error"]
    )


class Sounds:
    """Frames that are a constant for each text."""

    def __init__(self, texts: list[str], seed: int) -> None:
        self.texts, rng = texts, np.random.default_rng(seed)
        self.lengths = rng.integers(3, 12, len(texts))
        self.frames = [np.full((n, 2), len(t)) + rng.normal(size=(n, 2)) * 0.1 for t, n in zip(texts, self.lengths)]  # noqa: B905

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, row: int) -> str:
        return f"{row}.wav"

    def sound(self, row: int) -> tuple[np.ndarray, int]:
        return np.zeros(100), 8000

    def batch(self, rows: np.ndarray, seeds: np.ndarray | None = None) -> Batch:
        frames = torch.zeros(len(rows), int(self.lengths[rows].max()), 2)
        text = torch.full((len(rows), 8), -1)
        for i, row in enumerate(rows):
            frames[i, : self.lengths[row]] = torch.from_numpy(self.frames[row])
            text[i, : len(self.texts[row])] = torch.tensor([ord(c) for c in self.texts[row]])
        return Batch({"frames": frames, "lengths": torch.from_numpy(self.lengths[rows]), "text": text}, 1)


def test_rivals_know_train_alone() -> None:
    train, test = Sounds(["a", "bb", "bb", "cccc"], 0), Sounds(["cccc", "a", "bb"], 1)
    found = rivals(train, test)
    assert found["most frequent transcript"] == ["bb"] * 3
    assert found["most similar sound"] == ["cccc", "a", "bb"]
    vectors, texts = outlines(train, 2)
    assert texts == ["a", "bb"]
    assert vectors.shape == (2, 16)


def test_panels_show_what_went_wrong() -> None:
    said = ["a b c", "a", "", "b b"]
    found = transcript_panels(["a x c", "a", "q", "b"], said, Sounds(said, 0))
    assert found[0]["rows"][0][1:] == ["b -b", "b", "50%"] or found[0]["rows"][0][1:] == ["-b b", "b", "50%"]
    assert ["a [b] c", "a [x] c", "33%"] in [row[1:] for row in found[0]["rows"]]
    assert sorted(row[:2] for row in found[1]["rows"]) == [["b", "-"], ["b", "x"]]
    assert found[2]["form"] == "clips"
    assert len(found[2]["items"]) == 3


def test_data_without_transcripts_are_refused() -> None:
    with pytest.raises(UserError, match="transcripts"):
        Transcribe().check(CARD.model_copy(update={"features": {"classes": ["a", "b"]}}))
    Transcribe().check(CARD)
    with pytest.raises(UserError, match="every frame"):
        Transcribe().loss_sum(Output(scores=torch.zeros(2, 3)), batch_of([[0], [1]], [1, 1]))
