import os
import shutil
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from dbn import data

SHARED = Path(__file__).parents[2].parent / "shared"
FIRST_20 = SHARED / "data/mnist_first_20_training_images.npz"
MNIST_DIR = next(
    (
        Path(folder)
        for folder in (
            os.environ.get("TFDS_DATA_DIR", ""),
            os.path.expanduser("~/tensorflow_datasets"),
            SHARED / "tensorflow_datasets",
        )
        if (Path(folder) / "mnist/3.0.1").is_dir()
    ),
    None,
)
needs_mnist = pytest.mark.skipif(MNIST_DIR is None, reason="no MNIST prepared in TFDS_DATA_DIR")


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """A set that needs no download: picture i is grey level i everywhere, of class i modulo 3."""

    VERSION = tfds.core.Version("1.0.0")
    PARTS = {"train": range(120), "test": range(120, 150)}
    SHAPE = (4, 3, 1)
    FAIL = False

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(levels) for part, levels in self.PARTS.items()}

    def _generate_examples(self, levels):
        for i in levels:
            if self.FAIL and i == 130:
                raise ConnectionResetError("cut off in the middle")
            yield i, {"image": self._picture(i), "label": i % 3}

    def _picture(self, i):
        return np.full(self.SHAPE, i, np.uint8)


class TinyColours(TinyPictures):
    SHAPE = (2, 2, 3)

    def _picture(self, i):
        return np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + i


class TinyGrey(TinyPictures):
    def _picture(self, i):
        return np.full(self.SHAPE, 51, np.uint8)  # 51 / 255 = 0.2


class TinyWithoutTest(TinyPictures):
    PARTS = {"train": range(12)}


class TinyOfAnySize(TinyPictures):
    SHAPE = (None, None, 1)


class TinySixteenBit(TinyPictures):
    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE, dtype=np.uint16, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))


class TinyWithoutLabel(TinyPictures):
    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=self.SHAPE)})
        return self.dataset_info_from_configs(features=features)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no test uses the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def mnist():
    return data.load("mnist", data_dir=MNIST_DIR)


@pytest.fixture
def mnist_copy(tmp_path):
    folder = tmp_path / "mnist/3.0.1"
    shutil.copytree(MNIST_DIR / "mnist/3.0.1", folder, copy_function=shutil.copyfile)
    os.chmod(folder, 0o755)
    return folder


def check_form(dataset, cases, pixels):
    for split, n in zip(dataset, cases, strict=True):
        assert split.x.shape == (n, pixels) and split.x.dtype == np.float32
        assert split.y.shape == (n,) and split.y.dtype == np.int32


def rows(x):
    return sorted(map(bytes, np.ascontiguousarray(x)))


# The embedded digits.


def test_digits_are_scikit_learns_split_in_three():
    train, valid, test = dataset = data.load("digits")
    check_form(dataset, (1197, 300, 300), 64)
    x, y = load_digits(return_X_y=True)
    both = np.column_stack((x, y)).astype(np.uint8)
    ours = np.concatenate([np.column_stack((s.x * 16, s.y)) for s in dataset])
    assert np.array_equal(ours, np.rint(ours))
    assert rows(ours.astype(np.uint8)) == rows(both)
    assert np.array_equal(train.x, data.load("digits").train.x)
    # As scikit-learn's own examples print them for train_test_split(..., random_state=0).
    assert train.y[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert all(len(np.unique(split.y)) == 10 for split in dataset)


def test_digits_need_no_tfds(monkeypatch):
    monkeypatch.setattr(data, "_builder", None)
    assert len(data.load("digits").test.y) == 300
    assert data.info("digits") == ("digits", (8, 8), 10)


# Binarisation.


def test_threshold_is_above_a_half():
    grey, bits = data.load("digits"), data.load("digits", binarize="threshold")
    for g, b in zip(grey, bits, strict=True):
        levels = np.rint(g.x * 16).astype(int)
        assert np.array_equal(b.x, levels >= 9) and b.x.dtype == np.float32
        assert (b.x[levels == 8] == 0).all() and (levels == 8).any()
        assert np.array_equal(b.y, g.y)


def test_stochastic_bits_have_the_grey_levels_as_means():
    grey = data.load("digits").train.x
    bits = data.load("digits", binarize="stochastic", seed=3).train.x
    assert set(np.unique(bits)) == {0, 1} and bits.dtype == np.float32
    assert not bits[grey == 0].any() and bits[grey == 1].all()
    for level in range(1, 16):
        chosen = bits[grey == level / 16]
        error = np.sqrt(level / 16 * (1 - level / 16) / chosen.size)
        assert abs(chosen.mean() - level / 16) < 4 * error
    # Pixel by pixel: squared z-scores of the column sums, of mean 1 and variance about 2 each.
    variance = (grey * (1 - grey)).sum(0)
    z2 = ((bits - grey).sum(0) ** 2)[variance > 20] / variance[variance > 20]
    assert abs(z2.mean() - 1) < 4 * np.sqrt(2 / z2.size)


def test_stochastic_bits_are_one_philox_stream_a_part():
    grey = data.load("digits")
    bits = data.load("digits", binarize="stochastic", seed=2**64 - 1)
    for i, (g, b) in enumerate(zip(grey, bits, strict=True)):
        philox = np.random.Philox(key=np.array([2**64 - 1, i], dtype=np.uint64))
        uniform = np.random.Generator(philox).random(g.x.shape, np.float32)
        assert np.array_equal(b.x, uniform < g.x)


def test_stochastic_bits_depend_on_seed_and_part(tmp_path):
    first = data.load("tiny_grey", "stochastic", 0, tmp_path)
    again = data.load("tiny_grey", "stochastic", 0, tmp_path)
    other = data.load("tiny_grey", "stochastic", 1, tmp_path)
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a.x, b.x) and not np.array_equal(a.x, c.x)
    valid, test = first.valid.x[:20], first.test.x[:20]
    # All pictures are alike (0.2 everywhere): independent bits differ with probability 0.32.
    for x in (valid, first.train.x[1:21]):
        for y in (test, first.train.x[:20], other.valid.x):
            assert abs((x != y).mean() - 0.32) < 4 * np.sqrt(0.32 * 0.68 / x.size)


# TensorFlow Datasets.


def test_any_set_keeps_tfds_order_and_its_last_sixth_for_validation(tmp_path):
    config = tfds.download.DownloadConfig(num_shards=2)
    builder = tfds.builder("tiny_pictures", data_dir=tmp_path)
    builder.download_and_prepare(download_config=config)
    train, valid, test = dataset = data.load("tiny_pictures", data_dir=tmp_path)
    check_form(dataset, (100, 20, 30), 12)
    levels = np.rint(np.concatenate([s.x for s in dataset])[:, 0] * 255).astype(int)
    assert np.array_equal(np.concatenate([s.x for s in dataset]) * 255, [[i] * 12 for i in levels])
    assert np.array_equal(np.concatenate([s.y for s in dataset]), levels % 3)
    assert sorted(levels[:120]) == list(range(120))
    assert sorted(levels[120:]) == list(range(120, 150))
    # No slice crosses from one file to the next, so each comes in the order of its file.
    slices = [f"train[{i}:{i + 15}]" for i in range(0, 120, 15)]
    batches = tfds.load("tiny_pictures", split=slices, batch_size=-1, data_dir=tmp_path)
    order = np.concatenate([b["image"].numpy()[:, 0, 0, 0] for b in batches])
    assert np.array_equal(levels[:120], order)


def test_info(tmp_path):
    assert data.info("tiny_pictures", tmp_path) == ("tiny_pictures", (4, 3), 3)
    assert data.info("tiny_colours", tmp_path) == ("tiny_colours", (2, 2, 3), 3)
    assert data.info("mnist", tmp_path) == ("mnist", (28, 28), 10)
    assert data.info("fashion_mnist", tmp_path).img_shape == (28, 28)
    assert not os.listdir(tmp_path)


def test_colours_are_flattened_channel_last(tmp_path):
    test = data.load("tiny_colours", data_dir=tmp_path).test
    assert np.array_equal(np.diff(np.rint(test.x * 255)), np.ones((30, 11)))


def test_tfds_data_dir_is_read_when_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    data.load("tiny_pictures")
    assert (tmp_path / "tiny_pictures/1.0.0/dataset_info.json").exists()


@needs_mnist
def test_mnist_is_the_official_one(mnist):
    train, valid, test = mnist
    check_form(mnist, (50_000, 10_000, 10_000), 784)
    assert all((split.x.min(), split.x.max()) == (0, 1) for split in mnist)
    grey = train.x[:1000] * 255
    assert np.abs(grey - np.rint(grey)).max() < 1e-4 and len(np.unique(np.rint(grey))) == 256
    # Counts from the official label files.
    official_test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    official_train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.y).tolist() == official_test
    assert (np.bincount(train.y) + np.bincount(valid.y)).tolist() == official_train


@needs_mnist
@pytest.mark.skipif(not FIRST_20.exists(), reason=f"no {FIRST_20}")
def test_mnist_holds_the_first_official_images(mnist):
    images = np.concatenate([np.rint(s.x * 255).astype(np.uint8) for s in mnist[:2]])
    labels = np.concatenate([s.y for s in mnist[:2]])
    where = {image.tobytes(): i for i, image in enumerate(images)}
    found = [where[image.tobytes()] for image in np.load(FIRST_20)["images"]]
    # The first 20 labels of the official file, as everyone has seen them printed.
    assert labels[found].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9]


@needs_mnist
def test_mnist_is_in_tfds_order(mnist):
    last = tfds.load("mnist", split="train[49990:50010]", batch_size=-1, data_dir=MNIST_DIR)
    ours = np.concatenate((mnist.train.x[-10:], mnist.valid.x[:10]))
    assert np.allclose(ours * 255, last["image"].numpy().reshape(20, 784), atol=1e-4)
    assert np.concatenate((mnist.train.y[-10:], mnist.valid.y[:10])).tolist() == list(last["label"])


@needs_mnist
def test_mnist_is_the_default_where_it_is_prepared():
    name, reason = data.default_name(MNIST_DIR)
    assert name == "mnist" and "MNIST" in reason and "\n" not in reason


# What cannot be had.


def test_offline_default_is_digits_and_says_why(tmp_path):
    name, reason = data.default_name(tmp_path)
    assert name == "digits"
    assert "digits" in reason and "mnist" in reason and str(tmp_path) in reason
    assert "storage.googleapis.com" in reason and "\n" not in reason
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_named_set_is_never_replaced(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", None)
    with pytest.raises(FileNotFoundError) as raised:
        data.load(name, data_dir=tmp_path)
    message = str(raised.value)
    assert all(part in message for part in (repr(name), str(tmp_path), "TFDS_DATA_DIR"))
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("status", "tried"), [(200, True), (403, True), (404, True), (500, False), (503, False)]
)
def test_download_is_tried_only_where_the_source_answers(tmp_path, monkeypatch, status, tried):
    asked, called = [], []
    response = requests.Response()
    response.status_code = status
    response.raw = open(os.devnull, "rb")  # noqa: SIM115 (closed with the response)

    def get(url, stream, timeout):
        asked.append((url.split("/")[2], stream, timeout <= 10))
        return response

    def download(builder):
        called.append(builder.name)
        raise requests.ConnectionError("torn\nand a long story")

    monkeypatch.setattr(requests, "get", get)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(FileNotFoundError, match="torn[)]" if tried else "no answer from"):
        data.load("mnist", data_dir=tmp_path)
    assert asked == [("storage.googleapis.com", True, True)]
    assert called == ["mnist"] * tried


def test_a_failed_preparation_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyPictures, "FAIL", True)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="cut off in the middle"):
            data.load("tiny_pictures", data_dir=tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord*"))
    monkeypatch.setattr(TinyPictures, "FAIL", False)
    assert len(data.load("tiny_pictures", data_dir=tmp_path).train.y) == 100


def cut(folder):
    os.truncate(next(folder.glob("*train.tfrecord*")), 10_000_000)


def cut_between_records(folder):
    file = next(folder.glob("*test.tfrecord*"))
    content, end = file.read_bytes(), 0
    for _ in range(9_999):
        end += struct.unpack("<Q", content[end : end + 8])[0] + 16
    os.truncate(file, end)


def overwrite_bytes(folder):
    with open(next(folder.glob("*train.tfrecord*")), "r+b") as file:
        file.seek(5_000_000)
        file.write(b"damage")


def remove_records(folder):
    next(folder.glob("*test.tfrecord*")).unlink()


def remove_info(folder):
    (folder / "dataset_info.json").unlink()


def cut_info(folder):
    os.truncate(folder / "dataset_info.json", 500)


def remove_all(folder):
    for file in folder.iterdir():
        file.unlink()


@needs_mnist
@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_between_records,
        overwrite_bytes,
        remove_records,
        remove_info,
        cut_info,
        remove_all,
    ],
)
def test_a_damaged_set_is_named(mnist_copy, damage):
    damage(mnist_copy)
    with pytest.raises(OSError, match="'mnist' in .* cannot be read") as raised:
        data.load("mnist", data_dir=mnist_copy.parents[1])
    message = str(raised.value)
    assert str(mnist_copy.parents[1]) in message and "\n" not in message and "{{" not in message
    assert not isinstance(raised.value, FileNotFoundError)


@needs_mnist
def test_a_damaged_default_is_not_passed_over(mnist_copy):
    cut_info(mnist_copy)
    with pytest.raises(OSError, match="cannot be read"):
        data.default_name(mnist_copy.parents[1])


# Bad input.


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("no_such_set", "unknown data set; known are digits, mnist, fashion_mnist"),
        ("mnist/no_such_config", "known are digits"),
        ("mnist:0.0.1", "known are digits"),
        ("../mnist", "known are digits"),
        ("", "known are digits"),
        (None, "must be a data set's name"),
        (28, "must be a data set's name"),
        ("glue", "has image=None"),
        ("tiny_of_any_size", "one size"),
        ("tiny_sixteen_bit", "8 bits"),
        ("tiny_without_label", "label=None"),
        ("tiny_without_test", r"needs the parts train and test, has \['train'\]"),
    ],
)
def test_bad_names(tmp_path, name, needed):
    with pytest.raises(ValueError, match=needed) as raised:
        data.load(name, data_dir=tmp_path)
    assert f"name={name!r}" in str(raised.value) and len(str(raised.value)) < 600
    assert name == "tiny_without_test" or not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["no_such_set", "tiny_without_label", None])
def test_bad_names_of_info(tmp_path, name):
    with pytest.raises(ValueError, match=f"name={name!r}"):
        data.info(name, tmp_path)


@pytest.mark.parametrize("binarize", ["Threshold", "", True, 0.5])
def test_bad_binarize(binarize):
    with pytest.raises(ValueError, match='binarize=.* must be None, "threshold" or "stochastic"'):
        data.load("digits", binarize)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None, "1"])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="seed=.* must be an integer from 0"):
        data.load("digits", "stochastic", seed)
