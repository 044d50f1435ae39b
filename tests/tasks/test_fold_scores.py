"""Losses and scores of folding against plain references."""

from pathlib import Path

import numpy as np
import pytest
import torch

from danlu.data.structure_chains import chains_of
from danlu.data.structure_read import read_entry
from danlu.models.fold_structure import rotation_of
from danlu.tasks.fold_losses import confidence_loss, distogram_loss, fape, frames_of, residue_lddt
from danlu.tasks.fold_pdb import file_name, oxygens, pdb_text
from danlu.tasks.fold_rivals import best_offset, extended, helix, laid_over
from danlu.tasks.fold_scores import (
    Folded,
    FoldScorer,
    Native,
    drmsd,
    lddt,
    lddt_by_residue,
    rmsd,
    superposed,
    tm_score,
)


def walk(n: int, seed: int = 0) -> np.ndarray:
    """A chain of steps of 3.8."""
    steps = np.random.default_rng(seed).normal(size=(n, 3))
    return np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), 0)


def moved(places: np.ndarray, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    return places @ rotation_of(torch.randn(3)).double().numpy().T + 30


def test_frames_of_the_ideal_residue() -> None:
    rotation, shift = rotation_of(torch.randn(3)), torch.randn(3)
    ideal = torch.tensor([[-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0]])
    found, at = frames_of((ideal @ rotation.T + shift)[None, None])
    assert torch.allclose(found[0, 0], rotation, atol=1e-5)
    assert torch.allclose(at[0, 0], shift, atol=1e-5)


def test_fape_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    made, true = ((rotation_of(torch.randn(2, 1, 5, 3)), 9 * torch.randn(2, 1, 5, 3)) for _ in range(2))
    true = true[0][0], true[1][0]
    known = torch.tensor([[True, True, False, True, True]])
    total, n = 0.0, 0
    for i in np.flatnonzero(known[0]):
        for j in np.flatnonzero(known[0]):
            ours = made[0][1, 0, i].T @ (made[1][1, 0, j] - made[1][1, 0, i])
            theirs = true[0][0, i].T @ (true[1][0, j] - true[1][0, i])
            error = float(((ours - theirs).square().sum() + 1e-4).sqrt())
            total, n = total + 0.2 * error + 0.8 * min(error, 10.0), n + 1
    assert float(fape(made, true, known, 10.0, 0.2)[1, 0]) == pytest.approx(total / n / 10, rel=1e-5)
    rotation, shift = rotation_of(torch.randn(3)), torch.randn(3)
    turned = rotation @ made[0], made[1] @ rotation.T + shift
    assert torch.allclose(fape(made, true, known, 10, 0), fape(turned, true, known, 10, 0), atol=1e-4)
    mirror = made[0], made[1] * torch.tensor([1.0, 1.0, -1.0])
    assert not torch.allclose(fape(made, true, known, 10, 0), fape(mirror, true, known, 10, 0), atol=1e-2)


def test_distogram_loss() -> None:
    torch.manual_seed(0)
    scores, places = torch.randn(1, 4, 4, 8), 6 * torch.randn(1, 4, 3)
    known = torch.tensor([[True, True, True, False]])
    edges = np.linspace(2.3125, 21.6875, 7)
    nats = [
        -float(scores[0, i, j].log_softmax(-1)[int((edges < float((places[0, i] - places[0, j]).norm())).sum())])
        for i in range(3)
        for j in range(3)
    ]
    assert float(distogram_loss(scores, places, known)[0]) == pytest.approx(np.mean(nats), rel=1e-5)


def plain_lddt(made: np.ndarray, true: np.ndarray) -> float:
    kept: list[float] = []
    for i in range(len(true)):
        for j in range(len(true)):
            near = np.linalg.norm(true[i] - true[j])
            if i != j and near < 15:
                off = abs(np.linalg.norm(made[i] - made[j]) - near)
                kept.append(np.mean([off < t for t in (0.5, 1, 2, 4)]))
    return float(np.mean(kept))


def test_lddt_in_both_places() -> None:
    true = walk(30)
    made = moved(true + np.random.default_rng(1).normal(size=true.shape))
    assert lddt(made, true) == pytest.approx(plain_lddt(made, true))
    assert lddt(moved(true), true) == pytest.approx(1.0)
    known = torch.arange(40) < 30
    padded = [torch.tensor(np.pad(x, ((0, 10), (0, 0))))[None] for x in (made, true)]
    found = residue_lddt(*padded, known[None])[0]
    assert np.allclose(found[:30], lddt_by_residue(made, true), atol=1e-6)
    assert not found[30:].any()


def test_confidence_loss() -> None:
    scores = torch.randn(1, 3, 4)
    nats = -scores[0].log_softmax(-1)
    wanted = (nats[0, 0] + nats[1, 3]) / 2
    found = confidence_loss(scores, torch.tensor([[0.1, 1.0, 0.5]]), torch.tensor([[True, True, False]]))
    assert torch.allclose(found[0], wanted)


def test_superposition_and_its_scores() -> None:
    true = walk(40)
    assert rmsd(moved(true), true) == pytest.approx(0, abs=1e-4)
    assert rmsd(true * [1, 1, -1], true) > 1  # a mirror image is another thing
    assert drmsd(true * [1, 1, -1], true) == pytest.approx(0, abs=1e-6)
    made = true + np.random.default_rng(0).normal(size=true.shape)
    best = rmsd(made, true)
    for seed in range(20):  # no small turn is better
        torch.manual_seed(seed)
        turned = superposed(made, true, np.ones(40)) @ rotation_of(0.05 * torch.randn(3)).double().numpy()
        assert np.sqrt(((turned - true) ** 2).sum(-1).mean()) >= best - 1e-9
    i, j = np.triu_indices(40, 1)
    gaps = [np.linalg.norm(made[a] - made[b]) - np.linalg.norm(true[a] - true[b]) for a, b in zip(i, j, strict=True)]
    assert drmsd(made, true) == pytest.approx(np.sqrt(np.mean(np.square(gaps))))


def test_tm_score() -> None:
    true = walk(60)
    assert tm_score(moved(true), true, 60) == pytest.approx(1.0)
    half = moved(true)
    half[30:] = walk(30, 5) + 100
    assert 0.49 < tm_score(half, true, 60) < 0.62  # half of it fits: found, though the whole does not
    made = true + 0.5 * np.random.default_rng(0).normal(size=true.shape)
    d0 = 1.24 * 45 ** (1 / 3) - 1.8
    whole = (1 / (1 + ((superposed(made, true, np.ones(60)) - true) ** 2).sum(-1) / d0**2)).mean()
    assert tm_score(made, true, 60) >= whole - 1e-9
    assert tm_score(walk(60, 9), true, 60) < 0.4


def test_scores_are_medians_over_chains() -> None:
    true = [walk(20, s) for s in range(3)]
    natives = [Native(t, t, np.ones(20, bool), np.ones(20, bool)) for t in true]
    made = [Folded(moved(true[0])), Folded(true[1] + 0.4), Folded(walk(20, 8))]
    scorer = FoldScorer(made, natives)
    worst = lddt(made[2].ca, true[2])
    assert scorer.values()["lddt"] == pytest.approx(1.0)
    assert scorer.values()["lddt_mean"] == pytest.approx((2 + worst) / 3)
    assert scorer.values(np.array([2, 2, 0]))["lddt"] == pytest.approx(worst)
    assert "lddt_error" not in scorer.values()


def test_rivals() -> None:
    index = np.array([3, 4, 5, 9])
    assert np.linalg.norm(np.diff(helix(np.arange(9)), axis=0), axis=1) == pytest.approx(3.8, abs=0.1)
    assert np.linalg.norm(np.diff(extended(np.arange(9)), axis=0), axis=1) == pytest.approx(3.8, abs=0.1)
    assert np.linalg.norm(extended(index)[3] - extended(index)[2]) > 13  # a gap is a gap
    own, other = np.array([1, 2, 3, 4, 5, 6]), np.array([9, 9, 2, 3, 4, 5])
    assert best_offset(own, other) == (4, -1)
    places = walk(6, 2)
    made = laid_over(6, places, np.array([0, 0, 1, 1, 0, 1], bool), -1)
    assert np.allclose(made[[1, 2, 4]], places[[2, 3, 5]])
    assert np.allclose(made[3], (places[3] + places[5]) / 2)
    assert np.linalg.norm(made[5] - made[4]) == pytest.approx(3.8)


def test_a_written_chain_can_be_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ideal = torch.tensor([[-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0]])
    ca = torch.tensor(walk(6), dtype=torch.float32)
    backbone = (ideal @ rotation_of(torch.randn(6, 3)).transpose(1, 2) + ca[:, None]).numpy()
    folded = Folded(ca.double().numpy(), backbone, np.linspace(0.1, 0.95, 6, dtype=np.float32))
    text = pdb_text(folded, list("ACGHXW"), [1, 2, 3, 7, 8, 9])
    (tmp_path / "made.pdb").write_text(text)
    assert next(row[60:66] for row in text.splitlines() if " CA " in row) == " 10.00"
    found = chains_of(read_entry(tmp_path / "made.pdb"), "made.pdb", "first").proteins[0]
    assert found.sequence == "ACGHXW"
    assert np.allclose(found.atoms[:, :3], backbone - backbone[:, 1].mean(0), atol=1e-3)
    o = oxygens(backbone)
    assert np.allclose(np.linalg.norm(o - backbone[:, 2], axis=1), 1.231, atol=1e-4)
    taken: set[str] = set()
    assert [file_name("a/b:A", taken), file_name("a/b:A", taken)] == ["a-b-A.pdb", "a-b-A-2.pdb"]
