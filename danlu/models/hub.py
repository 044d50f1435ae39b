"""Wraps a transformers model: batches in, features or scores out, and the way back to a folder transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.errors import UserError, one_line
from danlu.models.hub_settings import Hub

CLASSES = {
    "causal": "AutoModelForCausalLM",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "masked": "AutoModelForMaskedLM",
}


class HubModel(nn.Module):
    """`model` is the transformers model; its parameters keep their names under "model."."""

    def __init__(self, settings: Hub, card: DataCard, n_outputs: int, seed: int) -> None:
        super().__init__()
        self.form = settings.head(card)
        self.model: Any = loaded(settings, self.form, n_outputs, seed)
        config = self.model.config
        if getattr(config, "final_logit_softcapping", None):
            raise UserError("model.path", "caps its scores, which this version does not train", got=config.model_type)
        if card.vocab_size > config.vocab_size:
            self.model.resize_token_embeddings(card.vocab_size, mean_resizing=False)
        longest = getattr(config, "max_position_embeddings", None)
        wanted = int(card.features.get("context", 0))
        if longest and wanted > longest:
            raise UserError(
                "data.context", f"must be at most {longest}, what {config.model_type} was made for", got=wanted
            )

    def forward(self, batch: Batch) -> Output:
        """tokens (B, T) [lengths (B,)] -> features (B, T, D) and head (V, D) when causal; else scores."""
        tokens = batch.tensors["tokens"]
        mask = None
        if "lengths" in batch.tensors:
            inside = torch.arange(tokens.shape[1], device=tokens.device) < batch.tensors["lengths"][:, None]
            mask = inside.long()
        if self.form != "causal":
            return Output(scores=self.model(input_ids=tokens, attention_mask=mask).logits)
        features = self.model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        return Output(*with_bias(features, self.model.get_output_embeddings()))

    def export(self, folder: Path) -> None:
        """Write config and weights as transformers reads them."""
        self.model.save_pretrained(folder)


def with_bias(features: Tensor, head: Any) -> tuple[Tensor, Tensor]:
    """(features, weight) whose product is the head's scores: a bias becomes the weight of a feature that is always 1."""
    if head.bias is None:
        return features, head.weight
    ones = torch.ones_like(features[..., :1])
    return torch.cat([features, ones], -1), torch.cat([head.weight, head.bias[:, None].to(head.weight.dtype)], 1)


def loaded(settings: Hub, form: str, n_outputs: int, seed: int) -> Any:
    """The transformers model in float32, its new parts (a fresh head) from the seed alone."""
    import transformers

    place = settings.config_folder()
    name = str(place) if place else settings.path
    extra = {} if form in ("causal", "masked") else {"num_labels": n_outputs}
    auto = getattr(transformers, CLASSES[form])
    logging: Any = transformers.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(name, **extra)
        is_meta = torch.get_default_device().type == "meta"
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if settings.weights == "fresh" or is_meta:
                return auto.from_config(config)
            return auto.from_pretrained(name, config=config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        why = one_line(str(error))[:200]
        raise UserError(
            "model.path", f"cannot be loaded ({why})", got=settings.path, fix="check the folder or the name"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
