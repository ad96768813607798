"""Keras layers: what a restricted Boltzmann machine is. Installed as `dbn.layers`."""

from dbn.layers.rbm import RBMLayer
from dbn.layers.units import Bernoulli, Units

__all__ = ["Bernoulli", "RBMLayer", "Units"]
