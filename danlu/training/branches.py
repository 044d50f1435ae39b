"""Branches of a session at larger batches, over the same samples: what planning/critical_batch.py decides on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from danlu.base.runfolder import RunFolder
from danlu.planning.critical_batch import FACTORS, Branch
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.training.fork import TrainStep
from danlu.training.trial import Session

N_PIECES = 8
"""Parts of a branch whose losses are compared one by one."""


def branch(
    recipe: Recipe, folder: RunFolder, trial: Trial, train_step: TrainStep, start: int, n_steps: int,
    factors: Sequence[int] = FACTORS,
) -> list[Branch]:  # fmt: skip
    """Train the trial to about `start` steps, then n_steps more (about) in each of factors * its batch; their losses.

    Start and length are rounded up so that every branch gets the same samples in whole updates and pieces. The rate stays
    what it was at the start, times sqrt(k), or k under sgd (Malladi 2022, 2205.10287; Goyal 2017, 1706.02677).
    """
    trunk = Session(recipe, folder, trial, train_step)
    unit = math.lcm(*factors)
    start, n_steps = -(-start // unit) * unit, -(-n_steps // (unit * N_PIECES)) * unit * N_PIECES
    trunk.advance(start)
    saved, lr, batch = trunk.save(), trunk.lr_at(start), trunk.choices.batch
    trunk.close()
    power = 1.0 if getattr(trunk.recipe.optimizer, "kind", "") == "sgd" else 0.5
    found = []
    for k in factors:
        choices = trial.choices.model_copy(update={"batch": k * batch})
        session = Session(recipe, folder, dataclasses.replace(trial, choices=choices), train_step)
        session.load(dataclasses.replace(saved, step=start // k))
        losses = np.full(n_steps // k, np.inf)
        for i in range(len(losses)):
            losses[i], _ = session.update(lr * k**power)
            if session.diverged:
                losses[i:] = np.inf
                break
        session.close()
        found.append(Branch(k * batch, tuple(float(piece.mean()) for piece in np.split(losses, N_PIECES))))
    return found
