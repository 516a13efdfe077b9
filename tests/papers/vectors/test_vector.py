"""Equation 8 for a fine-tuned classifier."""

import torch

from xai import vectors
from xai.papers.vectors.transfer import transferred


def test_transferred_is_equation_8_and_needs_no_base_at_lambda1_one() -> None:
    generator = torch.Generator().manual_seed(0)
    base, ft, tau = ({"visual.w": torch.randn(50, generator=generator)} for _ in range(3))
    task = vectors.difference(ft, base)
    expected = vectors.transfer(base, task, tau, lambda1=0.7, lambda2=0.4)
    torch.testing.assert_close(transferred(base, ft, tau, 0.7, 0.4), expected)
    alone = vectors.apply(ft, [(0.4, tau)])
    assert torch.equal(transferred(base, ft, tau, 1.0, 0.4)["visual.w"], alone["visual.w"])
