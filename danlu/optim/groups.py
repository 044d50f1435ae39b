"""Who gets which rate: parameters sorted by role, each role with its own rate, decay and epsilon.

A model says the roles itself with `parameter_groups() -> {role: [(name, parameter), ...]}`; for one that does
not, they are read off its modules and shapes. A model whose settings transfer across sizes also says, by role,
`lr_scales()`, `eps_scales()` and `decay_scales()`, as they are for Adam (muP: Yang & Hu 2021, arXiv 2203.03466;
CompleteP: Dey 2025, arXiv 2505.01618). One that stacks several matrices in a parameter (query, key and value) says so
with `row_parts() -> {name: (rows, ...)}`, and Muon turns each apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from danlu.base.contracts import Optimizer
from danlu.base.errors import UserError
from danlu.base.settings import Auto, Settings

if TYPE_CHECKING:
    from torch import nn

    from danlu.optim.driver import Rule

Role = Literal["embedding", "head", "hidden", "vector"]
"""embedding: lookup tables; head: the last matrix; hidden: all other matrices; vector: norms, gains, biases."""
ROLES: tuple[Role, ...] = ("embedding", "head", "hidden", "vector")
Roles = Mapping[str, Sequence[tuple[str, "nn.Parameter"]]]
Rate = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Group:
    """Parameters that are updated alike."""

    role: Role
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    lr_scale: float = 1.0
    """The step's rate is multiplied by this."""
    weight_decay: float = 0.0
    eps_scale: float = 1.0
    """The rule's epsilon is multiplied by this."""
    model_lr_scale: float = 1.0
    """The model's own factor for Adam, which lr_scale holds in the form that fits the rule."""
    row_parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Rows of the matrices stacked in one parameter, by name."""

    def part(self, indices: Sequence[int]) -> Group:
        """The same group with only the parameters at `indices`."""
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in indices),
            parameters=tuple(self.parameters[i] for i in indices),
        )

    def described(self, rule: str) -> dict[str, Any]:
        """What a plan or a report says of it (JSON)."""
        return {
            "role": self.role,
            "rule": rule,
            "n_tensors": len(self.names),
            "n_parameters": sum(p.numel() for p in self.parameters),
            "lr_scale": self.lr_scale,
            "weight_decay": self.weight_decay,
            "eps_scale": self.eps_scale,
        }


class OptimizerSettings(Settings):
    """What every update rule has: a rate, and how it differs by role."""

    kind: str
    """Update rule."""
    lr: Rate | Auto = "auto"
    """Peak learning rate; the schedule gives the share of it at each update. "auto": answered by the plan."""
    embedding_lr_scale: Factor = 1.0
    """Embedding tables learn at this multiple of lr."""
    head_lr_scale: Factor = 1.0
    """The output matrix learns at this multiple of lr."""
    vector_lr_scale: Factor = 1.0
    """Norms, gains and biases learn at this multiple of lr."""

    def lr_scale_of(self, role: Role, scales: Mapping[str, float]) -> float:
        """The model's factor on a role's rate, from its factors for Adam; rules that move otherwise replace it."""
        return scales.get(role, 1.0)

    def decay_of(self, role: Role) -> float:
        """Weight decay for a role, before the model's own scale; rules with decay replace this."""
        return 0.0

    def rule(self) -> Rule:
        """The update rule with these settings."""
        raise NotImplementedError

    def place(self, group: Group) -> list[tuple[Group, Rule]]:
        """Which rule updates a group; rules for matrices only cut it in parts."""
        return [(group, self.rule())]

    def build(self, model: nn.Module, groups: Sequence[Group] | None = None) -> Optimizer:
        """The optimizer of a model already on its device; groups as `group_parameters` makes them, or your own."""
        from danlu.optim.driver import Driver

        groups = group_parameters(model, self) if groups is None else groups
        return Driver([placed for group in groups for placed in self.place(group)])


class DecaySettings(OptimizerSettings):
    """An update rule with weight decay."""

    weight_decay: Factor | Auto = 0.0
    """Pull towards zero."""
    decay_embeddings: bool = True
    """Whether embedding tables decay too."""
    decay_vectors: bool = False
    """Whether norms, gains and biases decay too."""

    def decay_of(self, role: Role) -> float:
        """Matrices decay; vectors and embeddings when so set."""
        decay = planned(self.weight_decay, "optimizer.weight_decay", 0.1)
        skipped = (role == "vector" and not self.decay_vectors) or (role == "embedding" and not self.decay_embeddings)
        return 0.0 if skipped else decay


def planned(value: float | Auto, setting: str, example: float) -> float:
    """A setting that the plan has answered."""
    if value == "auto":
        fix = f"plan the run first, or set a number such as {example:g}"
        raise UserError(setting, "must be a number when the optimizer is built", got="auto", fix=fix)
    return value


def group_parameters(model: nn.Module, settings: OptimizerSettings) -> list[Group]:
    """One group a role with its rate, decay and epsilon scale; every trainable parameter in exactly one."""
    roles: Roles = model.parameter_groups() if hasattr(model, "parameter_groups") else infer_roles(model)  # type: ignore[operator]
    check_roles(model, roles)
    lr, eps, decay = (scales_of(model, name) for name in ("lr_scales", "eps_scales", "decay_scales"))
    own = {
        "embedding": settings.embedding_lr_scale,
        "head": settings.head_lr_scale,
        "vector": settings.vector_lr_scale,
    }
    stacked = row_parts_of(model)
    groups = []
    for role in ROLES:
        members = [(name, p) for name, p in roles.get(role, ()) if p.requires_grad]
        if members:
            names, parameters = zip(*members, strict=True)
            for_adam, fitted = lr.get(role, 1.0), settings.lr_scale_of(role, lr)
            # What decays in an update is lr_scale * weight_decay: the model means it for Adam's lr_scale.
            decayed = settings.decay_of(role) * decay.get(role, 1.0) * for_adam / fitted
            rate = own.get(role, 1.0) * fitted
            parts = {name: stacked[name] for name in names if name in stacked}
            groups.append(Group(role, names, parameters, rate, decayed, eps.get(role, 1.0), for_adam, parts))
    return groups


def scales_of(model: nn.Module, name: str) -> dict[str, float]:
    """The model's own factor by role ({} when it has none)."""
    scales: dict[str, float] = dict(getattr(model, name)()) if hasattr(model, name) else {}
    for role, scale in scales.items():
        if role not in ROLES or not scale > 0:
            raise UserError(
                f"{type(model).__name__}.{name}()",
                f"must give positive factors for {', '.join(ROLES)}",
                got=f"{role}: {scale}",
            )
    return scales


def row_parts_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Rows of the matrices that the model stacks in one parameter, by name ({} when it says none)."""
    parts: dict[str, tuple[int, ...]] = dict(model.row_parts()) if hasattr(model, "row_parts") else {}  # type: ignore[operator]
    sizes = {name: p.size(0) for name, p in model.named_parameters() if p.ndim >= 2}
    for name, rows in parts.items():
        if sum(rows) != sizes.get(name):
            where = f"{type(model).__name__}.row_parts()"
            raise UserError(
                where, f"must cut the rows of a matrix, all {sizes.get(name)} of them", got=f"{name}: {rows}"
            )
    return parts


def check_roles(model: nn.Module, roles: Roles) -> None:
    """Refuse roles that miss a trainable parameter, name one twice, or have an unknown name."""
    where = f"{type(model).__name__}.parameter_groups()"
    if unknown := set(roles) - set(ROLES):
        raise UserError(where, f"must use the roles {', '.join(ROLES)}", got=sorted(unknown)[0])
    given = [id(p) for members in roles.values() for _, p in members if p.requires_grad]
    if len(given) != len(set(given)):
        raise UserError(where, "must name each parameter once", fix="list a tied matrix under one role")
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in set(given)]
    if missing:
        raise UserError(where, "must name every trainable parameter", got=", ".join(missing))


def infer_roles(model: nn.Module) -> Roles:
    """Roles by module and shape: tables of nn.Embedding, up to one axis = vector, last nn.Linear = head, rest hidden.

    A lone matrix is hidden. A tied matrix has the role of its first use.
    """
    from torch import nn

    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    norms = {
        id(p)
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
        for p in m.parameters(recurse=False)
    }
    matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in tables | norms]
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    head = id(matrices[-1]) if len(matrices) > 1 and id(matrices[-1]) in linear else None
    roles: dict[str, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    for name, p in model.named_parameters():
        if p.ndim < 2 or id(p) in norms:
            roles["vector"].append((name, p))
        elif id(p) in tables:
            roles["embedding"].append((name, p))
        else:
            roles["head" if id(p) == head else "hidden"].append((name, p))
    return roles
