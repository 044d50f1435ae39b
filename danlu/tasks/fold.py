"""Where the residues of a protein lie: backbone frames, judged by how they see one another (FAPE), by the distances of
residue pairs, and by how well the model knows its own errors (Jumper et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.samples import Panel, Predictions, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.tasks.fold_scores import FoldScorer

Weight = Annotated[float, Field(ge=0)]
CONTACT = 8.0
"""Angstrom between two CB that count as touching."""
IDEAL = ((-0.525, 1.363, 0.0), (0.0, 0.0, 0.0), (1.526, 0.0, 0.0))
"""N, CA, C of a residue in its own frame, Angstrom (Jumper et al. 2021, table 2)."""


class FoldTask(SampleTask):
    """Structure from sequence."""

    kind: Literal["fold"] = "fold"
    """Folding."""
    fape: Weight = 1.0
    """Weight of the frame aligned point error: half of the last layer, half of all layers' mean."""
    clamp: Annotated[float, Field(gt=0)] = 10.0
    """Angstrom at which its errors are cut."""
    unclamped: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of it that is not cut."""
    distogram: Weight = 0.3
    """Weight of the cross-entropy of pair distances."""
    distogram_bins: Annotated[int, Field(ge=4, le=1024)] = 64
    """Bins of pair distances, from 2.3 to 21.7 Angstrom."""
    confidence: Weight = 0.01
    """Weight of the cross-entropy of the predicted lDDT."""

    headline: ClassVar[str] = "lddt"
    units: ClassVar[Mapping[str, str]] = {
        "lddt": "median over chains", "tm_score": "median over chains", "rmsd": "angstrom, median over chains",
        "drmsd": "angstrom, median over chains", "lddt_error": "median over chains", "lddt_mean": "mean over chains",
    }  # fmt: skip

    def check(self, card: DataCard) -> None:
        """Needs structures."""
        if "residue_types" not in card.features:
            fix = 'set data.kind = "structure"'
            raise UserError("task.kind", "fold needs protein structures", got=f"{card.kind} data", fix=fix)

    def n_outputs(self, card: DataCard) -> int:
        """Bins of each pair's distance."""
        return self.distogram_bins

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Each chain's loss, as often as it has residues with N, CA and C."""
        import torch

        from danlu.tasks.fold_losses import confidence_loss, distogram_loss, fape, frames_of, residue_lddt

        with torch.autocast(batch.tensors["atoms"].device.type, enabled=False):
            atoms, known = batch.tensors["atoms"], batch.tensors["known"]
            framed = known[..., :3].all(-1)
            scores, parts = scores_of(output), output.parts
            made = parts["rotations"].float(), parts["shifts"].float()
            layers = fape(made, frames_of(atoms), framed, self.clamp, self.unclamped)
            loss = self.fape * 0.5 * (layers[-1] + layers.mean(0))
            if self.distogram:
                loss = loss + self.distogram * distogram_loss(scores, atoms[..., 3, :], known[..., 3])
            if self.confidence:
                lddt = residue_lddt(made[1][-1], atoms[..., 1, :], known[..., 1])
                loss = loss + self.confidence * confidence_loss(parts["confidence"], lddt, known[..., 1])
            return (loss * framed.sum(1)).sum()

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """A `Folded` each, padding taken off."""
        import torch

        from danlu.tasks.fold_losses import FIRST, LAST
        from danlu.tasks.fold_scores import Folded

        output = model(batch)
        scores = scores_of(output).float()
        rotations, shifts = (output.parts[n][-1].float() for n in ("rotations", "shifts"))
        backbone = torch.tensor(IDEAL, device=scores.device) @ rotations.transpose(-1, -2) + shifts[:, :, None]
        edges = torch.linspace(FIRST, LAST, scores.shape[-1] - 1)
        n_near = int((edges <= CONTACT).sum())
        contacts = scores.softmax(-1)[..., :n_near].sum(-1).cpu().numpy()
        confidence = output.parts["confidence"].float().softmax(-1)
        n_bins = confidence.shape[-1]
        lddt = (confidence @ ((torch.arange(n_bins, device=scores.device) + 0.5) / n_bins)).cpu().numpy()
        found = backbone.cpu().numpy()
        return [
            Folded(found[i, :n, 1].astype(float), found[i, :n], lddt[i, :n], contacts[i, :n, :n])
            for i, n in enumerate(batch.tensors["lengths"].tolist())
        ]

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """A `Native` each."""
        from danlu.tasks.fold_scores import Native

        atoms, known = (batch.tensors[name].cpu().numpy() for name in ("atoms", "known"))
        return [
            Native(atoms[i, :n, 1].astype(float), atoms[i, :n, 3].astype(float), known[i, :n, 1], known[i, :n, 3])
            for i, n in enumerate(batch.tensors["lengths"].tolist())
        ]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> FoldScorer:
        """See tasks/fold_scores.py."""
        from danlu.tasks.fold_scores import FoldScorer

        return FoldScorer(list(predictions), list(truths))

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """Helix, extended chain, nearest training chain."""
        from danlu.tasks.fold_rivals import rivals

        return dict(rivals(train, split))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Contacts, distances, lDDT along the chain, all chains."""
        from danlu.tasks.fold_panels import fold_panels

        names = [split.name(row) for row in range(len(split))]
        return list(fold_panels(list(predictions), list(truths), names))

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "sequence", "lddt": predicted, "ca": [[x, y, z], ...]}."""
        return [
            {
                "name": split.name(i), "sequence": "".join(letters_of(split, i, card)[0]),
                "lddt": None if p.lddt is None else round(float(p.lddt.mean()), 4), "ca": np.round(p.ca, 3).tolist(),
            }
            for i, p in enumerate(predictions)
        ]  # fmt: skip

    def write(self, predictions: Predictions, split: Split, card: DataCard, out: Path) -> bool:
        """A PDB file a chain, with the predicted lDDT (0 to 100) where B-factors stand."""
        from danlu.tasks.fold_pdb import file_name, pdb_text

        taken: set[str] = set()
        for i, folded in enumerate(predictions):
            letters, index = letters_of(split, i, card)
            (out / file_name(split.name(i), taken)).write_text(pdb_text(folded, letters, index), encoding="ascii")
        return True


def letters_of(split: Split, row: int, card: DataCard) -> tuple[list[str], list[int]]:
    """(a letter, a number) of each residue of a chain."""
    tensors = split.batch(np.array([row])).tensors
    types = card.features["residue_types"]
    return [types[t] for t in tensors["residues"][0].tolist()], tensors["residue_index"][0].tolist()


def scores_of(output: Output) -> Tensor:
    """The distogram; a task on structures needs frames beside it."""
    if output.scores is None or "rotations" not in output.parts:
        raise UserError("model.kind", "must give frames for this task", fix='set model.kind = "fold"')
    return output.scores
