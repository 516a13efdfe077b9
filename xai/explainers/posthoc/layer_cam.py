"""LayerCAM (Jiang et al. 2021) as an explainer, by pytorch-grad-cam."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


@explainer(
    "layer_cam",
    label="LayerCAM",
    about="the last layer that has patches, each place weighed by its own positive gradient of the logit",
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class LayerCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at."""

    gradients = True

    def method(self) -> type[Any]:
        """LayerCAM of the logit (equations 4 to 6)."""
        from pytorch_grad_cam import LayerCAM

        return LayerCAM
