"""Parts of a data set against counting by hand."""

import pytest
import torch

from xai.data.splits import stratified_sample


def test_a_sample_of_classes_far_apart_in_size_has_their_proportions() -> None:
    labels = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([600, 300, 100]))
    assert torch.bincount(labels[stratified_sample(labels, 10, 0)]).tolist() == [6, 3, 1]


@pytest.mark.parametrize(("classes", "count"), [(10, 256), (10, 20), (43, 256), (7, 3)])
def test_a_sample_has_every_class_in_proportion_although_the_set_is_sorted(classes: int, count: int) -> None:
    sizes = torch.arange(classes) % 3 * 20 + 100
    labels = torch.arange(classes).repeat_interleave(sizes)
    rows = stratified_sample(labels, count, 0)
    assert len(rows) == len(set(rows.tolist())) == count
    assert rows.tolist() == sorted(rows.tolist())
    drawn = torch.bincount(labels[rows], minlength=classes)
    assert (drawn - count * sizes / len(labels)).abs().max() <= 1.5
    assert torch.equal(rows, stratified_sample(labels, count, 0))
    samples = [set(stratified_sample(labels, count, seed).tolist()) for seed in range(20)]
    assert len(set.union(*samples)) > min(3 * count, 0.9 * len(labels))


def test_a_sample_of_fewer_rows_than_classes_is_not_of_the_first_ones() -> None:
    labels = torch.arange(50).repeat_interleave(4)
    chosen = torch.stack([labels[stratified_sample(labels, 5, seed)] for seed in range(200)])
    assert all(len(set(each.tolist())) == 5 for each in chosen)
    assert 20 < chosen.double().mean() < 29  # 24.5 where no class comes first
    assert torch.equal(stratified_sample(labels, 1000, 0), torch.arange(200))
