import torch

from tests.models.tiny_clip import classifier, pictures
from xai.papers.vectors.self_explanation import self_explanation


def test_self_explanation_takes_the_column_asked_for_in_batches_of_any_size() -> None:
    model, images = classifier(), pictures(7)
    columns = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    found = self_explanation(model, images, columns)
    assert found.logits is not None
    for row in range(7):
        logits, attributions = model.explain(images[row : row + 1])
        expected = attributions[0, :, columns[row]].reshape(4, 4)
        torch.testing.assert_close(found.attributions[row].double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.logits[row].double(), logits[0], rtol=1e-5, atol=1e-5)
    for batch in (1, 3):
        cut = self_explanation(model, images, columns, batch)
        torch.testing.assert_close(cut.attributions, found.attributions)
    assert found.attributions.dtype == torch.float32
