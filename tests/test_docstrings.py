"""The examples in docstrings run, and give what they show."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import dbn
import dbn.layers

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (dbn, dbn.layers)
    for module in pkgutil.iter_modules(package.__path__)
]


pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # An example may write beside itself.
    names = {"dbn": dbn, "keras": keras, "np": np, "tf": tf}
    result = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert result.failed == 0


def test_the_examples_are_found():
    found = doctest.DocTestFinder().find(importlib.import_module("dbn.training"))
    assert sum(bool(test.examples) for test in found) >= 3
