"""Every way a picture can be stored ends as upright RGB; every unusable file ends as one line."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from tests import toolbox
from xai.core.errors import UserError
from xai.data import images
from xai.data.images import read_image, read_labels, region_to_tensor, to_rgb, to_tensor

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path)[:100] in message
    return message


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.PNG", "a.tga"])
def test_lossless_rgb_is_exact(tmp_path: Path, name: str) -> None:
    assert (pixels(saved(Image.fromarray(COLOURS), tmp_path / name)) == COLOURS).all()


@pytest.mark.parametrize(
    ("mode", "dtype", "name", "stored", "shown"),
    [
        ("L", np.uint8, "a.png", [0, 7, 255], [0, 7, 255]),
        ("I;16", np.uint16, "a.png", [0, 257, 32768, 65535], [0, 1, 128, 255]),
        ("I;16", np.uint16, "a.tif", [0, 600, 65535], [0, 2, 255]),
        ("I", np.int32, "a.tif", [0, 7, 255], [0, 7, 255]),
        ("I", np.int32, "a.tif", [0, 257, 65535], [0, 1, 255]),
        ("I", np.int32, "a.tif", [0, 2**30, 2**31 - 1], [0, 128, 255]),
        ("I", np.int32, "a.tif", [-100, 0, 100], [0, 128, 255]),
        ("F", np.float32, "a.tif", [0, 0.5, 1], [0, 128, 255]),
        ("F", np.float32, "a.tif", [0, 7, 200], [0, 7, 200]),
        ("F", np.float32, "a.tif", [-1, 0, 1], [0, 128, 255]),
        ("F", np.float32, "a.tif", [-3, -3, -3], [0, 0, 0]),
        ("F", np.float32, "a.tif", [0, 1e9, 2e9], [0, 128, 255]),
    ],
)
def test_grey_of_any_depth_is_scaled(
    tmp_path: Path, mode: str, dtype: type, name: str, stored: list[float], shown: list[int]
) -> None:
    image = Image.fromarray(np.array([stored], dtype=dtype))
    assert image.mode == mode
    expected = np.repeat(np.array([shown], dtype=np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(saved(image, tmp_path / name)), expected)


def test_a_dark_16_bit_pgm_stays_dark(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 200))
    assert pixels(path)[0].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_non_finite_pixels_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        path = saved(Image.fromarray(np.array([[0, value]], dtype=np.float32)), tmp_path / "a.tif")
        assert "NaN or infinite" in refusal(path)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    assert pixels(saved(Image.fromarray(rgba), tmp_path / "a.png"))[0].tolist() == [[10, 20, 30], [255] * 3, [204] * 3]
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert pixels(saved(Image.fromarray(la), tmp_path / "b.png"))[0].tolist() == [[10] * 3, [255] * 3]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([200, 0, 0, 0, 100, 0])
    assert pixels(saved(image, tmp_path / "a.png"))[0].tolist() == [[200, 0, 0], [0, 100, 0]]
    assert pixels(saved(image, tmp_path / "b.png", transparency=0))[0].tolist() == [[255] * 3, [0, 100, 0]]
    assert pixels(saved(image, tmp_path / "b.gif"))[0].tolist() == [[200, 0, 0], [0, 100, 0]]


def test_a_transparent_colour_of_grey_and_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[5, 9]], dtype=np.uint8))
    assert pixels(saved(grey, tmp_path / "a.png", transparency=5))[0].tolist() == [[255] * 3, [9] * 3]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [3, 2, 1]]], dtype=np.uint8))
    assert pixels(saved(rgb, tmp_path / "b.png", transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [3, 2, 1]]
    deep = Image.fromarray(np.array([[5, 2570]], dtype=np.uint16))
    deep.info["transparency"] = 5
    assert np.asarray(to_rgb(deep))[0].tolist() == [[255] * 3, [10] * 3]


def test_one_bit(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 255, 255]], dtype=np.uint8)).convert("1")
    assert pixels(saved(image, tmp_path / "a.png"))[0].tolist() == [[0] * 3, [255] * 3, [255] * 3]


def test_cmyk(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert pixels(saved(red, tmp_path / "a.tif"))[3, 3].tolist() == [255, 0, 0]
    assert np.abs(pixels(saved(red, tmp_path / "a.jpg"))[3, 3].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, COLOURS),
        (2, COLOURS[:, ::-1]),
        (3, COLOURS[::-1, ::-1]),
        (4, COLOURS[::-1]),
        (5, COLOURS.transpose(1, 0, 2)),
        (6, np.rot90(COLOURS, -1)),
        (7, COLOURS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(COLOURS, 1)),
    ],
)
def test_exif_rotation(tmp_path: Path, orientation: int, turned: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        pixels(saved(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)), np.ascontiguousarray(turned)
    )


def test_exif_rotation_of_deep_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert pixels(saved(deep, tmp_path / "a.png", exif=exif))[0, :, 0].tolist() == [255, 0]


def test_a_damaged_exif_note_does_not_refuse_the_pixels(tmp_path: Path) -> None:
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (pixels(path) == COLOURS).all()


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.tif"):
        path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
        assert pixels(path)[0, 0].tolist() == [255, 0, 0]


def test_missing_suggests_near_names(tmp_path: Path) -> None:
    saved(Image.fromarray(COLOURS), tmp_path / "holiday.png")
    assert "did you mean holiday.png?" in refusal(tmp_path / "holyday.png")
    assert "look into" in refusal(tmp_path / "zzzzzzzz")
    assert "there is no folder" in refusal(tmp_path / "nowhere" / "holiday.png")


def test_what_is_no_file_with_bytes(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "0 bytes" in refusal(tmp_path / "empty.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "no regular file" in refusal(tmp_path / "pipe.png")
    refusal(tmp_path / ("x" * 5000))


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    assert "not a picture" in refusal(tmp_path / "text.png")
    # A format whose reader would start an outside program.
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "not a picture" in refusal(tmp_path / "a.eps")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif", "a.ppm"])
def test_cut_short_anywhere_is_one_line(tmp_path: Path, name: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    whole = saved(noise, tmp_path / name).read_bytes()
    for share in (0.02, 0.2, 0.5, 0.8):
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(whole[: int(len(whole) * share)])
        refusal(cut)


def test_flipped_bytes_never_escape_as_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    for name in ("a.png", "a.tif", "a.gif", "a.webp"):
        whole = bytearray(saved(Image.fromarray(COLOURS), tmp_path / name).read_bytes())
        for position in range(0, len(whole), 3):
            broken = bytearray(whole)
            broken[position] ^= 0xFF
            path = tmp_path / f"broken_{name}"
            path.write_bytes(broken)
            try:
                assert read_image(path).mode == "RGB"
            except UserError as error:
                assert str(path) in str(error)  # noqa: PT017 - either outcome is right, depending on the byte


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_gigantic_is_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    # No pixel data follow at all, so the size must have been judged first.
    no_data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    path.write_bytes(png_header(11_000, 10_000) + no_data)
    assert "11000 x 10000 = 110,000,000 pixels; at most 100,000,000" in refusal(path)
    path.write_bytes(png_header(2**31 - 1, 2**31 - 1) + no_data)
    assert "100,000,000" in refusal(path)


def test_max_pixels_is_the_last_size_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    assert read_image(path).size == (7, 5)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    assert "at most 34" in refusal(path)


def test_no_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(0, 5) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    assert "without pixels" in refusal(path)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (31, 64), (97, 33), (16, 16), (5, 37), (200, 30)])
@pytest.mark.parametrize("size", [16, 21, 48])
def test_crop_is_clips_own_preprocessing(shape: tuple[int, int], size: int) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
    clip = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
        ]
    )
    torch.testing.assert_close(to_tensor(image, size), clip(image), rtol=0, atol=1e-7)


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1), (3, 50_000), (1, 2)])
def test_any_shape_becomes_a_square(shape: tuple[int, int], fit: str) -> None:
    result = to_tensor(Image.new("RGB", shape, (255, 51, 0)), 32, fit)
    assert result.shape == (3, 32, 32)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.amin((1, 2)), torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(result.amax((1, 2)), torch.tensor([1.0, 0.2, 0.0]))


def test_a_long_strip_takes_no_more_memory_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(image: Image.Image, shape: tuple[int, int], *rest: Image.Resampling) -> Image.Image:
        resized.append(shape)
        return resize(image, shape, *rest)

    monkeypatch.setattr(Image.Image, "resize", spy)
    for shape in ((1, 100_000), (100_000, 2), (8, 1)):
        to_tensor(Image.new("RGB", shape), 32)
    assert resized == [(32, 256), (256, 32), (256, 32)]


def test_a_long_strip_shows_its_middle() -> None:
    strip = np.zeros((2, 1001), dtype=np.uint8)
    strip[:, 490:510] = 255
    assert to_tensor(Image.fromarray(strip), 16).min() == 1.0


def test_label_maps_are_read_as_numbers(tmp_path: Path) -> None:
    numbers = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
    grey = Image.fromarray(numbers)
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    for image in (grey, palette):
        np.testing.assert_array_equal(read_labels(saved(image, tmp_path / "map.png")), numbers)
    binary = Image.fromarray(numbers > 1)
    np.testing.assert_array_equal(read_labels(saved(binary, tmp_path / "map.png")), numbers > 1)
    for image in (Image.fromarray(COLOURS), Image.fromarray(numbers.astype(np.uint16))):
        path = saved(image, tmp_path / "map.png")
        told = toolbox.refusal(read_labels, path)
        assert "8-bit grey or palette ones are needed" in told
        assert str(path) in told
    assert "does not exist" in toolbox.refusal(read_labels, tmp_path / "none.png")


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (41, 67), (9, 130)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_region_goes_where_its_picture_goes(height: int, width: int, fit: str) -> None:
    region = np.zeros((height, width), dtype=bool)
    region[height // 5 : height // 2, width // 3 : width // 2] = True
    picture = Image.fromarray(region.astype(np.uint8) * 255)
    brightness = to_tensor(picture, 24, fit)[0]
    found = region_to_tensor(region, 24, fit)
    assert found.dtype == torch.bool
    assert found.shape == (24, 24)
    # Away from the edge, where cubic and box filters differ, bright is inside and dark outside.
    assert found[brightness > 0.8].all()
    assert not found[brightness < 0.2].any()
    assert found.any()
    assert not found.all()


def test_half_of_its_area_makes_a_pixel_part_of_the_region() -> None:
    region = np.zeros((8, 8), dtype=bool)
    region[:4, :2] = True  # half of the first of four
    region[4:, :1] = True  # a quarter of the third
    assert region_to_tensor(region, 2).tolist() == [[True, False], [False, False]]
