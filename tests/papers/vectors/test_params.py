from dataclasses import replace

from tests.classifiers.bench import FIT
from xai.papers.vectors.transfer import TransferParams

PARAMS = TransferParams(
    alpha=0.1,
    alpha_grid=(0.1, 0.5),
    lambda1=1.0,
    lambda2=None,
    lambda2_grid=(0.4, 0.8),
    accuracy_tolerance=0.02,
    source_images=None,
    target_images=None,
    fixed_target=False,
    bound_images=None,
    validation_images=None,
    other_column=False,
    bound_coalitions=16,
    source_fit=FIT,
    target_fit=FIT,
    bound_fit=FIT,
)


def test_the_ranges_include_their_ends() -> None:
    replace(PARAMS, alpha=0.0, lambda1=0.0, lambda2=10.0, lambda2_grid=(0.0,), accuracy_tolerance=0.0)
