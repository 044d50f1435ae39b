"""Any Hugging Face model, trained by our loop and written back in its own form. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import nn


class Hub(Settings):
    """A Hugging Face model: a local folder or a name on the hub. Trained by our loop, written back for transformers."""

    kind: Literal["hub"] = "hub"
    """Needs pip install 'danlu[hf]'."""
    path: str
    """A folder with config.json, or a name such as "openai-community/gpt2"."""
    weights: Literal["pretrained", "fresh"] = "pretrained"
    """The checkpoint's weights, or new ones from the seed with the checkpoint's architecture."""
    form: Literal["auto", "causal", "sequence", "token", "masked"] = "auto"
    """Which head: next token (causal), one answer a sample (sequence), one a token (token), masked tokens. auto: by what
    the batches hold."""

    def build(self, card: DataCard, n_outputs: int, seed: int) -> nn.Module:
        """The network, with as many outputs as the task asks for."""
        try:
            import transformers  # noqa: F401
        except ImportError:
            fix = "pip install 'danlu[hf]'"
            raise UserError(
                "model.kind", "hub needs the transformers library, which is not installed", fix=fix
            ) from None
        from danlu.models.hub import HubModel

        return HubModel(self, card, n_outputs, seed)

    def head(self, card: DataCard) -> str:
        """The form in use."""
        if self.form != "auto":
            return self.form
        if card.kind == "chat":
            return "causal"
        return "sequence" if card.features.get("classes") or card.features.get("targets") else "masked"

    def config_folder(self) -> Path | None:
        """The local folder, or None for a name; a folder without a config is refused."""
        place = Path(self.path).expanduser()
        if not place.is_dir():
            if place.is_absolute() or self.path.startswith((".", "~")) or self.path.count("/") > 1:
                raise UserError(
                    "model.path", "must be a folder with a config.json", got=self.path, fix="check the path"
                )
            return None
        config = place / "config.json"
        try:
            found: Any = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError("model.path", f"has no config.json that can be read ({error})", got=self.path) from None
        if not isinstance(found, dict) or "model_type" not in found:
            raise UserError("model.path", "has a config.json without model_type", got=self.path)
        return place
