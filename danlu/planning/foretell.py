"""From a recipe to what planning/cluster.py estimates: its shape, batch and tokens, by the same laws as danlu plan. For
models other than decoders it says weights and optimizer, and "don't know" for the rest. Torch-free for decoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from danlu.base.errors import UserError
from danlu.base.units import Length, parse_length, short_count
from danlu.data.survey import estimate as survey
from danlu.models.decoder_settings import Decoder, DecoderShape
from danlu.planning import priors, sizing
from danlu.planning.accelerators import Cluster
from danlu.planning.cluster import LOST, Estimate, estimate, search
from danlu.planning.corpus import tokens_in, vocabulary
from danlu.planning.memory import SLOTS
from danlu.planning.parallel_layouts import GRADIENT_BYTES, MASTER_BYTES, SLOT_BYTES, WEIGHT_BYTES, Job
from danlu.planning.prediction import PEAK_BYTES, STEP_S, TRAIN_S, predict, unknown
from danlu.planning.priors import Facts
from danlu.recipe import Recipe

EXPECTED_SHARE = 0.4
"""Share of peak that sizes a model before it is known."""
ROUND = 64
"""A batch that is left open is rounded up to a multiple of this, so that it splits over many devices."""


def foretell(recipe: Recipe, cluster: Cluster, count: Callable[[Recipe], int]) -> Estimate:
    """What the recipe's training would be on the cluster. `count` gives a model's parameters where no formula does."""
    if not isinstance(recipe.model, Decoder):
        return weights_only(recipe, cluster, count(recipe))
    data: Any = recipe.data
    looked = survey(data)
    n_vocabulary, _ = vocabulary(data.tokenizer, looked)
    n_unique = max(1, tokens_in(data.tokenizer, looked))
    model: Any = recipe.model
    notes = list(looked.notes)
    if sizing.is_open(model):
        gflops = EXPECTED_SHARE * cluster.device.flops * cluster.n_devices / 1e9
        model, decision = sizing.sized(
            model, n_vocabulary, n_unique, sizing.compute_of(recipe.train.length, n_unique, gflops)
        )
        notes.append(decision.why)
    shape = model.shape(n_vocabulary)
    job, n_tokens, why = settle(recipe, shape, cluster, n_unique)
    length: Any = recipe.train.length
    limit_s = length.amount if length != "auto" and length.unit == "seconds" else None
    found = estimate(job, cluster, n_tokens, limit_s)
    return Estimate(cluster, job, found.candidates, found.predictions, (*found.notes, *why, *notes))


def afforded(recipe: Recipe, cluster: Cluster, dollars: float) -> Recipe:
    """The recipe for as long as the dollars last, at the cluster's usual price."""
    if not 0 < dollars < math.inf:
        raise UserError("--spend", "must be dollars, more than 0", got=f"{dollars:g}")
    length = Length(3600 * dollars / (cluster.device.price[1] * cluster.n_devices), "seconds")
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"length": length})})


def settle(recipe: Recipe, shape: DecoderShape, cluster: Cluster, n_unique: int) -> tuple[Job, float, list[str]]:
    """(the job, its tokens, what was left open and how it was answered)."""
    notes = [] if recipe.train.batch != "auto" else ["train.batch is auto"]
    first = Facts(shape.n_hidden_parameters, shape.context, n_unique)
    batch: Any = recipe.train.batch
    length: Any = recipe.train.length
    if length == "auto":
        decision = priors.length(first)
        length, notes = parse_length(decision.value), [*notes, decision.why]
    guess = asked_tokens(length, shape.context, batch if isinstance(batch, int) else 1, n_unique)
    if length.unit == "seconds":
        guess = length.amount * EXPECTED_SHARE * cluster.device.flops * cluster.n_devices / shape.flops_per_token()
    if batch == "auto":
        law = priors.batch(Facts(shape.n_hidden_parameters, shape.context, n_unique, n_tokens=guess))
        batch = max(1, law.value) if law.value < ROUND else -(-law.value // ROUND) * ROUND
        notes[0] = law.why
    kind = getattr(recipe.optimizer, "kind", "adamw")
    model: Any = recipe.model
    job = Job(shape, batch, SLOTS.get(kind, 2), dropout=model.dropout > 0)
    if length.unit == "seconds":
        candidates = search(job, cluster)
        if candidates:
            guess = length.amount / LOST / candidates[0].time.total * job.tokens
            notes.append(f"{length} is time for about {short_count(guess)} tokens")
    else:
        guess = asked_tokens(length, shape.context, batch, n_unique)
    return job, guess, notes


def asked_tokens(length: Any, context: int, batch: int, n_unique: int) -> float:
    """Tokens of a length in steps, samples, tokens or epochs; 0 for a time."""
    each = {"steps": batch * context, "samples": context, "tokens": 1, "epochs": n_unique, "seconds": 0}
    return float(length.amount * each[length.unit])


def weights_only(recipe: Recipe, cluster: Cluster, n_parameters: int) -> Estimate:
    """Weights, gradients and optimizer of any model; what backward keeps, and time, are measured by danlu plan."""
    slots = SLOTS.get(getattr(recipe.optimizer, "kind", "adamw"), 2)
    each = WEIGHT_BYTES + GRADIENT_BYTES + MASTER_BYTES + SLOT_BYTES * slots
    kind = getattr(recipe.model, "kind", type(recipe.model).__name__)
    why = f"only decoders have formulas of activations and time, and model.kind is {kind}: danlu plan measures it on a machine at hand"
    held = predict(
        "weights_bytes", each * n_parameters, "bytes", f"{each} bytes of each of {n_parameters:,} parameters, before sharding",
        "counted", sd=0.0,
    )  # fmt: skip
    units = {PEAK_BYTES: "bytes", STEP_S: "s", TRAIN_S: "s", "cost_usd": "$"}
    return Estimate(cluster, None, (), (held, *(unknown(name, unit, why) for name, unit in units.items())), (why,))
