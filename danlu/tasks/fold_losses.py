"""Losses of folding (Jumper et al. 2021, supplement 1.9). Each gives one mean a sample, in float32.

B samples, L residues, K layers. Angstrom throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST, LAST = 2.3125, 21.6875
"""Edges between the first two and the last two bins of the distogram."""
TINY = 1e-4
THRESHOLDS, RADIUS = (0.5, 1.0, 2.0, 4.0), 15.0
"""Of lDDT (Mariani et al. 2013): how far off a distance may be, and which distances count."""


def frames_of(atoms: Tensor) -> tuple[Tensor, Tensor]:
    """atoms (B, L, >= 3, 3) with N, CA, C first -> rotations (B, L, 3, 3), shifts (B, L, 3): CA is the origin, C lies on
    the first axis, N in the plane of the first two (Gram and Schmidt; algorithm 21)."""
    n, ca, c = atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :]
    e1 = F.normalize(c - ca, dim=-1, eps=TINY)
    side = n - ca
    e2 = F.normalize(side - e1 * (e1 * side).sum(-1, keepdim=True), dim=-1, eps=TINY)
    return torch.stack([e1, e2, torch.cross(e1, e2, dim=-1)], -1), ca


def own_places(rotations: Tensor, shifts: Tensor) -> Tensor:
    """(..., L, 3, 3), (..., L, 3) -> (..., L, L, 3): residue j as residue i sees it, R_i' (x_j - t_i)."""
    return (shifts.unsqueeze(-3) - shifts.unsqueeze(-2)) @ rotations


def fape(made: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor], known: Tensor, clamp: float, free: float) -> Tensor:
    """Frame aligned point error over all pairs of known residues (algorithm 28), in units of 10 Angstrom.

    made: rotations (K, B, L, 3, 3) and shifts (K, B, L, 3); true: the same without K; known (B, L) -> (K, B). Errors are
    cut at `clamp` Angstrom, except for the share `free` of the loss.
    """
    off = own_places(*made) - own_places(*true)
    error = (off.square().sum(-1) + TINY).sqrt()
    error = free * error + (1 - free) * error.clamp_max(clamp)
    both = (known[:, :, None] & known[:, None]).float()
    return (error * both).sum((-1, -2)) / (10.0 * both.sum((-1, -2)).clamp_min(1))


def distogram_loss(scores: Tensor, places: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the distance of two CB, in nats (section 1.9.8). scores (B, L, L, bins), places (B, L, 3),
    known (B, L) -> (B,). Bins are alike from 2.3 to 21.7 Angstrom; the first and last hold the rest."""
    edges = torch.linspace(FIRST, LAST, scores.shape[-1] - 1, device=scores.device)
    bins = torch.bucketize(torch.cdist(places, places), edges)
    nats = F.cross_entropy(scores.float().flatten(0, 2), bins.flatten(), reduction="none").view(bins.shape)
    both = (known[:, :, None] & known[:, None]).float()
    return (nats * both).sum((1, 2)) / both.sum((1, 2)).clamp_min(1)


@torch.no_grad()
def residue_lddt(made: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Share of the distances to residues within 15 Angstrom that are kept, over four tolerances: made and true
    (B, L, 3), known (B, L) -> (B, L); 0 where a residue has none."""
    near = torch.cdist(true, true)
    off = (torch.cdist(made, made) - near).abs()
    counted = (near < RADIUS) & known[:, :, None] & known[:, None]
    counted &= ~torch.eye(near.shape[-1], dtype=torch.bool, device=near.device)
    kept = sum((off < limit).float() for limit in THRESHOLDS) / len(THRESHOLDS)
    return (kept * counted).sum(-1) / counted.sum(-1).clamp_min(1)


def confidence_loss(scores: Tensor, lddt: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the bin of each residue's lDDT, in nats (section 1.9.6): scores (B, L, bins), lddt and known
    (B, L) -> (B,)."""
    n_bins = scores.shape[-1]
    bins = (lddt * n_bins).long().clamp_max(n_bins - 1)
    nats = F.cross_entropy(scores.float().flatten(0, 1), bins.flatten(), reduction="none").view(bins.shape)
    return (nats * known).sum(1) / known.sum(1).clamp_min(1)
