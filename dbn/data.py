"""Data sets as arrays: by name, split in three, values in [0, 1].

`load` gets MNIST, Fashion-MNIST and every other small image set from TensorFlow Datasets (TFDS),
and scikit-learn's bundled digits from nowhere but the disk. `info` tells a set's picture shape and
number of classes, and `default_name` what to use where the user named nothing.
"""

from __future__ import annotations

import operator
import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from dbn import batches

_BLOCK = 1024  # cases handled at a time: large enough to be fast, small enough to be no memory


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        x: float32 array `(cases, pixels)`, values in [0, 1]; a picture is flattened row by row.
        y: int32 array `(cases,)`, the classes, counted from 0.
    """

    x: np.ndarray
    y: np.ndarray


class DataSet(NamedTuple):
    """A data set's three parts, in the order in which `train, valid, test = load(...)` unpacks.

    Attributes:
        train: the `Split` to learn from.
        valid: the `Split` to choose settings by, disjoint from `train`.
        test: the `Split` to look at once.
    """

    train: Split
    valid: Split
    test: Split


class Info(NamedTuple):
    """What the arrays of a data set do not say themselves.

    Attributes:
        name: the data set's name, as it was given.
        img_shape: a picture's (height, width), or (height, width, channels) for colour.
        num_classes: how many classes its labels tell apart.
    """

    name: str
    img_shape: tuple[int, ...]
    num_classes: int


def load(
    name: str,
    binarize: str | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> DataSet:
    """Loads a data set, and downloads it first where TFDS has not prepared it yet.

    The split is the Deep Learning Tutorials': the last sixth of the training part, in the order in
    which TFDS keeps it, is for validation. MNIST and Fashion-MNIST have 50,000, 10,000 and 10,000
    cases. The digits (8 x 8 pixels) have 1,197, 300 and 300, drawn once and for all.

    Args:
        name: "mnist", "fashion_mnist", or whatever else TFDS knows as an image classification set
            (features "image", of one size and 8 bits a value, and "label"; parts "train" and
            "test"); or "digits", scikit-learn's, which needs no download.
        binarize: None leaves the grey levels. "threshold" makes a pixel 1 where its value is above
            0.5, else 0. "stochastic" makes it 1 with its value as the probability; the bits are
            drawn once.
        seed: governs the stochastic bits, an integer from 0 to 2**64 - 1. The same seed gives the
            same bits, and each of the three parts draws its own.
        data_dir: the folder in which TFDS keeps its sets; else the environment variable
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Returns:
        A `DataSet`.

    Raises:
        ValueError: an unknown name, a set that is not one of pictures in classes, an unknown
            `binarize`, a seed out of range.
        FileNotFoundError: the set is not prepared, and could not be downloaded.
        OSError: the set is there and cannot be read.

    Example:
        >>> train, valid, test = load("digits", binarize="threshold")
        >>> train.x.shape, test.y.shape
        ((1197, 64), (300,))
    """
    if binarize not in (None, "threshold", "stochastic"):
        raise ValueError(f'binarize={binarize!r} must be None, "threshold" or "stochastic"')
    seed = _seed(seed)
    data = _digits() if name == "digits" else _tfds(name, data_dir)
    for stream, split in enumerate(data):
        _binarize(split.x, binarize, (seed, stream))
    return data


def info(name: str, data_dir: str | os.PathLike | None = None) -> Info:
    """Tells the picture shape and the number of classes of a data set; downloads nothing.

    Args:
        name: as for `load`.
        data_dir: as for `load`.

    Returns:
        An `Info`.

    Raises:
        ValueError: an unknown name, or a set that is not one of pictures in classes.
        OSError: the set is there and cannot be read.

    Example:
        >>> info("digits")
        Info(name='digits', img_shape=(8, 8), num_classes=10)
    """
    if name == "digits":
        return Info(name, (8, 8), 10)
    return _info(name, _builder(name, data_dir))


def default_name(data_dir: str | os.PathLike | None = None) -> tuple[str, str]:
    """Chooses the data set for a user who named none: MNIST where it can be had, else digits.

    MNIST is downloaded and prepared here, where it was not. One that is there but damaged is left
    for `load` to complain about: it is never passed over in silence.

    Args:
        data_dir: as for `load`.

    Returns:
        The name for `load`, and one line that tells the user what is used and why.
    """
    try:
        _prepare("mnist", _builder("mnist", data_dir))
    except FileNotFoundError as error:
        return "digits", f"No data set named: using scikit-learn's 8x8 digits, because {error}"
    return "mnist", "No data set named: using MNIST, from TensorFlow Datasets."


def _seed(seed) -> int:
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**64:
        raise ValueError(f"seed={seed!r} must be an integer from 0 to 2**64 - 1")
    return value


def _binarize(x: np.ndarray, how: str | None, key: tuple[int, int]) -> None:
    """Binarises x in place."""
    if how == "threshold":
        np.greater(x, 0.5, out=x)
    elif how == "stochastic":
        random = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
        for start in range(0, len(x), _BLOCK):
            block = x[start : start + _BLOCK]
            # u < x with u in [0, 1): a pixel of 0 never turns 1, a pixel of 1 always does.
            np.less(random.random(block.shape, np.float32), block, out=block)


def _digits() -> DataSet:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    # Of NumPy's generators only the legacy one promises the same permutation in every release.
    order = np.random.RandomState(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
    parts = slice(None, -600), slice(-600, -300), slice(-300, None)
    return DataSet(*(Split(x[part].copy(), y[part].copy()) for part in parts))


def _tfds(name: str, data_dir) -> DataSet:
    builder = _builder(name, data_dir)
    _info(name, builder)  # refuses what is no set of pictures before it is downloaded
    _prepare(name, builder)
    splits = builder.info.splits
    if splits and not {"train", "test"} <= set(splits):
        raise ValueError(f"name={name!r} needs the parts train and test, has {sorted(splits)}")
    try:
        last = splits["train"].num_examples
        first = last - last // 6
        parts = f"train[:{first}]", f"train[{first}:]", "test"
        return DataSet(*(_read(builder, part) for part in parts))
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow, TFDS and the file system each have errors of their own
        raise OSError(
            f"data set {name!r} in {builder.data_dir} cannot be read ({_reason(error)}). "
            "It may be half written or damaged: delete that folder, and load it again."
        ) from None


def _builder(name: str, data_dir):
    """The TFDS builder of a data set; it touches no network and writes nothing."""
    import tensorflow_datasets as tfds

    if not isinstance(name, str):
        raise ValueError(f"name={name!r} must be a data set's name, such as 'mnist'")
    # TFDS reads the variable once, on import; a notebook may set it later.
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    known = "known are digits, mnist, fashion_mnist and the other names of TensorFlow Datasets"
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(f"name={name!r} is an unknown data set; {known}") from None
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"name={name!r} is no data set ({_reason(error)}); {known}") from None
    except Exception as error:  # a damaged dataset_info.json
        raise OSError(
            f"data set {name!r} in {data_dir or '~/tensorflow_datasets'} cannot be read "
            f"({_reason(error)}). Delete its folder, and load it again."
        ) from None


def _info(name: str, builder) -> Info:
    import tensorflow_datasets as tfds

    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = features.get("image"), features.get("label")
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and None not in image.shape
        and isinstance(label, tfds.features.ClassLabel)
        and label.num_classes
    ):
        raise ValueError(
            f"name={name!r} must be a set of pictures in classes, with the features image (one "
            f"size, 8 bits a value) and label (a class), has image={image}, label={label}"
        )
    height, width, channels = image.shape
    return Info(
        name, (height, width) if channels == 1 else (height, width, channels), label.num_classes
    )


def _prepare(name: str, builder) -> None:
    """Downloads and prepares a data set that is not there; fails fast where there is no network."""
    if builder.data_path.exists():
        return
    error = _unreachable(builder.url_infos or ())
    if not error:
        try:
            # TFDS writes into a folder "incomplete.*" and renames it at the end.
            return builder.download_and_prepare()
        except Exception as raised:  # network, disk, checksum, a manual download, ...
            error = _reason(raised)
    raise FileNotFoundError(
        f"data set {name!r} is not in {builder.data_dir_root} and could not be "
        f"downloaded ({error}). Go online, or set TFDS_DATA_DIR to a folder with a prepared copy."
    )


def _unreachable(urls) -> str:
    """Why no source of a data set answers; empty if one does.

    Asked because TFDS itself retries for minutes, and warns at each try, before it gives up.
    """
    import requests

    hosts = {urlsplit(url).netloc: url for url in urls if url.startswith("http")}
    for url in hosts.values():
        try:
            # The very request that TFDS makes: it goes through the same proxies.
            with requests.get(url, stream=True, timeout=5) as response:
                if response.status_code < 500:
                    return ""
        except requests.RequestException:
            pass
    return f"no answer from {', '.join(hosts)}" if hosts else ""


def _read(builder, part: str) -> Split:
    import tensorflow_datasets as tfds

    cases = builder.info.splits[part].num_examples
    pixels = np.prod(builder.info.features["image"].shape)
    x, y = np.empty((cases, pixels), np.float32), np.empty(cases, np.int32)
    config = tfds.ReadConfig(
        try_autocache=False,
        interleave_cycle_length=1,  # file after file: the order of TFDS' slices
        num_parallel_calls_for_interleave_files=1,
        # Many small calls in flight spare the waking of threads: three times faster than AUTOTUNE.
        num_parallel_calls_for_decode=64,
    )
    data = builder.as_dataset(split=part, batch_size=_BLOCK, read_config=config)
    start = 0
    for batch in batches.untuned(data).as_numpy_iterator():
        rows = slice(start, start := start + len(batch["label"]))
        images = batch["image"].reshape(-1, pixels)
        np.divide(images, np.float32(255), out=x[rows])
        y[rows] = batch["label"]
    return Split(x, y)


def _reason(error: Exception) -> str:
    """An error in one line."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error)).strip()  # TensorFlow names its own nodes
    return f"{type(error).__name__}: {text.partition(chr(10))[0].strip()[:300]}"
