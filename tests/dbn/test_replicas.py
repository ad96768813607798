import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import tensorflow as tf

from dbn import replicas

PROGRAM = Path(__file__).with_name("replicas_program.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a program with two logical devices found."""
    folder = tmp_path_factory.mktemp("replicas")
    run = subprocess.run(
        [sys.executable, PROGRAM, folder], capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("training", ["cd", "pcd", "fast", "tempering"])
def test_two_devices_learn_what_one_learns(found, training):
    """All weights: parameters, chains, offsets, activities, fast weights, swap rates."""
    assert found[training]["weights"] < 1e-6
    assert found[training]["history"] < 1e-5
    assert found[training]["learnt"] > 0.01


def test_two_devices_pretrain_and_fine_tune_as_one(found):
    assert found["stack"]["weights"] < 1e-6
    assert found["stack"]["classifier"] < 1e-6


def test_a_checkpoint_of_two_devices_goes_on_on_one(found):
    assert found["moved"] < 1e-6


def test_what_replicas_cannot_share_equally_is_refused(found):
    expected = [
        "`optimizer` was made outside the scope of a distribution strategy",
        "`batch_size` is 15 for all 2 replicas together, and must be a multiple of 2",
        "`x` has 1 cases, fewer than the 2 replicas",
        "`chains` is 5 for all 2 replicas together, and must be a multiple of 2",
        "`the size of a batch of x` is 15 for all 2 replicas",
        "`the number of cases of x` is 69 for all 2 replicas",
    ]
    for message, beginning in zip(found["refusals"], expected, strict=True):
        assert message is not None and message.startswith(beginning), (message, beginning)


@pytest.mark.parametrize("cases", [0, 1, 7, 8])
def test_shares_are_the_whole_in_order(cases):
    """Three replicas, of which each but the last ones has equally many cases."""
    shares = [own_share(cases, i, 3) for i in range(3)]
    assert [int(share.cases) for share in shares] == [cases] * 3
    rows = [share.rows.numpy().tolist() for share in shares]
    assert sum(rows, []) == list(range(cases))
    assert [len(part) for part in rows] == {
        0: [0, 0, 0],
        1: [1, 0, 0],
        7: [3, 3, 1],
        8: [3, 3, 2],
    }[cases]


def own_share(cases, index, count):
    context = SimpleNamespace(num_replicas_in_sync=count, replica_id_in_sync_group=index)
    with patch.object(tf.distribute, "get_replica_context", lambda: context):
        return replicas.Share.own(tf.zeros((cases, 2)))
