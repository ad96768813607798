"""Arrays to pictures: filters, chains and reconstructions as tiles, and PNG files.

Every function that draws returns a uint8 array `(height, width)`, or `(height, width, 4)` for
colour, which `save` writes and a notebook shows. `img_shape`, the shape of one tile, is (height,
width), or (height, width, channels) with 3 channels (red, green, blue) or 4 (and opacity).
"""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path

import numpy as np
from PIL import Image

_COLUMNS = 20  # of a grid of reconstructions


def tile_raster_images(
    X,
    img_shape: tuple[int, int],
    tile_shape: tuple[int, int],
    tile_spacing: tuple[int, int] = (0, 0),
    scale_rows_to_unit_interval: bool = True,
    output_pixel_vals: bool = True,
) -> np.ndarray:
    """Draws each row of an array as a tile of a grid, as in the Deep Learning Tutorials.

    The tiles fill the grid row by row. Images without a place are left out; places without an
    image, and the space between tiles, are 0.

    Args:
        X: array `(images, height * width)`. Or a tuple of four such arrays, the red, green, blue
            and opacity of the same images, of which some may be None: a colour that is None is 0
            everywhere, an opacity that is None is full.
        img_shape: (height, width) of a tile, in pixels.
        tile_shape: (rows, columns) of the grid, in tiles.
        tile_spacing: (rows, columns) between two tiles, in pixels.
        scale_rows_to_unit_interval: whether to stretch each tile, in each channel by itself, to
            [0, 1] (a tile of a single value becomes 0). Else the values are taken as they are.
        output_pixel_vals: whether to return grey levels from 0 to 255: the values times 255,
            rounded down. Else the values are returned as floats.

    Returns:
        Array `(H, W)`, or `(H, W, 4)` for a tuple, with
        `H = rows * (height + tile_spacing[0]) - tile_spacing[0]` and W likewise; uint8, or the
        float type of `X` (float32 if that is neither float32 nor float64).

    Raises:
        ValueError: an array of another rank or width, NaN or infinity, values outside [0, 1] where
            grey levels are wanted without stretching, a shape that is not a pair of integers.

    Example:
        >>> X = np.array([[0, 1], [6, 2]], "float32")
        >>> tile_raster_images(X, img_shape=(1, 2), tile_shape=(2, 1), tile_spacing=(1, 0))
        array([[  0, 255],
               [  0,   0],
               [255,   0]], dtype=uint8)
    """
    img_shape = _integers("img_shape", img_shape, 1)
    tile_shape = _integers("tile_shape", tile_shape, 1)
    tile_spacing = _integers("tile_spacing", tile_spacing, 0)

    def tile(name, x):
        x = _array(name, x, ("images", "pixels"), img_shape)[: math.prod(tile_shape)]
        if scale_rows_to_unit_interval:
            x = x - x.min(axis=1, keepdims=True)
            x *= 1.0 / (x.max(axis=1, keepdims=True) + 1e-8)  # the tutorial's guard against 0 / 0
        elif output_pixel_vals:
            _check_unit_interval(name, x)
        if output_pixel_vals:
            x = (255 * x).astype(np.uint8)
        (height, width), (rows, columns), (below, right) = img_shape, tile_shape, tile_spacing
        tiles = np.zeros((rows * columns, height + below, width + right), x.dtype)
        tiles[: len(x), :height, :width] = x.reshape(-1, height, width)
        grid = tiles.reshape(rows, columns, height + below, width + right).swapaxes(1, 2)
        grid = grid.reshape(rows * (height + below), columns * (width + right))
        return grid[: grid.shape[0] - below, : grid.shape[1] - right]

    if not isinstance(X, tuple):
        return tile("X", X)
    if len(X) != 4 or all(x is None for x in X):
        raise ValueError(
            f"X, as a tuple, must hold red, green, blue and opacity, not all None, has {len(X)}"
        )
    channels = [None if x is None else tile(f"X[{i}]", x) for i, x in enumerate(X)]
    given = [channel for channel in channels if channel is not None]
    picture = np.zeros((*given[0].shape, 4), np.result_type(*given))
    picture[..., 3] = 255 if output_pixel_vals else 1
    for i, channel in enumerate(channels):
        if channel is not None:
            picture[..., i] = channel
    return picture


def filters(
    W,
    img_shape: tuple[int, ...],
    tile_shape: tuple[int, int] | None = None,
    tile_spacing: tuple[int, int] = (1, 1),
) -> np.ndarray:
    """Draws the weights of each hidden unit as a tile, stretched to the full range of grey.

    Args:
        W: array `(visible, hidden)`, the weights of an RBM.
        img_shape: the shape of a visible picture.
        tile_shape: (rows, columns) of the grid; a near square for all hidden units by default.
        tile_spacing: (rows, columns) between two tiles, in pixels.

    Returns:
        The picture, uint8.

    Raises:
        ValueError: another rank, a number of rows that does not fit `img_shape`, NaN or infinity.

    Example:
        >>> filters(np.eye(4), img_shape=(2, 2)).shape
        (5, 5)
    """
    W = _array("W", W, ("visible", "hidden"), img_shape, pixel_axis=0)
    if tile_shape is None:
        rows = math.isqrt(W.shape[1])
        tile_shape = rows, math.ceil(W.shape[1] / rows)
    return _draw(W.T, img_shape, tile_shape, tile_spacing, stretch=True)


def chains(means, img_shape: tuple[int, ...], tile_spacing: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Draws Gibbs chains side by side, each running downwards.

    The values are drawn as they are, 0 black and 1 white, so that tiles can be compared.

    Args:
        means: array `(rows, chains, visible)`, values in [0, 1]: the means of every chain's visible
            units, a row of tiles each time.
        img_shape: the shape of a visible picture.
        tile_spacing: (rows, columns) between two tiles, in pixels.

    Returns:
        The picture, uint8, with `rows` by `chains` tiles.

    Raises:
        ValueError: another rank or width, values outside [0, 1], NaN or infinity.

    Example:
        >>> chains(np.full((10, 20, 64), 0.5), img_shape=(8, 8)).shape
        (89, 179)
    """
    means = _array("means", means, ("rows", "chains", "visible"), img_shape)
    _check_unit_interval("means", means)
    tile_shape = means.shape[:2]
    return _draw(means.reshape(-1, means.shape[2]), img_shape, tile_shape, tile_spacing)


def reconstructions(
    x, reconstructed, img_shape: tuple[int, ...], tile_spacing: tuple[int, int] = (1, 1)
) -> np.ndarray:
    """Draws pictures in a row, and what became of each below it; 20 a row, then the next two rows.

    The values are drawn as they are, 0 black and 1 white.

    Args:
        x: array `(images, visible)`, values in [0, 1].
        reconstructed: array of the same shape, values in [0, 1].
        img_shape: the shape of a visible picture.
        tile_spacing: (rows, columns) between two tiles, in pixels.

    Returns:
        The picture, uint8.

    Raises:
        ValueError: another rank or width, two different shapes, values outside [0, 1], NaN or
            infinity.

    Example:
        >>> x = np.eye(5, 4)
        >>> reconstructions(x, 1 - x, img_shape=(2, 2)).shape
        (5, 14)
    """
    pair = []
    for name, value in (("x", x), ("reconstructed", reconstructed)):
        pair.append(_array(name, value, ("images", "visible"), img_shape))
        _check_unit_interval(name, pair[-1])
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"reconstructed must have x's shape {pair[0].shape}, has {pair[1].shape}")
    images, visible = pair[0].shape
    columns = min(images, _COLUMNS)
    blocks = math.ceil(images / columns)
    rows = np.zeros((2, blocks * columns, visible), np.result_type(*pair))
    rows[:, :images] = pair
    rows = rows.reshape(2, blocks, columns, visible).swapaxes(0, 1)
    return _draw(rows.reshape(-1, visible), img_shape, (2 * blocks, columns), tile_spacing)


def save(path: str | os.PathLike, array) -> None:
    """Writes a picture to a PNG file, whole or not at all; makes its folder where there is none.

    Args:
        path: the file; its name ends in ".png".
        array: uint8 array `(height, width)`, `(height, width, 3)` or `(height, width, 4)`.

    Raises:
        ValueError: another file type, data type or shape.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/white.png", np.full((28, 28), 255, "uint8"))
    """
    path, array = Path(path), np.asarray(array)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path={str(path)!r} must end in .png")
    if array.dtype != np.uint8:
        raise ValueError(f"array must be uint8, grey levels from 0 to 255, is {array.dtype}")
    if 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)) or array.ndim < 2:
        raise ValueError(
            f"array must be (height, width), with 3 or 4 channels for colour, is {array.shape}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(array).save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _draw(x, img_shape, tile_shape, tile_spacing, stretch=False) -> np.ndarray:
    """`tile_raster_images` of checked images that may have colours."""
    height, width, *colours = img_shape
    if colours:
        channels = np.moveaxis(x.reshape(len(x), height * width, colours[0]), 2, 0)
        x = (*channels, None)[:4]
    return tile_raster_images(x, (height, width), tile_shape, tile_spacing, stretch)


def _integers(name: str, value, least: int, lengths: tuple[int, ...] = (2,)) -> tuple[int, ...]:
    try:
        integers = tuple(operator.index(i) for i in value)
    except TypeError:
        integers = ()
    if len(integers) not in lengths or min(integers) < least:
        raise ValueError(
            f"{name}={value!r} must be {' or '.join(map(str, lengths))} integers, at least {least}"
        )
    return integers


def _array(name: str, value, axes: tuple[str, ...], img_shape, pixel_axis: int = -1) -> np.ndarray:
    """A float array of finite numbers, with the rank of `axes`, that holds such pictures."""
    img_shape = _integers("img_shape", img_shape, 1, lengths=(2, 3))
    if img_shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"img_shape={img_shape} must have 3 or 4 channels, if any")
    try:
        array = np.asarray(value)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers ({error})") from None
    if array.ndim != len(axes) or not array.size:
        raise ValueError(f"{name} must be ({', '.join(axes)}), not empty, has shape {array.shape}")
    if array.shape[pixel_axis] != math.prod(img_shape):
        raise ValueError(
            f"{name} must be ({', '.join(axes)}) with {math.prod(img_shape)} {axes[pixel_axis]} "
            f"for img_shape={img_shape}, has shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, has NaN or infinity")
    return array


def _check_unit_interval(name: str, array: np.ndarray) -> None:
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        raise ValueError(f"{name} must lie in [0, 1] to be drawn, lies in [{low:g}, {high:g}]")
