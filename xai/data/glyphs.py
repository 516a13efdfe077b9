"""Rendered glyphs: digits and letters in the fonts that matplotlib ships, distorted until they resemble handwriting.

They are the pre-training data of the embedded CLIP: images with captions that need no download.
"""

import functools
import string
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GLYPHS = string.digits + string.ascii_uppercase
"""The classes of pre-training: ten digits and twenty-six capital letters."""

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmss10", "cmtt10"),
)
"""Font files whose digits and capitals have their usual shapes."""

_MASTER = 48  # pixels of the master drawings; twice the size in use, so that distortion loses nothing


@functools.cache
def master_glyphs() -> Tensor:
    """Draw every glyph once in every font: [fonts, glyphs, 48, 48] in [0, 1], ink is 1, centred, 36 px high or wide."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    drawings = [[_draw(glyph, folder / f"{font}.ttf") for glyph in GLYPHS] for font in FONTS]
    return torch.stack([torch.stack(row) for row in drawings])


def _draw(glyph: str, font_file: Path) -> Tensor:
    font = ImageFont.truetype(str(font_file), 60)
    left, top, right, bottom = font.getbbox(glyph)
    ink = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), glyph, fill=255, font=font)
    scale = 36 / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.LANCZOS)
    page = Image.new("L", (_MASTER, _MASTER))
    page.paste(ink, ((_MASTER - ink.width) // 2, (_MASTER - ink.height) // 2))
    return torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).reshape(_MASTER, _MASTER).float() / 255


def draw_glyphs(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw distorted glyphs: random font, stroke weight, affine and elastic deformation, blur and coarse sampling.

    Args:
        labels: [B] indices into `GLYPHS`.
        size: Side of the result in pixels.
        generator: Source of all randomness.

    Returns:
        [B, size, size] in [0, 1], ink is 1.
    """
    fonts = torch.randint(len(FONTS), labels.shape, generator=generator)
    ink = master_glyphs()[fonts, labels][:, None]
    ink = _vary_stroke(ink, generator)
    ink = F.grid_sample(ink, _deformation(len(labels), size, generator), mode="bilinear", align_corners=False)
    ink = _soften(ink, generator)
    ink = ink / ink.amax((1, 2, 3), keepdim=True).clamp(min=0.5)
    return ink.clamp(0, 1)[:, 0]


def _vary_stroke(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Thicken a third of the strokes, thin another third: pens differ more than fonts do."""
    weight = torch.randint(3, (len(ink), 1, 1, 1), generator=generator)
    thick = F.max_pool2d(ink, 5, stride=1, padding=2)
    thin = -F.max_pool2d(-ink, 3, stride=1, padding=1)
    return torch.where(weight == 0, thick, torch.where(weight == 1, 0.5 * (thin + ink), ink))


def _deformation(batch: int, size: int, generator: torch.Generator) -> Tensor:
    """Sampling grid [B, size, size, 2] of a random rotation, shear, scale, shift and a smooth elastic field."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    angle, shear = uniform(-0.3, 0.3), uniform(-0.35, 0.35)
    width, height = uniform(0.85, 1.35), uniform(1.0, 1.35)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos / width, (-sin + shear) / width, uniform(-0.06, 0.06), sin / height, cos / height, uniform(-0.06, 0.06)]
    affine = torch.stack(rows, dim=1).reshape(batch, 2, 3)
    grid = F.affine_grid(affine, [batch, 1, size, size], align_corners=False)
    waves = F.interpolate(
        torch.randn(batch, 2, 4, 4, generator=generator), size=(size, size), mode="bicubic", align_corners=True
    )
    return grid + 0.07 * waves.permute(0, 2, 3, 1)


def _soften(ink: Tensor, generator: torch.Generator) -> Tensor:
    """Blur some; send others through an 8 x 8 grid, as scikit-learn's digits were."""
    kind = torch.rand(len(ink), 1, 1, 1, generator=generator)
    size = ink.shape[-2:]
    blurred = F.avg_pool2d(F.pad(ink, (1, 1, 1, 1)), 3, stride=1)
    coarse = F.interpolate(F.adaptive_avg_pool2d(ink, 8), size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.where(kind < 0.3, coarse, torch.where(kind < 0.6, blurred, ink))
