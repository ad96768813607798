"""The files of shards: what is written, whole or not at all, and which files are refused."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dbn import shard_files, shards
from dbn.shards import Shards

X = np.random.default_rng(0).random((22, 6), dtype=np.float32)


def read(data):
    return np.concatenate([np.array(v) for v in data.batches(5, shuffle=False)])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int64", "bool"])
@pytest.mark.parametrize(
    "given",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: (x[at : at + 5] for at in range(0, 22, 5)),
        lambda x: [x[:1], x[1:1], x[1:20], x[20:]],
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(4),
    ],
    ids=["array", "list", "generator", "uneven", "Dataset"],
)
def test_shards_are_plain_files_of_so_many_cases(dtype, given, tmp_path):
    x = (10 * X).astype(dtype)
    data = shards.write(tmp_path / "new" / "data", given(x), rows_per_shard=8)
    assert [path.name for path in data.files] == [f"shard_00000{n}.npy" for n in range(3)]
    parts = [np.load(path) for path in data.files]
    assert [len(part) for part in parts] == [8, 8, 6]
    assert {part.dtype for part in parts} == {np.dtype(dtype)} == {data.dtype}
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert (len(data), data.width) == (22, 6)
    assert repr(data) == "<Shards: 3 files, 22 cases of width 6>"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["data"]


def test_a_shard_is_64_mib_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "_SHARD", 200)
    data = shards.write(tmp_path / "data", X)
    assert [len(np.load(path)) for path in data.files] == [8, 8, 6]  # 24 bytes a case.


def test_files_of_anybody_in_the_order_of_the_list(tmp_path):
    np.save(tmp_path / "a.npy", X[15:])
    np.save(tmp_path / "b.npy", X[:15])
    with open(tmp_path / "c.npy", "wb") as file:
        np.lib.format.write_array(file, X[:3], version=(2, 0))
    paths = [str(tmp_path / name) for name in ("b.npy", "a.npy", "c.npy")]
    found = read(Shards(paths))
    np.testing.assert_array_equal(found, np.concatenate([X, X[:3]]))
    names = [path.name for path in Shards(tmp_path).files]
    assert names == ["a.npy", "b.npy", "c.npy"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (X[0], r"`arrays` must be of shape \(cases, width\); got one of shape \(6,\)"),
        ([X, X[:, :5]], "same width and dtype; got 6 and float32, then 5 and float32"),
        ([X, X.astype("float64")], "same width and dtype; got 6 and float32, then 6 and float64"),
        ([X, X[:, :0]], r"got one of shape \(22, 0\)"),
        ([], "`arrays` is empty"),
        (X[:0], "`arrays` is empty"),
        (X.astype(object), r"`arrays` must hold numbers .*; got dtype '\|O'"),
        (X.astype(">f4"), "this machine's byte order; got dtype '>f4'"),
        (X.astype("complex64"), "`arrays` must hold numbers"),
        (X.astype(str), "`arrays` must hold numbers"),
    ],
)
def test_arrays_that_write_refuses_leave_nothing(arrays, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        shards.write(tmp_path / "data", arrays, rows_per_shard=3)
    assert not any(tmp_path.iterdir())


def test_write_overwrites_nothing(tmp_path):
    shards.write(tmp_path / "data", X)
    (tmp_path / "file").write_text("a file")
    for name in ("data", "file", "."):
        with pytest.raises(ValueError, match="`folder` must be new or empty: .* nothing is over"):
            shards.write(tmp_path / name, X[:3])
    for name, rows in (("data.part", 3), ("new", 0)):
        with pytest.raises(ValueError, match="`folder` must not end in .part|`rows_per_shard` mu"):
            shards.write(tmp_path / name, X, rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file"]
    np.testing.assert_array_equal(read(Shards(tmp_path / "data")), X)


def test_a_write_that_was_killed_is_no_folder_of_shards_and_in_nobodys_way(tmp_path):
    part = tmp_path / "data.part"
    part.mkdir()
    for number in range(5):
        np.save(part / f"shard_00000{number}.npy", X)
    data = shards.write(tmp_path / "data", X, rows_per_shard=20)
    assert len(data) == 22 and not part.exists()
    other = tmp_path / "other.part"
    other.mkdir()
    (other / "mine.npy").write_text("somebody's")
    with pytest.raises(OSError, match="shards .*other could not be written: .*not empty"):
        shards.write(tmp_path / "other", X)
    assert (other / "mine.npy").read_text() == "somebody's"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only(number, tmp_path, monkeypatch):
    real, left = Path.open, iter(range(2 if number == errno.ENOSPC else 0))

    def failing(self, mode="r", *arguments):
        if "w" in mode and next(left, None) is None:
            raise OSError(number, os.strerror(number))
        return real(self, mode, *arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(Path, "open", failing)
        shards.write(tmp_path / "data", X, rows_per_shard=3)
    assert caught.value.errno == number
    assert f"The shards {tmp_path}/data could not be written: " in str(caught.value)
    assert not any(tmp_path.iterdir())


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def grown(path):
    path.write_bytes(path.read_bytes() + b"0")


def saved(array, **kwargs):
    return lambda path: np.save(path, array, **kwargs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "b.npy is cut off, or damaged: it has 655 bytes, and its header announces 656"),
        (grown, "b.npy is cut off, or damaged: it has 657 bytes"),
        (lambda path: path.write_bytes(b""), "b.npy is damaged, or no .npy file"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x09\x00" + 99 * b" "), "b.npy is damaged, or"),
        (lambda path: path.write_text("v1,v2\n0,1\n"), "b.npy is damaged, or no .npy file"),
        (lambda path: path.unlink() or path.mkdir(), "b.npy cannot be read: Is a directory"),
        (saved(X[:, :5]), "a.npy has 6 and float32, .*b.npy 5 and float32"),
        (saved(X.astype("float64")), "a.npy has 6 and float32, .*b.npy 6 and float64"),
        (saved(np.asfortranarray(X)), "b.npy is in Fortran order"),
        (saved(X.astype(object), allow_pickle=True), r"b.npy must hold numbers.*dtype '\|O'"),
        (saved(X.astype(">f4")), "b.npy must hold numbers.*byte order; got dtype '>f4'"),
        (saved(X.astype("longdouble")), "b.npy must hold numbers of at most 64 bits"),
        (saved(X[0]), r"b.npy must hold an array \(cases, width\); it has shape \(6,\)"),
        (saved(X[:0]), r"b.npy must hold an array .*; it has shape \(0, 6\)"),
    ],
)
def test_files_that_are_refused(spoil, message, tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X)
    spoil(tmp_path / "b.npy")
    for given in (tmp_path, [tmp_path / "a.npy", tmp_path / "b.npy"]):
        with pytest.raises(ValueError, match=message):
            Shards(given)


def test_nothing_is_unpickled(tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    np.save(tmp_path / "a.npy", np.array([[Harm()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy must hold numbers"):
        Shards(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing", "missing is no folder"),
        (".", "holds no .npy file"),
        ([], r"must be a folder or a list of files; got \[\]"),
        (3, "must be a folder or a list of files; got 3"),
        (["missing.npy"], "missing.npy cannot be read: No such file"),
    ],
)
def test_places_that_are_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        Shards(given)
