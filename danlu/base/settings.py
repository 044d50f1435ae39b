"""The frozen base of every setting, and `kind`: the word in a recipe that picks which class a section builds."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from pydantic_core.core_schema import ValidationInfo

Auto = Literal["auto"]
"""A setting that danlu answers itself: by a measurement where one is kept, else by a named prior law."""

ALLOWED_CODE: ContextVar[frozenset[str]] = ContextVar("ALLOWED_CODE", default=frozenset())
"""Packages that a `kind = "package.module:Class"` may be loaded from: what --allow-code names."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown names refused, every field documented by the docstring under it (`meanings`).

    A class that a recipe picks by `kind` declares `kind: Literal["adamw"] = "adamw"` and stands in its
    shelf's table. Settings modules never import torch, so that a wrong recipe is refused at once.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        arbitrary_types_allowed=False,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            from danlu.base.refusal import refusal

            raise refusal(error, type(self), values, source=f"{type(self).__name__}()") from None

    # Said to pydantic: not a custom __init__, so sections inside sections keep the places of their errors.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1; a recipe does not."""
        if isinstance(value, bool) and info.field_name:
            written = str(cls.model_fields[info.field_name].annotation)
            if "bool" not in written and "Any" not in written:
                raise PydanticCustomError("not_a_switch", "cannot be true or false")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema with the meaning of each field."""
        made = handler(schema)
        plain = handler.resolve_ref_schema(made)
        for name, meaning in meanings(cls).items():
            if name in plain.get("properties", {}):
                plain["properties"][name]["description"] = meaning
        return made


@cache
def meanings(cls: type[Settings]) -> dict[str, str]:
    """Each field's docstring: what it means, as help, schema and report show it.

    pydantic can read them too, but does so for every class as it is made, which costs a third of a second at start.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Settings) and base is not Settings:
            found |= attribute_docstrings(base.__module__).get(base.__qualname__, {})
    return {name: found.get(name, "") for name in cls.model_fields}


@cache
def attribute_docstrings(module: str) -> dict[str, dict[str, str]]:
    """{class: {attribute: the string under it}} of a module's top-level classes, from its source."""
    source = inspect.getsource(sys.modules[module])
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in pairwise(body):
            is_text = (
                isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            )
            if isinstance(node, ast.ClassDef) and isinstance(field, ast.AnnAssign) and is_text:
                name = ast.unparse(field.target)
                found.setdefault(node.name, {})[name] = inspect.cleandoc(text.value.value)  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True)
class Chosen:
    """Annotation for a nested section picked by its `kind` from a table.

        tokenizer: Annotated[TokenizerSettings, Chosen(TOKENIZERS, default="bpe")] = Bpe()

    A section without `kind` is of the default kind. `kind = "package.module:Class"` loads a class of somebody
    else's, only when its package stands in ALLOWED_CODE.
    """

    table: Mapping[str, type[Settings]]
    default: str

    def class_of(self, kind: Any) -> type[Settings]:
        """The settings class that a kind names; a pydantic error when there is none."""
        if isinstance(kind, str) and ":" in kind:
            return outside_class(kind)
        if not isinstance(kind, str) or kind not in self.table:
            raise PydanticCustomError("unknown_kind", "{known}", {"kind": kind, "known": ", ".join(self.table)})
        return self.table[kind]

    def validate(self, value: Any) -> Settings:
        """A Settings object, or a mapping with or without `kind` -> the settings of its kind."""
        if isinstance(value, Settings):
            if not any(type(value) is cls for cls in self.table.values()) and ":" not in getattr(value, "kind", ""):
                raise PydanticCustomError(
                    "unknown_kind", "{known}", {"kind": type(value).__name__, "known": ", ".join(self.table)}
                )
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("not_a_section", "a section")
        return self.class_of(value.get("kind", self.default)).model_validate(dict(value))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """One validator that looks the class up when a value comes."""
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """For editors: any of the table's classes; all but the default kind must be named."""
        choices = {kind: dict(handler(cls.__pydantic_core_schema__)) for kind, cls in self.table.items()}
        for kind, choice in choices.items():
            if kind != self.default and "properties" in choice:
                choice["required"] = ["kind", *choice.get("required", [])]
        return {"anyOf": list(choices.values())}


def outside_class(kind: str) -> type[Settings]:
    """Load "my_lab.optim:Tiger" when my_lab is allowed. A recipe alone can never run code."""
    module, _, name = kind.partition(":")
    package = module.partition(".")[0]
    if package not in ALLOWED_CODE.get():
        raise PydanticCustomError("code_not_allowed", "{package}", {"package": package, "kind": kind})
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PydanticCustomError("code_not_found", "{why}", {"why": str(error), "kind": kind}) from error
    if not (isinstance(found, type) and issubclass(found, Settings) and "kind" in found.model_fields):
        raise PydanticCustomError("code_not_found", "{why}", {"why": "not a Settings class with a kind", "kind": kind})
    return found
