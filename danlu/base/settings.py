"""The frozen base of every setting, and `kind`: the word in a recipe that picks which class a section builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Auto = Literal["auto"]
"""A setting that danlu answers itself: by a measurement where one is kept, else by a named prior law."""


class Settings(BaseModel):
    """Base of all settings: frozen, unknown names refused, every field documented by the docstring under it.

    A class that a recipe picks by `kind` declares `kind: Literal["adamw"] = "adamw"` and stands in its
    shelf's table. Settings modules never import torch, so that a wrong recipe is refused at once.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
        arbitrary_types_allowed=False,
    )


@dataclass(frozen=True)
class Chosen:
    """Annotation for a nested section picked by its `kind` from a table.

        tokenizer: Annotated[TokenizerSettings, Chosen(TOKENIZERS, default="bpe")] = Bpe()
    """

    table: Mapping[str, type[Settings]]
    default: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A tagged union over the table; a section without `kind` gets the default."""

        def kind_of(value: Any) -> Any:
            if isinstance(value, Mapping):
                return value.get("kind", self.default)
            return getattr(value, "kind", None)

        choices = {name: handler.generate_schema(cls) for name, cls in self.table.items()}
        return core_schema.tagged_union_schema(choices, kind_of)
