"""The unit types by name."""

from dbn.layers.base import Units
from dbn.layers.discrete import Bernoulli, Binomial, Categorical, Spin
from dbn.layers.real import Gaussian, NoisyReLU, ScaledGaussian

__all__ = [
    "TYPES",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Gaussian",
    "NoisyReLU",
    "ScaledGaussian",
    "Spin",
    "Units",
    "get",
]

TYPES = {
    units.name: units
    for units in (Bernoulli, Categorical, Gaussian, NoisyReLU, ScaledGaussian, Spin)
}


def get(identifier):
    """Returns the unit type named or given.

    Args:
        identifier: Name of a type (`"bernoulli"`, `"categorical"`, `"gaussian"`, `"relu"`,
            `"scaled_gaussian"`, `"spin"`), or a `Units` instance.

    Returns:
        A `Units` instance.

    Raises:
        ValueError: If there is no unit type of that name.
    """
    if isinstance(identifier, Units):
        return identifier
    if isinstance(identifier, str) and identifier in TYPES:
        return TYPES[identifier]()
    raise ValueError(
        f"Unknown unit type {identifier!r}. Give one of {sorted(TYPES)} or an instance of "
        "`dbn.layers.Units`."
    )
