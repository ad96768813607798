import itertools
import json

import keras
import numpy as np
import pytest


@pytest.mark.slow
def test_bars_and_stripes_are_learnt(tmp_path, run_recipe):
    arguments = ("--tasks", "bars-and-stripes", "--data-set", "digits")
    done = run_recipe("exact_likelihood.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/exact_likelihood_digits"
    found = json.loads((folder / "metrics.json").read_text())["bars-and-stripes"]["log_likelihood"]
    assert -np.log(30) - 0.05 < found < -np.log(30)
    # Second implementation: all 2^16 visible states, one hidden unit summed out after the other.
    layer = keras.saving.load_model(folder / "bars-and-stripes.keras").layer
    W, hbias, vbias = (np.float64(w) for w in (layer.W, layer.hbias, layer.vbias))
    v = np.array(list(itertools.product([0.0, 1.0], repeat=16)))
    log_p = v @ vbias + np.logaddexp(0, v @ W + hbias).sum(1)
    log_p -= np.logaddexp.reduce(log_p)
    pictures = v.reshape(-1, 4, 4)
    bars = (pictures == pictures[:, :, :1]).all((1, 2)) | (pictures == pictures[:, :1]).all((1, 2))
    assert bars.sum() == 30
    assert found == pytest.approx(log_p[bars].mean(), abs=1e-4)
    assert f"{found:.3f} nats a picture" in done.stdout


def test_unknown_task_is_refused(refused_recipe):
    assert "parity" in refused_recipe("exact_likelihood.py", "--tasks", "parity")
