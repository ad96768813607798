import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dbn import distribution

PROGRAM = Path(__file__).with_name("replicas_program.py")
EPOCHS = 8


def free_port():
    """A port such that it and the next one are free."""
    for port in range(20000 + os.getpid() % 10000, 60000, 2):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("localhost", port))
                two.bind(("localhost", port + 1))
            except OSError:
                continue
            return port
    raise OSError("No two ports are free.")


def start(folder, port, index, everything=True):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, PROGRAM, folder, *map(str, (port, index, EPOCHS, int(everything)))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, seconds=300):
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def pair(folder, everything=True):
    port = free_port()
    return [start(folder, port, index, everything) for index in (0, 1)]


def weights(folder, index):
    with np.load(folder / f"weights_{index}.npz") as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of two machines that came to the end without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    for code, errors in map(end, pair(folder)):
        assert code == 0, errors[-3000:]
    return folder


def test_two_machines_learn_what_one_learns(whole, tmp_path):
    """An RBM, a stack, a classifier."""
    code, errors = end(start(tmp_path, 0, -1))
    assert code == 0, errors[-3000:]
    one, other, alone = weights(whole, 0), weights(whole, 1), weights(tmp_path, -1)
    assert one.keys() == other.keys() == alone.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
        np.testing.assert_allclose(value, alone[name], rtol=0, atol=1e-6)


def test_a_lost_machine_ends_the_group_and_a_new_group_goes_on(whole, tmp_path):
    """With a message; and the end has the same bits."""
    group = pair(tmp_path, everything=False)
    going = tmp_path / "going_0"
    while not (going.exists() and (tmp_path / "going_1").exists()):
        assert all(process.poll() is None for process in group)
        time.sleep(0.01)
    group[1].send_signal(signal.SIGKILL)
    code, errors = end(group[0], seconds=60)
    assert code == 1
    assert "Another machine of the group has ended or cannot be reached" in errors
    group[1].communicate()
    for code, errors in map(end, pair(tmp_path, everything=False)):
        assert code == 0, errors[-3000:]
    found = weights(tmp_path, 0)
    assert len(found) > 5
    for name, value in found.items():
        np.testing.assert_array_equal(value, weights(whole, 0)[name])


WORKERS = ["localhost:1", "localhost:2"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "`TF_CONFIG` is not set"),
        ("{'cluster': 1}", "`TF_CONFIG` is no JSON: .*; got"),
        ('["cluster"]', "`TF_CONFIG` must be an object with"),
        ({"cluster": {"worker": ["a:1", "b:1", "a:1"]}, "task": {}}, "names 'a:1' twice"),
        ({"cluster": {"chief": ["a:1"], "worker": ["a:1"]}, "task": {}}, "names 'a:1' twice"),
        (
            {"cluster": {"ps": ["a:1"], "worker": ["b:1"]}},
            'must list the addresses of jobs "worker"',
        ),
        ({"cluster": {"worker": []}}, 'must list the addresses of jobs "worker"'),
        ({"cluster": {"worker": WORKERS}}, "the task None, which is none of its cluster"),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 2}},
            "the task .*'index': 2.*, which is none of its cluster",
        ),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "chief", "index": 0}},
            "which is none of its cluster",
        ),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(config, message, monkeypatch):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        distribution.multi_worker()


def test_the_cluster_of_a_resolver_is_looked_at_too():
    spec = tf.train.ClusterSpec({"worker": ["a:1", "a:1"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec)
    with pytest.raises(ValueError, match="names 'a:1' twice"):
        distribution.multi_worker(resolver)


@pytest.mark.parametrize(
    ("jobs", "task", "chief"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
    ],
)
def test_the_first_machine_writes(jobs, task, chief):
    class Strategy:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=task[0], task_id=task[1]
        )

    assert distribution.is_chief(Strategy()) is chief
    assert distribution.is_chief(tf.distribute.get_strategy())
