"""The folding network: what it makes moves with its frames and knows nothing of padding, batches or fast paths."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.fold import FoldModel, OuterProduct, TriangleAttention, TriangleUpdate
from danlu.models.fold_settings import Fold
from danlu.models.fold_structure import Frames, PointAttention, StructureModule, rotation_of

SMALL = Fold(
    width=16, pair_width=8, n_heads=2, outer_width=4, triangle_width=6, triangle_heads=2, n_blocks=2, n_layers=3,
    structure_heads=3, recycles=1,
)  # fmt: skip


def scattered(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that are nowhere zero, so that nothing hides."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * (0.3 if p.dim() < 2 else p.shape[-1] ** -0.5))
    return model.eval()


def turn(seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return rotation_of(torch.randn(3)), 20 * torch.randn(3)


def inputs(B: int = 2, L: int = 9) -> tuple[Tensor, Tensor, Tensor, Frames]:
    torch.manual_seed(1)
    frames = Frames(rotation_of(torch.randn(B, L, 3)), 8 * torch.randn(B, L, 3))
    return torch.randn(B, L, 16), torch.randn(B, L, L, 8), torch.zeros(B, 1, 1, L, dtype=torch.bool), frames


def test_rotations_are_rotations() -> None:
    rotation = rotation_of(torch.randn(50, 3) * 3)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    assert torch.equal(rotation_of(torch.zeros(3)), torch.eye(3))


def test_frames_undo_what_they_do() -> None:
    *_, frames = inputs()
    points = torch.randn(2, 9, 5, 3)
    assert torch.allclose(frames.undo(frames.apply(points)), points, atol=1e-4)
    rotation, shift = frames.rotation[1, 4], frames.shift[1, 4]
    assert torch.allclose(frames.apply(points)[1, 4, 2], rotation @ points[1, 4, 2] + shift, atol=1e-4)


def test_point_attention_is_the_formula_of_the_paper() -> None:
    """Algorithm 22, a residue and a head at a time."""
    x, pair, hidden, frames = inputs(1, 6)
    frames = Frames(frames.rotation, frames.shift / 10)
    layer = scattered(PointAttention(SMALL))
    q, k, v, qp, kp, vp = layer.project(x)[0].split(layer.parts, -1)
    n, bias, w = layer.n, layer.pair_bias(pair)[0], torch.nn.functional.softplus(layer.nearness)

    def world(points: Tensor, i: int, h: int) -> Tensor:
        return points[i].view(n, -1, 3)[h] @ frames.rotation[0, i].T + frames.shift[0, i]

    rows = []
    for i in range(6):
        parts: list[list[Tensor]] = [[], [], [], []]
        for h in range(n):
            scores = []
            for j in range(6):
                off = (world(qp, i, h) - world(kp, j, h)).square().sum()
                far = w[h] * (2 / (9 * layer.p)) ** 0.5 / 2 * off
                scores.append((1 / 3) ** 0.5 * (q[i].view(n, -1)[h] @ k[j].view(n, -1)[h] / 4 + bias[i, j, h] - far))
            a = torch.stack(scores).softmax(0)
            points = sum(a[j] * world(vp, j, h) for j in range(6))
            points = (points - frames.shift[0, i]) @ frames.rotation[0, i]
            parts[0].append(sum(a[j] * v[j].view(n, -1)[h] for j in range(6)))  # type: ignore[arg-type]
            parts[1].append(points.flatten())
            parts[2].append((points.square().sum(-1) + 1e-8).sqrt())
            parts[3].append(a @ pair[0, i])
        rows.append(layer.out(torch.cat([t for part in parts for t in part])))
    assert torch.allclose(layer(x, pair, frames, hidden)[0], torch.stack(rows), atol=1e-4)


def test_moving_the_frames_moves_the_result_and_nothing_else() -> None:
    x, pair, hidden, frames = inputs()
    module = scattered(StructureModule(SMALL))
    rotation, shift = turn(3)
    moved = Frames(rotation @ frames.rotation, frames.shift @ rotation.T + shift)
    (states, made), (other_states, other) = (module(x, pair, hidden, f) for f in (frames, moved))
    assert torch.allclose(states, other_states, atol=1e-4)
    for a, b in zip(made, other, strict=True):
        assert torch.allclose(rotation @ a.rotation, b.rotation, atol=1e-4)
        assert torch.allclose(a.shift @ rotation.T + shift, b.shift, atol=1e-3)  # of some 30 angstrom
    assert (made[-1].shift - frames.shift).abs().mean() > 0.1


@pytest.mark.parametrize("outgoing", [True, False])
def test_triangles_are_the_formula_of_the_paper(outgoing: bool) -> None:
    layer = scattered(TriangleUpdate(SMALL, outgoing))
    pair = torch.randn(1, 5, 5, 8)
    z = layer.norm(pair)
    sides, gates = layer.sides(z).split(12, -1)
    a, b = (sides * torch.sigmoid(gates))[0].split(6, -1)
    mixed = torch.stack([
        torch.stack([sum(a[i, k] * b[j, k] if outgoing else a[k, i] * b[k, j] for k in range(5)) for j in range(5)])  # type: ignore[misc]
        for i in range(5)
    ])  # fmt: skip
    wanted = torch.sigmoid(layer.gate(z)) * layer.out(layer.mixed_norm(mixed))
    assert torch.allclose(layer(pair, torch.ones(1, 5, 5, 1)), wanted, atol=1e-5)


def test_triangle_attention_is_the_formula_of_the_paper() -> None:
    layer = scattered(TriangleAttention(SMALL))
    pair = torch.randn(1, 4, 4, 8)
    z = layer.norm(pair)[0]
    q, k, v = layer.qkv(z).view(4, 4, 3, 2, 4).unbind(2)
    mixed = torch.zeros(4, 4, 2, 4)
    for i, j, h in np.ndindex(4, 4, 2):
        scores = torch.stack([q[i, j, h] @ k[i, m, h] / 2 + layer.bias(z)[j, m, h] for m in range(4)])
        mixed[i, j, h] = scores.softmax(0) @ v[i, :, h]
    wanted = layer.out(torch.sigmoid(layer.gate(z)) * mixed.flatten(2))
    assert torch.allclose(layer(pair, torch.zeros(1, 1, 1, 4, dtype=torch.bool))[0], wanted, atol=1e-5)


def test_outer_product_is_the_formula_of_the_paper() -> None:
    layer = scattered(OuterProduct(SMALL))
    x = torch.randn(2, 5, 16)
    a, b = layer.sides(layer.norm(x)).chunk(2, -1)
    wanted = layer.out(torch.einsum("biv,bjw->bijvw", a, b).flatten(3))
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def proteins(lengths: list[int], L: int) -> Batch:
    rng = np.random.default_rng(0)
    n, inside = np.array(lengths), np.arange(L) < np.array(lengths)[:, None]
    residues = np.where(inside, rng.integers(0, 20, (len(n), L)), 20)
    tensors: Mapping[str, Tensor] = {
        "residues": torch.tensor(residues), "inside": torch.tensor(inside), "lengths": torch.tensor(n),
        "residue_index": torch.tensor(np.where(inside, np.arange(L) + 1, 0)),
    }  # fmt: skip
    return Batch(tensors, int(n.sum()))


def test_padding_and_company_change_nothing() -> None:
    model = scattered(FoldModel(SMALL, 21, 12, 0))
    batch = proteins([7, 11], 11)
    with torch.no_grad():
        both = model(batch)
        alone = model(Batch({k: v[:1, :7] if v.dim() > 1 else v[:1] for k, v in batch.tensors.items()}, 7))
    assert torch.allclose(both.scores[:1, :7, :7], alone.scores, atol=1e-4)
    assert torch.allclose(both.parts["shifts"][:, :1, :7], alone.parts["shifts"], atol=1e-3)
    assert torch.allclose(both.scores, both.scores.transpose(1, 2), atol=1e-5)
    assert both.parts["rotations"].shape == (3, 2, 11, 3, 3)


def test_geometry_stays_in_float32_under_autocast() -> None:
    model = scattered(FoldModel(SMALL, 21, 12, 0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = model(proteins([9], 9)).parts
    assert parts["rotations"].dtype == parts["shifts"].dtype == torch.float32
    turned = parts["rotations"][-1]
    assert torch.allclose(turned @ turned.transpose(-1, -2), torch.eye(3), atol=1e-4)


def test_results_go_in_again() -> None:
    model = scattered(FoldModel(SMALL, 21, 12, 0))
    batch = proteins([9], 9)
    with torch.no_grad():
        once = model(batch).parts["shifts"]
        model.settings = SMALL.model_copy(update={"recycles": 3})
        assert not torch.allclose(once, model(batch).parts["shifts"], atol=1e-2)


def test_what_does_not_fit_is_refused() -> None:
    card = DataCard(kind="table", source="", rows_in=0, rows_used=0, rows_rejected={})
    with pytest.raises(UserError, match="protein structures"):
        SMALL.build(card, 8, 0)
    card = card.model_copy(update={"features": {"residue_types": "ACX"}})
    with pytest.raises(UserError, match="multiple"):
        SMALL.model_copy(update={"width": 15}).build(card, 8, 0)
