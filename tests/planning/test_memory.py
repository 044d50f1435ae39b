"""The memory formula against what autograd really keeps."""

import pytest
import torch

from danlu.base.contracts import Batch
from danlu.models.decoder_settings import Decoder
from danlu.models.layers import Plain
from danlu.optim import OPTIMIZERS
from danlu.planning.memory import SLOTS, training_memory
from danlu.tasks.language import Language


def kept_bytes(settings: Decoder, n_vocabulary: int, rows: int, dtype: torch.dtype) -> int:
    """Storages that backward keeps of one micro-batch, weights left out."""
    torch.set_num_threads(1)
    model = settings.build(n_vocabulary)
    model.operations, model.dtype = Plain(), dtype
    tokens = torch.randint(0, n_vocabulary, (rows, settings.context))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(storage)
        if storage.data_ptr() not in own and tensor.numel() >= tokens.numel() and tensor.shape not in shapes:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    shapes = {p.shape for p in model.parameters()} | {p.t().shape for p in model.parameters() if p.dim() == 2}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        Language().loss_sum(
            model(Batch({"tokens": tokens, "targets": tokens}, tokens.numel())),
            Batch({"tokens": tokens, "targets": tokens}, tokens.numel()),
        )
    return sum(kept.values())


@pytest.mark.parametrize("style", ["modern", "gpt2"])
@pytest.mark.parametrize("attention", ["fused", "blocks"])
@pytest.mark.parametrize(("n_layers", "width", "context"), [(2, 64, 32), (4, 128, 128)])
def test_activations(style, attention, n_layers, width, context):
    settings = Decoder(style=style, n_layers=n_layers, width=width, n_heads=4, context=context, attention=attention)
    shape = settings.shape(97)
    expected = training_memory(shape, 3, attention=attention).activations
    found = kept_bytes(settings, 97, 3, torch.float32)
    assert expected == pytest.approx(found, rel=0.35)


def test_memory_grows_with_what_it_is_made_of():
    shape = Decoder(n_layers=2, width=64, n_heads=2, context=64).shape(97)
    one, four = training_memory(shape, 1), training_memory(shape, 4)
    assert four.activations == 4 * one.activations
    assert four.weights == one.weights == 8 * shape.n_parameters
    assert training_memory(shape, 4, precision="bf16").activations * 2 == four.activations
    assert training_memory(shape, 1, has_ema=True).optimizer - one.optimizer == 4 * shape.n_parameters
    assert one.total == one.weights + one.optimizer + one.activations + one.scores


def test_slots_of_every_optimizer():
    assert set(SLOTS) == set(OPTIMIZERS)
