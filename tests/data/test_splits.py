"""Parts of a data set against counting by hand."""

import pytest
import torch

from xai.data.splits import stratified_parts, stratified_sample


@pytest.mark.parametrize("shares", [(0.1,), (0.1, 0.1), (0.3, 0.2), (0.29,), (0.01, 0.49)])
def test_parts_against_counting_by_hand(shares: tuple[float, ...]) -> None:
    counts = [0, 1, 2, 3, 4, 7, 10, 30, 70, 100]
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(7))]
    parts = stratified_parts(labels, shares)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        assert part.tolist() == sorted(part.tolist())
    for label, count in enumerate(counts):
        sizes = [sum(labels[row].item() == label for row in part) for part in parts]
        # In hundredths, so that no float rounds.
        quotas = [round(share * 100) * count // 100 for share in shares]
        quotas = [max(1, quota) if count > len(shares) else quota for quota in quotas]
        assert sizes == [count - sum(quotas), *quotas]
        assert sizes[0] > 0 or count == 0


def test_parts_depend_on_the_seed_and_nothing_else() -> None:
    labels = torch.arange(200) % 4
    torch.manual_seed(1)
    first = stratified_parts(labels, (0.1,))[1].tolist()
    torch.manual_seed(2)
    assert stratified_parts(labels, (0.1,))[1].tolist() == first
    assert stratified_parts(labels, (0.1,), seed=1)[1].tolist() != first
    # Drawn, not the first or last of each class.
    assert first not in (list(range(20)), list(range(180, 200)))


def test_groups_stay_together() -> None:
    groups = torch.arange(300) // 6
    labels = groups % 5
    rest, held = stratified_parts(labels, (0.2,), groups=groups)
    assert not set(groups[rest].tolist()) & set(groups[held].tolist())
    assert torch.bincount(labels[held]).tolist() == [12] * 5


@pytest.mark.parametrize("shares", [(), (0.6,), (0.0,), (-0.1,), (0.3, 0.3), (0.1, 0.1, 0.1)])
def test_parts_refuse_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares"):
        stratified_parts(torch.zeros(5, dtype=torch.long), shares)


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
