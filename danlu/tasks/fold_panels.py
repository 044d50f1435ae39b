"""What one would look at after folding: contacts, distances, lDDT along the chain, every chain."""

from __future__ import annotations

import numpy as np

from danlu.tasks.fold_scores import Folded, FoldScorer, Native, distances, lddt_by_residue
from danlu.tasks.panels import Panel, lines, listing, matrix, points

CONTACT = 8.0
N_POINTS, N_SHOWN, N_LISTED = 2000, 2, 100
NOTE = "Above the diagonal: CB within 8 angstrom in truth. Below: the share that the model gives to it."


def fold_panels(made: list[Folded], true: list[Native], names: list[str]) -> list[Panel]:
    """Contact map and lDDT of the middling and the worst chain, then all chains."""
    table = FoldScorer(made, true).table
    scores = table["lddt"]
    order = [int(i) for i in np.argsort(-np.nan_to_num(scores)) if np.isfinite(scores[i])]
    if not order:
        return []
    found: list[Panel] = []
    for row in list(dict.fromkeys([order[len(order) // 2], order[-1]]))[:N_SHOWN]:
        found += chain_panels(made[row], true[row], f"{names[row]} (lDDT {scores[row]:.2f})")
    columns = ["chain", "residues", "lDDT", "TM-score", "RMSD", "dRMSD"]
    listed = [
        [names[i], int(true[i].known.sum()), f"{scores[i]:.3f}", f"{table['tm_score'][i]:.3f}",
         f"{table['rmsd'][i]:.2f}", f"{table['drmsd'][i]:.2f}"]
        for i in order[:N_LISTED]
    ]  # fmt: skip
    return [*found, listing("Chains, best first", columns, listed, "RMSD and dRMSD in angstrom, of CA.")]


def chain_panels(made: Folded, true: Native, name: str) -> list[Panel]:
    """Contact map, lDDT along the chain, distances."""
    n = len(true.known)
    known = true.known
    both = true.known_cb[:, None] & true.known_cb[None]
    touching = (distances(true.cb) < CONTACT) & both
    said = np.zeros((n, n)) if made.contacts is None else made.contacts
    values = np.where(np.triu(np.ones((n, n), bool), 1), touching, said)
    found: list[Panel] = [matrix(f"Contacts of {name}", values.tolist(), [], [], NOTE)]
    at = np.flatnonzero(known)
    drawn = {"lDDT": (at.tolist(), lddt_by_residue(made.ca[known], true.ca[known]).tolist())}
    if made.lddt is not None:
        drawn["predicted lDDT"] = (at.tolist(), made.lddt[known].tolist())
    found.append(
        lines(f"lDDT along {name}", drawn, "residue", "lDDT", "Where the lines part, the model misjudges itself.")
    )
    i, j = np.triu_indices(len(at), 1)
    keep = np.linspace(0, len(i) - 1, min(N_POINTS, len(i))).astype(int)
    x, y = distances(true.ca[known])[i, j][keep], distances(made.ca[known])[i, j][keep]
    title = f"Distances of CA in {name}"
    return [*found, points(title, x.tolist(), y.tolist(), "true, angstrom", "predicted, angstrom")]
