import json

import pytest
from PIL import Image


@pytest.mark.slow
def test_ais_and_raise_close_in_on_the_exact_figure(tmp_path, run_recipe):
    done = run_recipe("bracket.py", "--data-set", "digits", "--epochs", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/bracket_digits"
    metrics = json.loads((folder / "metrics.json").read_text())
    exact = metrics["exact"]
    assert metrics["by_ais"][-1] == pytest.approx(exact, abs=0.05)
    assert metrics["by_raise"][-1] == pytest.approx(exact, abs=0.05)
    assert metrics["by_raise"][0] < metrics["by_raise"][1] < metrics["by_raise"][2] < exact
    assert metrics["binarization"] == "stochastic" and f"Exact: {exact:.3f}" in done.stdout
    assert len(Image.open(folder / "bracket.png").convert("RGB").getcolors(100000)) > 3


def test_no_epoch_is_refused(refused_recipe):
    complaint = refused_recipe("bracket.py", "--epochs", "0")
    assert "--epochs: must be at least 1; got 0" in complaint
