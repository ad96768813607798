"""RBMLayer: a restricted Boltzmann machine on the variables of an ordinary Dense layer."""

import operator

import keras
import tensorflow as tf

from dbn.layers import units as unit_types
from dbn.layers.real import Gaussian

__all__ = ["RBMLayer"]


@keras.saving.register_keras_serializable(package="dbn")
class RBMLayer(keras.layers.Layer):
    """A restricted Boltzmann machine (RBM) that shares its weights with a Dense layer.

    The energy of a visible vector v and a hidden vector h is, for Bernoulli and spin units,

        E(v, h) = -vbias . v - hbias . h - v W h        (Smolensky 1986; Hinton 2002)

    plus the units' own terms where they have some (`Units.energy`: v . v / 2 for Gaussian ones),
    and their probability is proportional to exp(-E). `W` and `hbias` are the kernel and the bias of
    `self.dense`, a plain `keras.layers.Dense`: the same variables, not copies. Whoever trains one,
    trains the other. `layer(v)` gives the mean hidden activations, which is `dense(v)`.

    Methods bear the names of the Theano Deep Learning Tutorial. Those that sample take the uniform
    numbers that they turn into samples (`dbn.noise.uniforms`), and are pure functions of them.

    Args:
        units: Number of hidden units, an integer >= 1. Left out if `dense` is given.
        visible: Unit type of the visible side: `"bernoulli"`, `"categorical"`, `"gaussian"`,
            `"scaled_gaussian"` or `"spin"`, or a `dbn.layers.Units`, such as `Categorical(4)`,
            `Binomial(10)` or, for columns of several types, `Mixed`.
        hidden: Unit type of the hidden side: `"bernoulli"`, `"categorical"`, `"gaussian"`,
            `"relu"` or `"spin"`; not Gaussian if the visible one is.
        dense: An existing Dense layer to share. It must have a bias and the hidden type's
            activation (sigmoid for Bernoulli, softmax for categorical, linear for Gaussian, relu
            for noisy rectified, tanh for spin units), and neither LoRA, quantisation nor an
            activity regularizer. Its other regularizers enter the training cost.
        vbias: An existing `keras.Variable` of shape `(visible,)` to share as visible bias. Such
            sharing lasts as long as the objects: a saved file keeps the values, not the sharing.
        kernel_initializer: Initializer of `W` if the layer makes its own Dense. The default between
            Bernoulli units is the tutorial's, uniform in +-4 sqrt(6 / (visible + hidden)); between
            others normal with deviation 0.01 (Hinton 2010, section 8), since chains of real-valued
            units explode from a wide start.
        hbias_initializer: Initializer of `hbias`, likewise.
        vbias_initializer: Initializer of `vbias`.
        kernel_regularizer: Keras regularizer of `W`, likewise, such as `"l2"` for weight decay; it
            enters the training cost.
        **kwargs: `name`, `dtype` (by default that of `dense`), `trainable` of
            `keras.layers.Layer`, which freezes the Dense layer, too. Under a mixed policy the
            matrix products are computed in the narrow type; biases, energies and samples keep the
            type of the variables.

    Input shape: `(cases, visible)`, values in the range of the visible units.

    Output shape: `(cases, units)`.

    Raises:
        ValueError: If an argument is out of its range, if neither or both of `units` and `dense`
            are given, or if `dense` cannot be shared.

    Example:

    >>> layer = RBMLayer(3)
    >>> layer.build((None, 4))
    >>> tuple(layer.W.shape), tuple(layer.free_energy(tf.zeros((2, 4))).shape)
    ((4, 3), (2,))
    """

    def __init__(
        self,
        units=None,
        visible="bernoulli",
        hidden="bernoulli",
        dense=None,
        vbias=None,
        kernel_initializer=None,
        hbias_initializer="zeros",
        vbias_initializer="zeros",
        kernel_regularizer=None,
        **kwargs,
    ):
        self._check_sides(units, dense)
        self._check_vbias(vbias)
        if dense is not None:
            own = (kernel_initializer, hbias_initializer, kernel_regularizer)
            if own != (None, "zeros", None):
                raise ValueError(
                    "`kernel_initializer`, `hbias_initializer` and `kernel_regularizer` are for "
                    "the Dense that the layer makes; the one given as `dense` has its own."
                )
            kwargs.setdefault("dtype", dense.dtype_policy)
        super().__init__(**kwargs)
        self.visible = unit_types.get(visible)
        self.hidden = unit_types.get(hidden)
        for side, kind in (("visible", self.visible), ("hidden", self.hidden)):
            if kind.refusal(side):
                raise ValueError(f"`{side}` cannot be {kind.name!r} units: {kind.refusal(side)}.")
        gaussian = any(isinstance(kind, Gaussian) for kind in self.visible.kinds)
        if gaussian and isinstance(self.hidden, Gaussian):
            raise ValueError(
                "Gaussian `visible` and Gaussian `hidden` units: exp(-E) has no finite sum unless "
                "all singular values of W stay below 1, which training does not see to. Make one "
                'side "bernoulli" or "spin".'
            )
        if dense is None:
            dense = keras.layers.Dense(
                int(units),
                activation=self.hidden.activation,
                kernel_initializer=kernel_initializer or self._default_initializer(),
                bias_initializer=hbias_initializer,
                kernel_regularizer=kernel_regularizer,
                dtype=self.dtype_policy,
            )
        self.dense = dense
        if not self.trainable:
            dense.trainable = False
        self.check_dense()
        self.vbias_initializer = keras.initializers.get(vbias_initializer)
        self.vbias = vbias

    def _default_initializer(self):
        if self.visible.name == self.hidden.name == "bernoulli":
            # The tutorial's range: sqrt(3 scale / mean(visible, hidden)) with scale 16.
            return keras.initializers.VarianceScaling(16.0, "fan_avg", "uniform")
        return keras.initializers.RandomNormal(0.0, 0.01)

    @staticmethod
    def _check_sides(units, dense):
        if (units is None) == (dense is None):
            raise ValueError(
                "RBMLayer needs either `units` (it makes a Dense) or `dense` (it shares one); got "
                f"units={units!r}, dense={dense!r}."
            )
        if dense is not None and not isinstance(dense, keras.layers.Dense):
            raise ValueError(
                f"`dense` must be a `keras.layers.Dense`; got {dense!r} of type "
                f"{type(dense).__name__}."
            )
        try:
            found = 1 if units is None else 0 if isinstance(units, bool) else operator.index(units)
        except (TypeError, AttributeError):  # The second is TensorFlow's, for a tensor of floats.
            found = 0
        if not 1 <= found < 2**31:
            most = " and < 2**31" if found > 0 else ""
            raise ValueError(f"`units` must be an integer >= 1{most}; got {units!r}.")

    @staticmethod
    def _check_vbias(vbias):
        if vbias is not None and not isinstance(vbias, keras.Variable):
            raise ValueError(f"`vbias` must be a `keras.Variable`; got {type(vbias).__name__}.")

    def check_dense(self):
        """Checks that `dense` is still one that an RBM can share.

        Raises:
            ValueError: If it has no bias, another activation, LoRA, quantisation or an activity
                regularizer.
        """
        dense, needed = self.dense, keras.activations.get(self.hidden.activation)
        if not dense.use_bias:
            raise ValueError("`dense` has use_bias=False; an RBM needs its bias as `hbias`.")
        if dense.activation is not needed:
            found = keras.activations.serialize(dense.activation)
            raise ValueError(
                f"`dense` has activation {found!r}; {self.hidden.name} hidden units need "
                f"{self.hidden.activation!r}."
            )
        if dense.lora_enabled or dense.lora_rank:
            raise ValueError("`dense` has LoRA enabled; its kernel is not one variable to share.")
        if dense.quantization_mode is not None:
            raise ValueError(
                f"`dense` is quantised ({dense.quantization_mode}); an RBM needs float weights."
            )
        for name, layer in (("dense", dense), ("RBMLayer", self)):
            if layer.activity_regularizer is not None:
                raise ValueError(
                    f"`{name}` has an activity regularizer, which an RBM's cost does not hold; "
                    "those of kernel and bias enter it."
                )

    def build(self, input_shape):
        """Creates the variables that do not exist yet, for `(cases, visible)` inputs."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                "RBMLayer needs inputs of rank 2 and known width, (cases, visible); got shape "
                f"{tuple(input_shape)}."
            )
        width = int(input_shape[-1])
        if not self.dense.built:
            self.dense.build(input_shape)
        self.check_dense()
        if self.dense.kernel.shape[0] != width:
            raise ValueError(
                f"`dense` takes {self.dense.kernel.shape[0]} inputs; the data have {width}."
            )
        if self.vbias is None:
            self.vbias = self.add_weight(
                name="vbias", shape=(width,), initializer=self.vbias_initializer
            )
        elif tuple(self.vbias.shape) != (width,):
            raise ValueError(
                f"`vbias` must have shape ({width},) for these data; got {tuple(self.vbias.shape)}."
            )
        self.visible.build(self, width)
        self.hidden.build(self, self.units)
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: width})

    @property
    def units(self):
        """Number of hidden units."""
        return self.dense.units

    @property
    def W(self):
        """Weights, a variable of shape `(visible, hidden)`: the kernel of `dense`."""
        return self.dense.kernel

    @property
    def hbias(self):
        """Hidden bias, a variable of shape `(hidden,)`: the bias of `dense`."""
        return self.dense.bias

    @property
    def uniforms_per_step(self):
        """How many uniform numbers a Gibbs step takes for one chain: (visible, hidden)."""
        return self.visible.uniforms(self.W.shape[0]), self.hidden.uniforms(self.units)

    def call(self, v):
        """Returns the mean hidden activations, `(cases, hidden)`."""
        return self.dense(v)

    def compute_output_shape(self, input_shape):
        """Returns `(cases, hidden)`."""
        return (input_shape[0], self.units)

    def propup(self, v):
        """Propagates visible units up to the hidden units.

        Args:
            v: Tensor of shape `(cases, visible)`.

        Returns:
            The pre-activation and the mean of the hidden units, each `(cases, hidden)`.
        """
        product = tf.matmul(self._cast(v), self._cast(self.W))
        pre_activation = self._widen(product) + self._widen(self.hbias)
        return pre_activation, self.hidden.mean(pre_activation)

    def propdown(self, h, W=None):
        """Propagates hidden units down to the visible units.

        Args:
            h: Tensor of shape `(cases, hidden)`.
            W: Weights of the shape of the layer's own, in place of those, where the way down is not
                tied to the way up (`dbn.GenerativeDBN`).

        Returns:
            The pre-activation and the mean of the visible units, each `(cases, visible)`.
        """
        W = self._cast(self.W if W is None else W)
        product = tf.matmul(self._cast(h), W, transpose_b=True)
        pre_activation = self._widen(product) + self._widen(self.vbias)
        return pre_activation, self.visible.mean(pre_activation)

    def sample_h_given_v(self, v0, uniforms):
        """Samples the hidden units given the visible ones.

        Args:
            v0: Tensor of shape `(cases, visible)`.
            uniforms: Uniform numbers in (0, 1), `(cases, hidden)` for Bernoulli units.

        Returns:
            The pre-activation, the mean and a sample of the hidden units, each `(cases, hidden)`.
        """
        pre_activation, mean = self.propup(v0)
        return pre_activation, mean, self.hidden.sample(pre_activation, uniforms)

    def sample_v_given_h(self, h0, uniforms, W=None):
        """Samples the visible units given the hidden ones.

        Args:
            h0: Tensor of shape `(cases, hidden)`.
            uniforms: Uniform numbers in (0, 1), `(cases, visible)` for Bernoulli units.
            W: As for `propdown`.

        Returns:
            The pre-activation, the mean and a sample of the visible units, each `(cases, visible)`.
        """
        pre_activation, mean = self.propdown(h0, W)
        return pre_activation, mean, self.visible.sample(pre_activation, uniforms)

    def gibbs_hvh(self, h0, uniforms):
        """Makes one Gibbs step that starts from the hidden units.

        Args:
            h0: Tensor of shape `(chains, hidden)`.
            uniforms: Uniform numbers, `(chains, sum(uniforms_per_step))`: those of the visible
                units first.

        Returns:
            The pre-activation, mean and sample of the visible units, then of the hidden units.
        """
        u_v, u_h = tf.split(uniforms, self.uniforms_per_step, axis=-1)
        pre_v1, v1_mean, v1_sample = self.sample_v_given_h(h0, u_v)
        pre_h1, h1_mean, h1_sample = self.sample_h_given_v(v1_sample, u_h)
        return pre_v1, v1_mean, v1_sample, pre_h1, h1_mean, h1_sample

    def gibbs_vhv(self, v0, uniforms):
        """Makes one Gibbs step that starts from the visible units.

        Args:
            v0: Tensor of shape `(chains, visible)`.
            uniforms: Uniform numbers, `(chains, sum(uniforms_per_step))`: those of the visible
                units first, as in `gibbs_hvh`.

        Returns:
            The pre-activation, mean and sample of the hidden units, then of the visible units.
        """
        u_v, u_h = tf.split(uniforms, self.uniforms_per_step, axis=-1)
        pre_h1, h1_mean, h1_sample = self.sample_h_given_v(v0, u_h)
        pre_v1, v1_mean, v1_sample = self.sample_v_given_h(h1_sample, u_v)
        return pre_h1, h1_mean, h1_sample, pre_v1, v1_mean, v1_sample

    def energy(self, v, h):
        """Computes the energy E(v, h) of joint configurations.

        Args:
            v: Tensor of shape `(cases, visible)`.
            h: Tensor of shape `(cases, hidden)`.

        Returns:
            Tensor of shape `(cases,)`, in nats.
        """
        v, h = self._widen(v), self._widen(h)
        # propup's pre-activation holds the hidden bias: h . (v W + hbias).
        interaction = tf.reduce_sum(h * self.propup(v)[0], axis=-1)
        return self.hidden.energy(h) + self._visible_energy(v) - interaction

    def free_energy(self, v):
        """Computes the free energy F(v) = -log sum_h exp(-E(v, h)).

        log p(v) = -F(v) - log Z. For Bernoulli units F(v) is
        -vbias . v - sum_j softplus(hbias_j + (v W)_j).

        Args:
            v: Tensor of shape `(cases, visible)`.

        Returns:
            Tensor of shape `(cases,)`, in nats.
        """
        v = self._widen(v)
        return self._visible_energy(v) - self.hidden.cumulant(self.propup(v)[0])

    def set_vbias_from_data(self, x):
        """Sets the visible bias to that of independent units with the means of the data.

        For Bernoulli units: log(p / (1 - p)), p clipped to [0.001, 0.999] (Hinton 2010, section 8);
        for Gaussian ones the means themselves (over the variance); for categorical ones log p.

        Args:
            x: Array of shape `(cases, visible)`, values in the range of the visible units.

        Raises:
            ValueError: If the layer is not built, or the data have another shape or range.
        """
        if not self.built:
            raise ValueError("The RBMLayer is not built: call `build((None, visible))` first.")
        x, width = tf.cast(x, self.vbias.dtype), self.W.shape[0]
        if x.shape.rank != 2 or x.shape[0] == 0 or x.shape[1] != width:
            raise ValueError(f"`x` must have shape (cases, {width}); got {tuple(x.shape)}.")
        fault = self.visible.fault(x)
        if fault:
            raise ValueError(f"`x` {fault}")
        self.vbias.assign(self.visible.bias_from_mean(tf.reduce_mean(x, axis=0)))

    def get_config(self):
        """Returns the arguments that make an equal layer; the inner Dense is serialised whole."""
        return {
            **super().get_config(),
            "visible": keras.saving.serialize_keras_object(self.visible),
            "hidden": keras.saving.serialize_keras_object(self.hidden),
            "dense": keras.saving.serialize_keras_object(self.dense),
            "vbias_initializer": keras.saving.serialize_keras_object(self.vbias_initializer),
        }

    @classmethod
    def from_config(cls, config):
        """Returns a layer made from what `get_config` returned."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("visible", "hidden", "dense")
        }
        return cls(**{**config, **parts})

    def _cast(self, x):
        return tf.cast(x, self.compute_dtype)

    def _widen(self, x):
        return tf.cast(x, self.variable_dtype)

    def _visible_energy(self, v):
        return self.visible.energy(v) - tf.linalg.matvec(v, self._widen(self.vbias))
