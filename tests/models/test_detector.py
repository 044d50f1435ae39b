"""The detector: shapes, seeds, the meta device, refusals."""

import pytest
import torch

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.detector_settings import Detector


def card(**features):
    return DataCard(kind="boxes", source="", rows_in=0, rows_used=0, rows_rejected={}, features=features)


CARD = card(channels=3, height=72, width=104, classes=["a", "b"])


@pytest.mark.parametrize(("stride", "stages"), [(4, 2), (4, 4), (8, 4), (8, 5)])
def test_a_score_for_every_place(stride, stages):
    model = Detector(width=8, n_layers=1, neck_width=8, stride=stride, n_stages=stages).build(CARD, 6, 0)
    out = model(Batch({"image": torch.randn(2, 3, 72, 104)}, 2)).scores
    assert out.shape == (2, 72 * 104 // stride**2, 6)
    assert {id(p) for g in model.parameter_groups().values() for _, p in g} == {id(p) for p in model.parameters()}
    assert float(out[..., :2].detach().sigmoid().mean()) == pytest.approx(0.01, rel=0.5)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    a, b, c = (Detector(width=8, n_stages=2).build(CARD, 6, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)
    with torch.device("meta"):
        assert Detector(width=8).build(CARD, 6, 0).stem[0].conv.weight.is_meta


def test_other_data_are_refused():
    with pytest.raises(UserError, match="looks at pictures"):
        Detector().build(card(n_numbers=3), 1, 0)
    with pytest.raises(UserError, match="multiples"):
        Detector().build(card(channels=3, height=70, width=104), 6, 0)
