"""Make the pictures of docs/gallery.md: two photographs that come with scikit-learn, explained by what is there.

    python docs/gallery.py          # some minutes on two cores

The classifier is EfficientNet-Lite0, whose ImageNet weights are installed with this package; the numbers of passes are
those that the page names.
"""

from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import xai

IMAGES = Path(__file__).resolve().parent / "images"
SHEETS = {
    "gallery_game.jpg": {
        "RISE": ("rise", {"masks": 200}),
        "Kernel SHAP": ("kernel_shap", {"evaluation_coalitions": 200, "output": "probability"}),
        "Grad-CAM": ("grad_cam", {}),
        "Eigen-CAM": ("eigen_cam", {}),
    },
    "gallery_gradients.jpg": {
        "Saliency": ("saliency", {}),
        "Input x gradient": ("input_x_gradient", {}),
        "Integrated Gradients": ("integrated_gradients", {"steps": 16}),
        "Saliency, pixels": ("saliency_pixels", {}),
    },
    "gallery_controls.jpg": {
        "Brightness": ("brightness", {}),
        "Random": ("random", {}),
        "RISE, another class": ("rise", {"masks": 200, "targets": 738}),
        "Constant": ("constant", {}),
    },
}


def main() -> None:
    """Draw every sheet."""
    torch.manual_seed(0)
    model = xai.load(architecture="efficientnet_lite0")
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    predicted = [model.classes[number] for number in model.predict(photographs).argmax(1)]
    for name, rows in SHEETS.items():
        maps = {label: xai.explain(model, photographs, row, **settings) for label, (row, settings) in rows.items()}
        figure = xai.show(photographs, maps, titles=predicted)
        figure.savefig(IMAGES / name, dpi=80, pil_kwargs={"quality": 80})
        print(IMAGES / name)


if __name__ == "__main__":
    main()
