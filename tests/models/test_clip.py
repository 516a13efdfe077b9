import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from tests.models.tiny_clip import CLASSES, PARAMS, classifier, coalitions, pictures
from tests.models.tiny_vit import painted_over
from tests.toolbox import refusal
from xai.models.clip import SelfExplainingClip, class_embeddings, load_parameters, trainable
from xai.models.factory import build_clip, build_tokenizer
from xai.models.maskable import Removal, reference_image

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def test_logits_are_open_clips_scaled_cosines() -> None:
    model, images = classifier(), pictures(4)
    clip = build_clip(PARAMS, seed=1).double().eval()
    clip.visual.load_state_dict({name.removeprefix("visual."): value for name, value in trainable(model).items()})
    mean, std = (torch.tensor(x, dtype=torch.float64).reshape(3, 1, 1) for x in (PARAMS.mean, PARAMS.std))
    model.normalisation.mean, model.normalisation.std = mean, std
    model.logit_scale = clip.logit_scale.detach().exp()
    features = clip.encode_image((images - mean) / std, normalize=True)
    expected = clip.logit_scale.exp() * features @ model.head
    torch.testing.assert_close(model(images), expected, **EXACT)
    torch.testing.assert_close(model.explain(images).logits, expected, **EXACT)
    assert expected.std() > 0.1


def test_the_logit_scale_is_the_base_models() -> None:
    assert float(classifier().logit_scale) == pytest.approx(float(build_clip(PARAMS).logit_scale.detach().exp()))


def test_attributions_are_w_transposed_times_each_projected_token() -> None:
    model, images = classifier(), pictures(3)
    visual = model.visual
    tokens = visual.transformer(visual._embeds(model.normalisation(images)))
    explained = model.explain(images)
    assert explained.attributions.shape == (3, 16, CLASSES)
    for image in range(3):
        for patch in range(16):
            token = tokens[image, 1 + patch]
            centred = (token - token.mean()) / (token.var(unbiased=False) + visual.ln_post.eps).sqrt()
            projected = (centred * visual.ln_post.weight + visual.ln_post.bias) @ visual.proj
            for c in range(CLASSES):
                dot = sum(float(w) * float(p) for w, p in zip(model.head[:, c], projected, strict=True))
                assert float(explained.attributions[image, patch, c]) == pytest.approx(dot, rel=1e-9, abs=1e-11)


def masked_out(model: SelfExplainingClip, images: Tensor, keep: Tensor) -> Tensor:
    """Nothing is dropped: removed tokens are barred, by -inf, from being attended to in every layer and head."""
    visual = model.visual
    tokens = visual._embeds((images - model.normalisation.mean) / model.normalisation.std)
    barred = torch.zeros(len(keep), 17, 17, dtype=torch.float64)
    for row in range(len(keep)):
        for patch in range(16):
            if not keep[row, patch]:
                barred[row, :, 1 + patch] = -torch.inf
    heads = visual.transformer.resblocks[0].attn.num_heads
    assert heads == 2
    tokens = visual.transformer(tokens, attn_mask=barred.repeat_interleave(heads, 0))
    features = visual.ln_post(tokens[:, 0]) @ visual.proj
    return model.logit_scale * (features / features.norm(dim=1, keepdim=True)) @ model.head


def test_dropping_tokens_equals_masking_them_out_of_every_attention() -> None:
    model, images = classifier(Removal("tokens")), pictures(12)
    ragged = coalitions(12)
    equal = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) < 5 for i in range(12)])
    for keep in (ragged, equal, torch.ones_like(ragged), torch.zeros_like(ragged)):
        torch.testing.assert_close(model(images, keep), masked_out(model, images, keep), **EXACT)
    assert len(ragged.sum(1).unique()) > 5
    torch.testing.assert_close(model(images, torch.ones_like(ragged)), model(images), **EXACT)
    # An image that nobody sees says nothing about itself.
    unseen = model(images, torch.zeros_like(ragged))
    torch.testing.assert_close(unseen, unseen[:1].expand_as(unseen), **EXACT)


@pytest.mark.parametrize("reference", ["black", "mean", "blur", "0.8"])
def test_removing_pixels_equals_painting_the_patches_over(reference: str) -> None:
    removal = Removal("pixels", reference)
    model, images, keep = classifier(removal), pictures(6), coalitions(6)
    behind = reference_image(images, removal, model.normalisation.mean.flatten())
    painted = painted_over(images, behind, keep, (4, 4))
    torch.testing.assert_close(model(images, keep), model.explain(painted).logits, **EXACT)
    assert not torch.allclose(model(images, keep)[0], model(images)[0])
    torch.testing.assert_close(model(images, torch.ones_like(keep)), model(images), **EXACT)


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 1, 1), (1, 3, 16, 16)], ids=str)
def test_a_reference_of_ones_own_is_what_shows(shape: tuple[int, ...]) -> None:
    given, images, keep = classifier(), pictures(6), coalitions(6)
    behind = torch.rand(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # Whatever the removal names comes second.
    model = SelfExplainingClip(
        given.visual, given.head, float(given.logit_scale), PARAMS.mean, PARAMS.std, Removal("pixels", "blur"), behind
    )
    painted = painted_over(images, behind, keep, (4, 4))
    torch.testing.assert_close(model(images, keep), model.explain(painted).logits, **EXACT)


def test_gradients_are_those_of_the_masked_tower() -> None:
    model, keep = classifier(Removal("tokens")).requires_grad_(True), coalitions(6)
    images = pictures(6).requires_grad_()
    steering = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def gradients(logits: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((logits * steering).sum(), [images, *model.parameters()])

    found = gradients(model(images, keep))
    for mine, theirs in zip(found, gradients(masked_out(model, images, keep)), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert all(value.abs().max() > 0 for value in found)


def test_class_embeddings_are_normalised_means_of_normalised_texts() -> None:
    clip, tokenizer = build_clip(PARAMS).eval(), build_tokenizer(PARAMS)
    classes, templates = ("7", "a tree", "{0}"), ("a photo of a {}.", "the {}", "{}")
    found = class_embeddings(clip, tokenizer, classes, templates)
    assert found.shape == (12, 3)
    assert not found.requires_grad
    for column, name in enumerate(classes):
        total = torch.zeros(12)
        for template in templates:
            text = clip.encode_text(tokenizer([template.replace("{}", name)]))[0].detach()
            total += text / text.norm()
        torch.testing.assert_close(found[:, column], total / total.norm(), rtol=1e-5, atol=1e-6)
    assert (found.T @ found - torch.eye(3)).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{"attentional_pool": True}, {"pool_type": "avg"}, {"final_ln_after_pool": True}])
def test_towers_that_do_not_pool_by_their_class_token_are_refused(settings: dict[str, object]) -> None:
    vision = CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=4, image_size=16, **settings)  # type: ignore[arg-type]
    clip = CLIP(16, vision, CLIPTextCfg(context_length=4, vocab_size=9, width=8, heads=1, layers=1))
    told = refusal(SelfExplainingClip, clip.visual, torch.zeros(16, 2), 1.0, PARAMS.mean, PARAMS.std)
    assert "pools by its [CLS] token" in told


def test_parameters_are_the_visual_towers_and_travel_between_models() -> None:
    model = classifier()
    theta = trainable(model)
    assert {name.removeprefix("visual.") for name in theta} == set(dict(model.visual.named_parameters()))
    other = classifier()
    for value in theta.values():
        value += 1  # a copy: the model does not notice
    torch.testing.assert_close(model(pictures(1)), other(pictures(1)), **EXACT)
    load_parameters(other, theta)
    assert all(torch.equal(value, theta[name]) for name, value in other.state_dict().items() if name in theta)
    assert torch.equal(other.head, model.head)


def test_parameters_that_do_not_fit_are_refused() -> None:
    model = classifier()
    theta = trainable(model)
    told = refusal(load_parameters, model, {**theta, "visual.more": torch.zeros(1)})
    assert told == "1 parameters are unknown here, the first is visual.more"
    del theta["visual.proj"]
    assert refusal(load_parameters, model, theta) == "1 parameters are missing, the first is visual.proj"


def test_images_of_another_shape_are_refused_though_they_have_as_many_patches() -> None:
    model, images = classifier(), pictures(2).reshape(2, 3, 8, 32)
    for ask in (model, model.explain):
        assert refusal(ask, images).startswith("images of 8 x 32 px do not fit a network of 16 x 16")


def test_training_reaches_the_tower_and_neither_head_nor_scale() -> None:
    model = classifier().requires_grad_(True)
    logits, attributions = model.explain(pictures(2))
    (F.cross_entropy(logits, torch.tensor([0, 1])) + attributions.square().sum()).backward()  # type: ignore[no-untyped-call]
    assert {name for name, value in model.named_parameters() if value.grad is not None} == set(trainable(model))
