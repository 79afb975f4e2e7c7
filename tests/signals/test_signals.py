"""What a release is asked: every view and every perturbation, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relaxloss import signals
from relaxloss.data import Dataset
from relaxloss.signals import VIEWS, perturbations, shifted

IMAGES = torch.arange(1.0, 1 + 2 * 3 * 8 * 6).reshape(2, 3, 8, 6)


def by_hand(x: torch.Tensor, flip: bool, down: int, right: int) -> torch.Tensor:
    """Zeros around the image, and the same window of it again, moved the other way."""
    source = x.flip(3) if flip else x
    padded = F.pad(source, (4, 4, 4, 4))
    return padded[:, :, 4 - down : 4 - down + x.shape[2], 4 - right : 4 - right + x.shape[3]]


def test_the_views_of_an_image_are_two_flips_of_nine_shifts_the_plain_one_first() -> None:
    assert len(VIEWS) == len(set(VIEWS)) == 18
    assert VIEWS[0] == (False, 0, 0)
    assert {view[1:] for view in VIEWS} == {(down, right) for down in (-4, 0, 4) for right in (-4, 0, 4)}
    for view in VIEWS:
        assert torch.equal(shifted(IMAGES, *view), by_hand(IMAGES, *view))
    assert not shifted(IMAGES, False, 8, 0).any(), "moved out"


class Sums(nn.Module):
    """Answers a weighted sum of the pixels, and its negative, whatever it is trained on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.float().flatten(1)
        score = rows @ torch.linspace(-1, 1, rows.shape[1])
        return torch.stack([score, -score], 1)


def test_augmented_queries_are_the_views(images: Dataset) -> None:
    model: Any = Sums()
    found = signals.observe(model, model, images, "augmented")["augmented"]
    x = torch.from_numpy(images.x)
    assert found.shape == (18, len(images), 2)
    for answers, view in zip(found, VIEWS, strict=True):
        np.testing.assert_allclose(answers, model(by_hand(x, *view)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("copy", range(33))
def test_bits_are_flipped_at_the_rates_that_are_said(copy: int) -> None:
    x = (torch.rand(400, 300, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    queries = list(perturbations(x, "bits", torch.Generator().manual_seed(1)))
    assert len(queries) == 33
    rate = 0.0 if copy == 0 else (0.005, 0.01, 0.03, 0.08)[(copy - 1) // 8]
    changed = (queries[copy] != x).float().mean().item()
    assert changed == pytest.approx(rate, abs=5 * (rate / x.numel()) ** 0.5)
    assert set(queries[copy].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("copy", range(33))
def test_numbers_get_noise_of_the_scales_that_are_said_and_codes_none(copy: int) -> None:
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 3.0])
    still = torch.tensor([False, False, True])
    queries = list(perturbations(x, "table", torch.Generator().manual_seed(1), still))
    assert len(queries) == 33
    scale = 0.0 if copy == 0 else (0.1, 0.2, 0.4, 0.8)[(copy - 1) // 8]
    noise = ((queries[copy] - x) / x.std(0, correction=0))[:, :2]
    assert noise.std(0).tolist() == pytest.approx([scale, scale], rel=0.06, abs=1e-6)
    assert torch.equal(queries[copy][:, 2], x[:, 2])


def test_hits_are_whether_the_label_is_still_right(images: Dataset) -> None:
    model: Any = Sums()
    hits = signals.observe(model, model, images, "perturbed")["hits"]
    x, y = torch.from_numpy(images.x), torch.from_numpy(images.y)
    want = [(model(by_hand(x, *view)).argmax(1) == y).tolist() for view in VIEWS]
    assert hits.tolist() == want
    assert 0 < hits.mean() < 1
