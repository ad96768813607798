"""Keras layers: what a restricted Boltzmann machine is. Installed as `dbn.layers`."""

from dbn.layers.rbm import RBMLayer
from dbn.layers.units import Bernoulli, Gaussian, Spin, Units

__all__ = ["Bernoulli", "Gaussian", "RBMLayer", "Spin", "Units"]
