"""Keras layers: what a restricted Boltzmann machine is. Installed as `dbn.layers`."""

from dbn.layers.mixed import Mixed
from dbn.layers.rbm import RBMLayer
from dbn.layers.units import (
    Bernoulli,
    Binomial,
    Categorical,
    Gaussian,
    NoisyReLU,
    ScaledGaussian,
    Spin,
    Units,
)

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Gaussian",
    "Mixed",
    "NoisyReLU",
    "RBMLayer",
    "ScaledGaussian",
    "Spin",
    "Units",
]
