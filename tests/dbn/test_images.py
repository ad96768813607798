import math
import os

import numpy as np
import pytest
from PIL import Image

from dbn import images

RANDOM = np.random.default_rng(0)


def tile_slowly(X, img_shape, tile_shape, tile_spacing, scale, pixels):
    """The tutorial's definition, pixel by pixel; 2-D arrays only."""
    (h, w), (rows, columns), (sh, sw) = img_shape, tile_shape, tile_spacing
    out = np.zeros(((h + sh) * rows - sh, (w + sw) * columns - sw), "uint8" if pixels else X.dtype)
    for i, x in enumerate(X):
        if i >= rows * columns:
            break
        if scale:
            x = x - x.min()
            x = x * (1.0 / (x.max() + 1e-8))
        for pixel, value in enumerate(x):
            y0, x0 = (i // columns) * (h + sh), (i % columns) * (w + sw)
            out[y0 + pixel // w, x0 + pixel % w] = value * 255 if pixels else value
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(
    ("n", "tile_shape", "spacing"),
    [(6, (2, 3), (0, 0)), (6, (2, 3), (1, 2)), (5, (2, 3), (2, 0)), (9, (2, 3), (1, 1))],
)
def test_tile_raster_images_is_the_tutorials(dtype, pixels, scale, n, tile_shape, spacing):
    X = RANDOM.random((n, 20)).astype(dtype)
    if scale:
        X = X * 7 - 3
    before = X.copy()
    ours = images.tile_raster_images(X, (4, 5), tile_shape, spacing, scale, pixels)
    expected = tile_slowly(X, (4, 5), tile_shape, spacing, scale, pixels)
    assert ours.dtype == expected.dtype
    assert np.array_equal(ours, expected)
    assert np.array_equal(X, before)


def test_tile_raster_images_by_hand():
    X = np.array([[0, 1, 2, 4], [5, 5, 5, 5], [-1, 0, 0, -0.5]], "float32")
    expected = [
        [0, 63, 0, 0, 0],
        [127, 255, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 255, 0, 0, 0],
        [255, 127, 0, 0, 0],
    ]
    ours = images.tile_raster_images(X, (2, 2), (2, 2), (1, 1))
    assert ours.dtype == np.uint8 and ours.tolist() == expected
    # In float64 the tutorial's guard against 0 / 0 leaves 0.99999999 of the highest value.
    assert images.tile_raster_images(np.eye(2), (1, 2), (2, 1)).tolist() == [[254, 0], [0, 254]]
    assert images.tile_raster_images([[0, 1], [1, 1]], (1, 2), (1, 2), (0, 0), False).tolist() == [
        [0, 255, 255, 255]
    ]


@pytest.mark.parametrize("pixels", [True, False])
def test_tile_raster_images_of_channels(pixels):
    red, blue = RANDOM.random((2, 3, 4))
    args = (2, 2), (2, 2), (1, 0), False, pixels
    ours = images.tile_raster_images((red, None, blue, None), *args)
    assert ours.shape == (5, 4, 4)
    assert np.array_equal(ours[..., 0], images.tile_raster_images(red, *args))
    assert not ours[..., 1].any()
    assert np.array_equal(ours[..., 2], images.tile_raster_images(blue, *args))
    assert (ours[..., 3] == (255 if pixels else 1)).all()
    faint = images.tile_raster_images((None, None, None, red), *args)
    assert np.array_equal(faint[..., 3], ours[..., 0]) and not faint[..., :3].any()


def test_filters_are_columns_stretched():
    W = RANDOM.normal(size=(6, 7)).astype("float32")
    ours = images.filters(W, (2, 3))
    assert ours.shape == (2 * 3 - 1, 4 * 4 - 1)  # 7 tiles: 2 rows of 4
    for i in range(7):
        tile = W[:, i].reshape(2, 3)
        grey = 255 * (tile - tile.min()) / (tile.max() - tile.min())
        top, left = i // 4 * 3, i % 4 * 4
        assert np.abs(ours[top : top + 2, left : left + 3] - grey).max() <= 1
        assert ours[top : top + 2, left : left + 3].max() >= 254
    assert not ours[3:, 12:].any() and not ours[2].any() and not ours[:, 3].any()


@pytest.mark.parametrize(
    ("hidden", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (100, 10, 10), (500, 22, 23)]
)
def test_filters_are_near_square(hidden, rows, columns):
    assert images.filters(np.ones((1, hidden)), (1, 1), None, (0, 0)).shape == (rows, columns)


def test_filters_in_a_given_grid():
    assert images.filters(RANDOM.normal(size=(4, 10)), (2, 2), (2, 5), (0, 3)).shape == (4, 22)


def test_chains_run_downwards_unstretched():
    means = np.zeros((2, 3, 2), "float32")
    means[0, 1] = 0.5, 0.25
    means[1, 2] = 1.0, 0.125
    expected = [
        [0, 0, 0, 127, 63, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 255, 31],
    ]
    assert images.chains(means, (1, 2)).tolist() == expected
    assert images.chains(means, (1, 2), (0, 0)).tolist() == [
        [0, 0, 127, 63, 0, 0],
        [0, 0, 0, 0, 255, 31],
    ]


def test_reconstructions_lie_below_their_originals():
    x = np.linspace(0, 1, 45, dtype="float32").reshape(45, 1)
    ours = images.reconstructions(x, 1 - x, (1, 1), (0, 0))
    grey, inverse = (255 * x[:, 0]).astype(int), (255 * (1 - x[:, 0])).astype(int)
    assert ours.shape == (6, 20)
    for block in range(2):
        part = slice(20 * block, 20 * block + 20)
        assert ours[2 * block].tolist() == grey[part].tolist()
        assert ours[2 * block + 1].tolist() == inverse[part].tolist()
    assert ours[4].tolist() == [*grey[40:], *[0] * 15]
    assert ours[5].tolist() == [*inverse[40:], *[0] * 15]
    assert images.reconstructions(x[:2], x[:2], (1, 1)).tolist() == [[0, 0, 5], [0] * 3, [0, 0, 5]]


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_come_last_in_a_case_and_in_a_picture(channels):
    x = RANDOM.random((1, 2, 2, channels)).astype("float32")
    flat = x.reshape(1, -1)
    expected = np.full((2, 2, 4), 255, np.uint8)
    expected[..., :channels] = x[0] * 255
    assert np.array_equal(images.chains(flat[None], (2, 2, channels)), expected)
    pair = images.reconstructions(flat, flat, (2, 2, channels), (0, 0))
    assert np.array_equal(pair, np.concatenate((expected, expected)))
    stretched = images.filters(flat.T, (2, 2, channels))
    assert stretched.shape == (2, 2, 4)
    assert (stretched[..., :3].max((0, 1)) >= 254).all()
    assert (stretched[..., :3].min((0, 1)) == 0).all()


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 4)])
def test_save_round_trip(tmp_path, shape):
    picture = RANDOM.integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "new" / "folder" / "picture.png"
    images.save(path, np.zeros((2, 2), np.uint8))
    images.save(str(path), picture)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), picture)
    assert os.listdir(path.parent) == ["picture.png"]


def test_a_broken_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    images.save(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()

    def write_half(self, file, format):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(OSError, match="disk full"):
        images.save(path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["picture.png"]


# Bad input.

GOOD = np.full((6, 4), 0.5)


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"X": GOOD[0]}, r"X must be \(images, pixels\), not empty, has shape \(4,\)"),
        ({"X": GOOD[None]}, r"X must be \(images, pixels\)"),
        ({"X": GOOD[:0]}, "X must be .* not empty"),
        ({"X": GOOD[:, :3]}, r"X must be .* with 4 pixels for img_shape=\(2, 2\)"),
        ({"X": GOOD * math.nan}, "X must be finite"),
        ({"X": GOOD * math.inf}, "X must be finite"),
        ({"X": [["a", "b", "c", "d"]]}, "X must be an array of numbers"),
        ({"X": [[1, 2], [3]]}, "X must be an array of numbers"),
        ({"X": None}, "X must be"),
        ({"X": GOOD * 3, "scale_rows_to_unit_interval": False}, r"X must lie in \[0, 1\]"),
        ({"X": -GOOD, "scale_rows_to_unit_interval": False}, r"lies in \[-0.5, -0.5\]"),
        ({"X": (GOOD, GOOD, GOOD)}, "X, as a tuple, must hold red, green, blue and opacity"),
        ({"X": (None,) * 4}, "not all None"),
        ({"X": (None, GOOD, GOOD * math.nan, None)}, r"X\[2\] must be finite"),
        ({"img_shape": (4,)}, r"img_shape=\(4,\) must be 2 integers, at least 1"),
        ({"img_shape": (2, 2, 1)}, "img_shape=.* must be 2 integers"),
        ({"img_shape": (4, 0)}, "img_shape=.* at least 1"),
        ({"img_shape": (2.0, 2)}, "img_shape=.* must be 2 integers"),
        ({"img_shape": 2}, "img_shape=2 must be 2 integers"),
        ({"tile_shape": (0, 3)}, "tile_shape=.* at least 1"),
        ({"tile_shape": (2, 3, 1)}, "tile_shape=.* must be 2 integers"),
        ({"tile_spacing": (-1, 0)}, "tile_spacing=.* at least 0"),
        ({"tile_spacing": 1}, "tile_spacing=1 must be 2 integers"),
    ],
)
def test_bad_tiles(change, needed):
    good = {"X": GOOD, "img_shape": (2, 2), "tile_shape": (2, 3)}
    images.tile_raster_images(**good)
    with pytest.raises(ValueError, match=needed):
        images.tile_raster_images(**(good | change))


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"W": GOOD.T[0]}, r"W must be \(visible, hidden\)"),
        ({"W": GOOD}, "W must be .* with 4 visible for img_shape"),
        ({"W": GOOD.T * math.nan}, "W must be finite"),
        ({"W": GOOD.T * math.inf}, "W must be finite"),
        ({"img_shape": (2, 2, 2)}, "img_shape=.* 3 or 4 channels"),
        ({"img_shape": "22"}, "img_shape='22' must be 2 or 3 integers"),
        ({"tile_shape": (0, 1)}, "tile_shape=.* at least 1"),
        ({"tile_spacing": (1,)}, "tile_spacing=.* must be 2 integers"),
    ],
)
def test_bad_filters(change, needed):
    with pytest.raises(ValueError, match=needed):
        images.filters(**({"W": GOOD.T, "img_shape": (2, 2)} | change))


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"means": GOOD}, r"means must be \(rows, chains, visible\)"),
        ({"means": GOOD[None, :, :3]}, "means must be .* with 4 visible"),
        ({"means": GOOD[None] * math.nan}, "means must be finite"),
        ({"means": GOOD[None] * math.inf}, "means must be finite"),
        ({"means": GOOD[None] * 510}, r"means must lie in \[0, 1\] to be drawn, lies in \[255"),
        ({"means": GOOD[None] - 1}, r"means must lie in \[0, 1\]"),
        ({"img_shape": (2, 3)}, "means must be .* with 6 visible"),
        ({"tile_spacing": (-1, 1)}, "tile_spacing=.* at least 0"),
    ],
)
def test_bad_chains(change, needed):
    with pytest.raises(ValueError, match=needed):
        images.chains(**({"means": GOOD[None], "img_shape": (2, 2)} | change))


@pytest.mark.parametrize("name", ["x", "reconstructed"])
@pytest.mark.parametrize(
    ("value", "needed"),
    [
        (GOOD[0], "must be .images, visible."),
        (GOOD[:, :3], "must be .* with 4 visible"),
        (GOOD * math.nan, "must be finite"),
        (GOOD * -math.inf, "must be finite"),
        (GOOD * 3, r"must lie in \[0, 1\]"),
        (GOOD - 1, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_reconstructions(name, value, needed):
    good = {"x": GOOD, "reconstructed": GOOD, "img_shape": (2, 2)}
    with pytest.raises(ValueError, match=f"{name} {needed}"):
        images.reconstructions(**(good | {name: value}))


def test_bad_pair_of_reconstructions():
    with pytest.raises(ValueError, match=r"reconstructed must have x's shape \(6, 4\)"):
        images.reconstructions(GOOD, GOOD[:5], (2, 2))


@pytest.mark.parametrize(
    ("path", "array", "needed"),
    [
        ("p.jpg", np.zeros((2, 2), np.uint8), "path=.* must end in .png"),
        ("p", np.zeros((2, 2), np.uint8), "path=.* must end in .png"),
        ("p.png", np.zeros((2, 2)), "array must be uint8.* is float64"),
        ("p.png", np.full((2, 2), math.nan), "array must be uint8"),
        ("p.png", np.zeros(2, np.uint8), r"array must be \(height, width\).* is \(2,\)"),
        ("p.png", np.zeros((2, 2, 2), np.uint8), "array must be .height, width."),
        ("p.png", np.zeros((1, 2, 2, 3), np.uint8), "array must be .height, width."),
        ("p.png", np.zeros((0, 2), np.uint8), "array must be .height, width."),
    ],
)
def test_bad_save(tmp_path, path, array, needed):
    with pytest.raises(ValueError, match=needed):
        images.save(tmp_path / "new" / path, array)
    assert not os.listdir(tmp_path)
