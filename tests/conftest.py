"""What several tests compare with: an RBM written from its definition, and statistics."""

import itertools

import hypothesis
import numpy as np
import pytest

import dbn
from dbn.trainer import Trainer

# The suite tries the same cases each time; the soak others each time.
hypothesis.settings.register_profile(
    "suite", max_examples=60, deadline=None, derandomize=True, database=None
)
hypothesis.settings.register_profile("soak", max_examples=2500, deadline=None)
hypothesis.settings.load_profile("suite")


class Reference:
    """A Bernoulli-Bernoulli RBM in NumPy float64, from E(v, h) alone where that is possible.

    Methods named `p_...` and `log_partition` enumerate every state: for small RBMs only.
    """

    def __init__(self, W, hbias, vbias):
        self.W, self.hbias, self.vbias = (np.asarray(x, "float64") for x in (W, hbias, vbias))

    @classmethod
    def of(cls, layer):
        """The RBM of a built layer's present values."""
        return cls(*(np.array(x.value) for x in (layer.W, layer.hbias, layer.vbias)))

    @classmethod
    def random(cls, visible=4, hidden=3, seed=0, scale=1.0):
        random = np.random.default_rng(seed)
        return cls(*(scale * random.normal(size=n) for n in ((visible, hidden), hidden, visible)))

    def layer(self, dtype="float32", **kwargs):
        """A built RBMLayer with these values."""
        layer = dbn.RBMLayer(len(self.hbias), dtype=dtype, **kwargs)
        layer.build((None, len(self.vbias)))
        layer.W.assign(self.W)
        layer.hbias.assign(self.hbias)
        layer.vbias.assign(self.vbias)
        return layer

    @staticmethod
    def states(n):
        """All binary vectors of n units, `(2**n, n)`."""
        return np.array(list(itertools.product([0.0, 1.0], repeat=n)))

    @staticmethod
    def logsumexp(x, axis=None):
        top = np.max(x, axis, keepdims=True)
        return np.log(np.sum(np.exp(x - top), axis)) + np.squeeze(top, axis)

    @staticmethod
    def sigmoid(a):
        return np.exp(-np.logaddexp(0, -a))

    # Any size: formulas, case by case.

    def energy(self, v, h):
        return -v @ self.vbias - h @ self.hbias - np.sum((v @ self.W) * h, -1)

    def free_energy(self, v):
        v = np.asarray(v, "float64")
        return -v @ self.vbias - np.logaddexp(0, v @ self.W + self.hbias).sum(-1)

    def mean_h(self, v):
        return self.sigmoid(np.asarray(v, "float64") @ self.W + self.hbias)

    def mean_v(self, h):
        return self.sigmoid(np.asarray(h, "float64") @ self.W.T + self.vbias)

    def free_energy_gradient(self, v, weights=None):
        """Mean over cases (weighted, if given) of dF/dW, dF/dhbias, dF/dvbias."""
        v = np.asarray(v, "float64")
        w = np.full(len(v), 1 / len(v)) if weights is None else weights
        h = self.mean_h(v) * w[:, None]
        return -v.T @ h, -h.sum(0), -w @ v

    def pseudo_log_likelihood(self, v, bit):
        """visible * log p(x_bit | the others) of each case, x = round(v), by two free energies."""
        x = np.round(np.asarray(v, "float64"))
        flipped, rows = x.copy(), np.arange(len(x))
        flipped[rows, bit] = 1 - flipped[rows, bit]
        return -x.shape[1] * np.logaddexp(0, self.free_energy(x) - self.free_energy(flipped))

    def reconstruction_cross_entropy(self, v, h):
        """-sum v log p + (1 - v) log(1 - p), with p = p(v = 1 | h), of each case."""
        v, a = np.asarray(v, "float64"), np.asarray(h, "float64") @ self.W.T + self.vbias
        return (v * np.logaddexp(0, -a) + (1 - v) * np.logaddexp(0, a)).sum(-1)

    # Small ones: every state.

    def _minus_energies(self):
        v, h = self.states(len(self.vbias)), self.states(len(self.hbias))
        return -self.energy(v[:, None], h[None])

    def enumerated_free_energy(self):
        """-log sum_h exp(-E(v, h)) of every visible state."""
        return -self.logsumexp(self._minus_energies(), 1)

    def log_partition(self):
        return self.logsumexp(self._minus_energies())

    def p_vh(self):
        """p(v, h), `(2**visible, 2**hidden)`."""
        return np.exp(self._minus_energies() - self.log_partition())

    def p_v(self):
        return self.p_vh().sum(1)

    def p_h(self):
        return self.p_vh().sum(0)

    def p_h_given_v(self):
        """`(2**visible, 2**hidden)`, rows sum to 1."""
        return self.p_vh() / self.p_v()[:, None]

    def p_v_given_h(self):
        """`(2**hidden, 2**visible)`, rows sum to 1."""
        return self.p_vh().T / self.p_h()[:, None]

    def log_likelihood(self, v):
        return -self.free_energy(v) - self.log_partition()

    def gradient(self, x):
        """Gradient of the mean negative log-likelihood of x by W, hbias, vbias."""
        model = self.free_energy_gradient(self.states(len(self.vbias)), self.p_v())
        return tuple(a - b for a, b in zip(self.free_energy_gradient(x), model, strict=True))


class Joint:
    """An RBM of any unit types, so small that E(v, h) can be summed over all, in NumPy float64.

    A real-valued unit is on a grid: sums over it are integrals, by the trapezoidal rule, whose
    error is far below float64's own for densities like these.
    """

    # What stands side by side: of single units the number, of categorical ones the group's size.
    mixtures = {
        "labelled": (("bernoulli", 2), ("categorical", 3)),
        "mixed": (("binomial", 1), ("categorical", 2), ("scaled", 1)),
    }
    visible = (
        *("bernoulli", "spin", "gaussian", "scaled", "categorical", "groups", "binomial"),
        *mixtures,
    )
    hidden = ("bernoulli", "spin", "gaussian", "categorical")
    combinations = tuple(
        pair
        for pair in itertools.product(visible, hidden)
        if pair not in itertools.product(("gaussian", "scaled", "mixed"), ["gaussian"])
    )
    _step = 0.1
    _values = {
        "bernoulli": [0.0, 1.0],
        "binomial": [0.0, 1.0, 2.0, 3.0],
        "gaussian": np.linspace(-10, 10, 201),
        "scaled": np.linspace(-13, 13, 261),
        "spin": [-1.0, 1.0],
    }

    def __init__(self, visible, hidden, seed=0):
        self.types = visible, hidden
        self.v, self.h = (self.states(kind) for kind in self.types)
        random, shape = np.random.default_rng(seed), (self.v.shape[1], self.h.shape[1])
        self.W, self.hbias, self.vbias = (
            0.7 * random.normal(size=size) for size in (shape, shape[1], shape[0])
        )
        self.log_variance = np.log([0.6, 1.5])[: self.real(visible).sum()]  # Of scaled units.
        log_f = np.log(np.prod(self.cells)) - self.energy(self.v[:, None], self.h[None])
        self.log_partition = Reference.logsumexp(log_f)
        self.p = np.exp(log_f - self.log_partition)  # (visible states, hidden states)

    @classmethod
    def states(cls, kind):
        """All states of one side; two units, or one group, or groups of 2 and 3 units."""
        if kind in cls.mixtures:
            parts = [
                np.eye(n) if part == "categorical" else cls._product(part, n)
                for part, n in cls.mixtures[kind]
            ]
            return np.array([np.concatenate(state) for state in itertools.product(*parts)])
        if kind == "categorical":
            return np.eye(3)
        if kind == "groups":
            return np.array([[*x, *y] for x in np.eye(2) for y in np.eye(3)])
        return cls._product(kind, 2)

    @classmethod
    def _product(cls, kind, units):
        return np.array(list(itertools.product(cls._values[kind], repeat=units)))

    @classmethod
    def real(cls, kind):
        """Which columns of a side are real-valued."""
        if kind in cls.mixtures:
            return np.concatenate([[part == "scaled"] * n for part, n in cls.mixtures[kind]])
        return np.full(cls.states(kind).shape[1], kind in ("gaussian", "scaled"))

    @property
    def cells(self):
        """What a state of each side stands for in a sum."""
        return [self._step ** self.real(kind).sum() for kind in self.types]

    @classmethod
    def units(cls, kind):
        """The unit type of this name."""
        if kind in cls.mixtures:
            return dbn.layers.Mixed([(cls.units(part), n) for part, n in cls.mixtures[kind]])
        own = {
            "scaled": dbn.layers.ScaledGaussian,
            "groups": lambda: dbn.layers.Categorical([2, 3]),
            "binomial": lambda: dbn.layers.Binomial(3),
        }
        return own[kind]() if kind in own else kind

    def layer(self, dtype="float32"):
        layer = dbn.RBMLayer(self.h.shape[1], *map(self.units, self.types), dtype=dtype)
        layer.build((None, self.v.shape[1]))
        for name, value in self.parameters().items():
            self.variable(layer, name).assign(value)
        return layer

    def parameters(self):
        """What is learnt, by name."""
        names = ["W", "hbias", "vbias"] + ["log_variance"] * (self.types[0] in ("scaled", "mixed"))
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def variable(layer, name):
        learnt = name == "log_variance"
        return layer.visible.kinds[-1].log_variance if learnt else getattr(layer, name)

    def own_energy(self, x, kind):
        """The part of the energy that holds neither weights nor biases."""
        if kind in self.mixtures:
            ends = np.cumsum([n for _, n in self.mixtures[kind]])[:-1]
            parts = zip(np.split(x, ends, -1), self.mixtures[kind], strict=True)
            return sum(self.own_energy(part, name) for part, (name, _) in parts)
        if kind == "gaussian":
            return (x**2).sum(-1) / 2
        if kind == "scaled":
            return (x**2 / np.exp(self.log_variance)).sum(-1) / 2
        if kind == "binomial":
            return -np.log(np.array([1, 3, 3, 1])[np.int64(x)]).sum(-1)
        return 0.0

    def energy(self, v, h):
        own = sum(self.own_energy(x, kind) for x, kind in zip((v, h), self.types, strict=True))
        return own - v @ self.vbias - h @ self.hbias - ((v @ self.W) * h).sum(-1)

    def free_energy(self, v):
        """-log of the sum, or the integral, of exp(-E(v, h)) over h."""
        minus = np.log(self.cells[1]) - self.energy(v[:, None], self.h[None])
        return -Reference.logsumexp(minus, 1)

    def draw(self, count, seed):
        """Independent draws of (v, h)."""
        random = np.random.default_rng(seed)
        at = random.choice(self.p.size, count, p=self.p.ravel() / self.p.sum())
        found = self.v[at // self.p.shape[1]], self.h[at % self.p.shape[1]]
        # Inside the cell of the grid, no longer on it.
        return tuple(
            x + self._step * random.uniform(-0.5, 0.5, x.shape) * self.real(kind)
            for x, kind in zip(found, self.types, strict=True)
        )

    def moments(self):
        """Means of v, h, v h^T and v^2, as `moments_of` has them."""
        p_v, p_h = self.p.sum(1), self.p.sum(0)
        return np.concatenate(
            [p_v @ self.v, p_h @ self.h, (self.v.T @ self.p @ self.h).ravel(), p_v @ self.v**2]
        )

    @staticmethod
    def moments_of(v, h):
        """The same of each draw, `(draws, moments)`."""
        v, h = np.asarray(v, "float64"), np.asarray(h, "float64")
        products = (v[:, :, None] * h[:, None]).reshape(len(v), -1)
        return np.concatenate([v, h, products, v**2], 1)


@pytest.fixture(scope="session")
def joint():
    """The class `Joint`."""
    return Joint


@pytest.fixture(params=Joint.combinations, ids="-".join)
def any_joint(request):
    """A `Joint` of each combination of unit types."""
    return Joint(*request.param)


@pytest.fixture(scope="session")
def reference():
    """The class `Reference`."""
    return Reference


@pytest.fixture(scope="session")
def assert_mean():
    """A function that asserts that the mean of independent samples is the expected one.

    `assert_mean(samples, expected, errors=4)`: for each element along axis 0, within so many
    standard errors of the mean, which the samples' own spread gives.
    """

    def check(samples, expected, errors=4.0):
        samples = np.asarray(samples, "float64")
        standard_error = samples.std(0, ddof=1) / np.sqrt(len(samples))
        off = np.abs(samples.mean(0) - expected)
        assert np.all(off <= errors * standard_error + 1e-12), (
            f"off by {np.max(off / (standard_error + 1e-300)):.1f} standard errors"
        )

    return check


@pytest.fixture
def without_xla(monkeypatch):
    """Updates that leave it open are plain graphs: what XLA makes of them is tested elsewhere."""
    whole = Trainer.compile

    def compile(self, optimizer, run_eagerly, steps_per_execution, jit_compile, log_gap):
        jit_compile = False if jit_compile == "auto" else jit_compile
        whole(self, optimizer, run_eagerly, steps_per_execution, jit_compile, log_gap)

    monkeypatch.setattr(Trainer, "compile", compile)
