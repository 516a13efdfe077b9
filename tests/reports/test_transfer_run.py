import torch

from xai.reports.transfer_run import _one_of_each


def test_pictures_go_round_the_classes_and_may_be_none() -> None:
    labels = torch.tensor([2, 2, 0, 1, 0])
    assert _one_of_each(labels, 4).tolist() == [2, 3, 0, 4]
    assert labels[_one_of_each(labels, 0)].tolist() == []
