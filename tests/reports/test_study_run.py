import pytest
import torch

from xai.reports.study_run import chosen_images


@pytest.mark.parametrize(
    ("right", "wrong", "count", "expected"),
    [
        (60, 40, 6, (2, 4)),
        (60, 1, 6, (1, 5)),
        (2, 40, 6, (4, 2)),
        (2, 1, 6, (1, 2)),
        (50, 0, 3, (0, 3)),
        (0, 9, 3, (3, 0)),
    ],
)
def test_a_third_of_the_pictures_are_misses_where_there_are_so_many(
    right: int, wrong: int, count: int, expected: tuple[int, int]
) -> None:
    hits = torch.cat([torch.ones(right, dtype=torch.bool), torch.zeros(wrong, dtype=torch.bool)])
    chosen = chosen_images(hits, count)
    assert len(chosen.unique()) == len(chosen)
    assert (int((~hits[chosen]).sum()), int(hits[chosen].sum())) == expected


def test_pictures_come_from_all_of_a_split_that_is_sorted_by_class() -> None:
    chosen = chosen_images(torch.ones(100, dtype=torch.bool), 5)
    assert chosen.tolist() == [0, 25, 50, 74, 99]
