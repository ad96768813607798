"""Networks made from a stack: plain Keras models on its Dense layers.

Each function takes the stack first, and is a method of `DBN`: `stack.classifier(10)`. What it
returns holds no class of this package, so it loads from `.keras` and SavedModel files where the
package is not installed.
"""

import numbers

import keras
import tensorflow as tf

from dbn import checks

__all__ = ["autoencoder", "classifier", "regressor"]


def classifier(
    stack,
    num_classes,
    share=True,
    name=None,
    *,
    dropout=0.0,
    input_dropout=0.0,
    kernel_constraint=None,
    batch_normalization=None,
):
    """Makes the network of the stack's Dense layers with a softmax layer on top.

    A plain Keras model without any class of this package: it loads from `.keras` and SavedModel
    files where the package is not installed. The softmax layer starts at zero, as in the
    tutorial.

    Dropout divides what it keeps by the share p that it keeps, so the mean input of a unit is that
    of pretraining. It is the network of Srivastava et al. (2014, section 5.2), who scale pretrained
    weights by 1/p in place of the activations, and by p again for the network without dropout: with
    their weights W/p in place of W, every unit has the same input under the same mask. So W stays
    as it was pretrained, and a limit c on the norm of theirs is the limit p c on the norm of W.

    Batch normalisation (Ioffe & Szegedy 2015) of what a hidden unit sums up, before its activation,
    starts from the mean and the deviation that these sums have on given cases: its scale is that
    deviation, its shift that mean and the hidden bias, so the network computes what it computes
    without.

    Args:
        stack: A built `DBN`.
        num_classes: Number of classes, an integer >= 2.
        share: True to train the stack's own variables; False to start from copies of them.
        name: Name of the model.
        dropout: Share of each hidden layer's units to drop in training, in [0, 1).
        input_dropout: Share of the inputs to drop, likewise.
        kernel_constraint: Keras constraint of the pretrained weights, such as
            `keras.constraints.MaxNorm(4)`, applied after each update. It belongs to the variables:
            where they are shared, it holds in `pretrain` from now on, too. None leaves them theirs.
        batch_normalization: Array `(cases, visible)` of the cases to start from, at least two; some
            thousand are enough. In place of each of the stack's Dense layers come one without
            bias and activation, which has its W (shared or a copy), Keras' `BatchNormalization`,
            which goes on from its bias, and the activation. None for the stack's layers.

    Returns:
        A `keras.Sequential`, `(cases, visible)` to `(cases, num_classes)` probabilities.

    Raises:
        ValueError: If the stack is not built, or an argument is out of its range.

    Example:

    >>> stack = dbn.DBN([8, 4])
    >>> stack.build((None, 9))
    >>> model = stack.classifier(3, dropout=0.5, input_dropout=0.2)
    >>> [type(layer).__name__ for layer in model.layers]
    ['Dropout', 'Dense', 'Dropout', 'Dense', 'Dropout', 'Dense']
    >>> x = np.random.default_rng(0).random((100, 9))
    >>> normalised = stack.classifier(3, batch_normalization=x)
    >>> [type(layer).__name__ for layer in normalised.layers[:3]]
    ['Dense', 'BatchNormalization', 'Activation']
    >>> normalised.layers[0].kernel is stack.rbms[0].layer.W
    True
    """
    num_classes = checks.integer(num_classes, "num_classes", least=2)
    head = keras.layers.Dense(num_classes, "softmax", kernel_initializer="zeros", name="softmax")
    rates = {"dropout": dropout, "input_dropout": input_dropout}
    return _with_head(stack, head, share, name, rates, kernel_constraint, batch_normalization)


def regressor(
    stack,
    outputs=1,
    share=True,
    name=None,
    *,
    dropout=0.0,
    input_dropout=0.0,
    kernel_constraint=None,
    batch_normalization=None,
):
    """Makes the network of the stack's Dense layers with a linear layer on top.

    It is as `classifier` makes it, but for its last layer, which starts at zero, too: standardise
    the targets.

    Args:
        stack: A built `DBN`.
        outputs: Number of targets a case, an integer >= 1.
        share: As in `classifier`.
        name: As in `classifier`.
        dropout: As in `classifier`.
        input_dropout: As in `classifier`.
        kernel_constraint: As in `classifier`.
        batch_normalization: As in `classifier`.

    Returns:
        A `keras.Sequential`, `(cases, visible)` to `(cases, outputs)`.

    Raises:
        ValueError: As `classifier` does.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(100, 9))
    >>> stack = dbn.DBN([dbn.RBMLayer(8, visible="gaussian")])
    >>> histories = stack.pretrain(x, batch_size=10, verbose=0)
    >>> model = stack.regressor()
    >>> model.compile("adam", "mse")
    >>> history = model.fit(x, x[:, 0] * x[:, 1], verbose=0)
    """
    outputs = checks.integer(outputs, "outputs")
    head = keras.layers.Dense(outputs, kernel_initializer="zeros", name="linear")
    rates = {"dropout": dropout, "input_dropout": input_dropout}
    return _with_head(stack, head, share, name, rates, kernel_constraint, batch_normalization)


def autoencoder(stack, share=True, name=None):
    """Unrolls the stack into a deep autoencoder (Hinton & Salakhutdinov 2006).

    The encoder is the stack's Dense layers, the decoder Dense layers that start from the
    transposed weights and the visible biases, as copies: what `fit` makes of them, the stack
    does not see. Plain Keras models, as `classifier` gives. With Gaussian hidden units in the
    top RBM the code is linear.

    Args:
        stack: A built `DBN`.
        share: True to train the stack's own variables in the encoder; False to start from
            copies of them.
        name: Name of the model.

    Returns:
        A `keras.Sequential`, `(cases, visible)` to their reconstructions of the same shape, of
        two `keras.Sequential`: `model.get_layer("encoder")`, to codes `(cases, units of the top
        layer)`, and `model.get_layer("decoder")`, back from codes.

    Raises:
        ValueError: If the stack is not built, or a visible type is none whose mean a Dense
            layer can give (several categorical groups, binomial units).

    Example:

    >>> x = np.random.default_rng(0).integers(0, 2, (100, 9)).astype("float32")
    >>> stack = dbn.DBN([8, dbn.RBMLayer(2, hidden="gaussian")])
    >>> histories = stack.pretrain(x, batch_size=10, verbose=0)
    >>> model = stack.autoencoder()
    >>> model.compile("adam", "binary_crossentropy")
    >>> history = model.fit(x, x, verbose=0)
    >>> codes = model.get_layer("encoder")(x)
    """
    body = _encoding(stack, share)
    width, code = stack.rbms[0].layer.W.shape[0], stack.rbms[-1].layer.units
    decoding = [_decoding(rbm.layer) for rbm in reversed(stack.rbms)]
    encoder = keras.Sequential([keras.Input((width,)), *body], name="encoder")
    decoder = keras.Sequential([keras.Input((code,)), *decoding], name="decoder")
    return keras.Sequential([keras.Input((width,)), encoder, decoder], name=name)


def _with_head(stack, head, share, name, rates, kernel_constraint, batch_normalization):
    """Returns the model of the stack's Dense layers, with what is to stand between, and a head."""
    for argument, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
            raise ValueError(f"`{argument}` must be a number in [0, 1); got {rate!r}.")
    constraint = keras.constraints.get(kernel_constraint)
    body = _encoding(stack, share)
    x, width = batch_normalization, body[0].kernel.shape[0]
    if x is not None:
        x = checks.cases(x, stack.rbms[0].layer.visible, "batch_normalization", width)
        if len(x) < 2:
            raise ValueError("`batch_normalization` must have at least 2 cases; it has 1.")
    if constraint is not None:
        for dense in body:
            dense.kernel_constraint = dense.kernel.constraint = constraint
        for rbm in stack.rbms:
            if share and rbm.compiled:
                rbm.remake()  # Its compiled update knows of no constraint.
    blocks = [[dense] for dense in body] if x is None else _normalised(body, x)
    layers = [keras.Input((width,))]
    dropouts = [rates["input_dropout"], *[rates["dropout"]] * len(body)]
    for rate, block in zip(dropouts, [*blocks, [head]], strict=True):
        layers += [keras.layers.Dropout(rate), *block] if rate else block
    return keras.Sequential(layers, name=name)


def _normalised(body, x):
    """Returns Dense layers, each as its sums, their normalisation and its activation."""
    h, blocks = tf.cast(x, body[0].compute_dtype), []
    for dense in body:
        sums = _sums(dense)
        a = sums(h)
        mean, variance = tf.nn.moments(tf.cast(a, dense.variable_dtype), 0)
        normalisation = keras.layers.BatchNormalization(dtype=dense.dtype_policy)
        normalisation.build((None, dense.units))
        deviation = tf.sqrt(variance + normalisation.epsilon)
        normalisation.set_weights([deviation, mean + dense.bias, mean, variance])
        blocks.append([sums, normalisation, keras.layers.Activation(dense.activation)])
        h = dense.activation(a + tf.cast(dense.bias, a.dtype))
    return blocks


def _sums(dense):
    """Returns a Dense layer without bias and activation that has the weights of another."""
    plain = {"use_bias": False, "activation": "linear"}
    sums = type(dense).from_config({**dense.get_config(), **plain})
    sums.add_weight = lambda name, **_: getattr(dense, name)  # Where `build` makes its variables.
    sums.build((None, dense.kernel.shape[0]))
    del sums.add_weight
    return sums


def _encoding(stack, share):
    """Returns the stack's Dense layers, or copies of them."""
    if not stack.built:
        raise ValueError(
            "The stack is not built, so its input width is unknown: `pretrain` it, or call "
            "`stack.build((None, visible))`."
        )
    body = [rbm.layer.dense for rbm in stack.rbms]
    return body if share else [_copy(dense) for dense in body]


def _decoding(layer):
    """Returns a new Dense layer that gives the means of the visible units of an RBMLayer."""
    units = layer.visible
    kernel, bias = tf.transpose(layer.W), tf.convert_to_tensor(layer.vbias)
    if units.activation == "linear":
        # Its mean is linear, so what scales it (a learnt variance) can be in the weights.
        kernel, bias = units.mean(kernel), units.mean(bias)
    elif units.refusal("hidden"):
        raise ValueError(
            f"A decoder cannot end in {units.name!r} units of these: {units.refusal('hidden')}."
        )
    dense = keras.layers.Dense(kernel.shape[1], units.activation, dtype=layer.dense.dtype_policy)
    dense.build((None, kernel.shape[0]))
    dense.set_weights([kernel.numpy(), bias.numpy()])
    return dense


def _copy(dense):
    copy = type(dense).from_config(dense.get_config())
    copy.build(dense.kernel.shape[:1])
    copy.set_weights(dense.get_weights())
    return copy
