"""How good a model is: estimates over a layer and cases, in nats."""

import tensorflow as tf

__all__ = ["free_energy_gap", "pseudo_log_likelihood", "reconstruction_cross_entropy"]


def pseudo_log_likelihood(layer, v, bit):
    """Estimates the log pseudo-likelihood of each case from one of its bits.

    As in the tutorial (`get_pseudo_likelihood_cost`): with x = round(v) and x' the same with bit i
    flipped, visible * log p(x_i | x without x_i) = visible * log sigmoid(F(x') - F(x)). Its
    expectation over a uniformly drawn bit is the log pseudo-likelihood of x (Besag 1975).

    Args:
        layer: An `RBMLayer` with Bernoulli visible units.
        v: Tensor of shape `(cases, visible)`, values in [0, 1]; rounded to 0 and 1.
        bit: Which bit to flip: an integer tensor, scalar (the same bit for all cases) or
            `(cases,)`, values in [0, visible).

    Returns:
        Tensor of shape `(cases,)`, nats per case, at most 0.

    Raises:
        ValueError: If the visible units are not Bernoulli units.
    """
    if layer.visible.name != "bernoulli":
        raise ValueError(
            f"The pseudo-likelihood flips bits: it needs Bernoulli visible units; got "
            f"{layer.visible.name!r}."
        )
    x = tf.round(tf.cast(v, layer.variable_dtype))
    bit = tf.broadcast_to(bit, tf.shape(x)[:1])
    change = 1.0 - 2.0 * tf.gather(x, bit, axis=1, batch_dims=1)
    # A flipped bit changes the pre-activation by one row of W: no second product with W.
    before = layer.propup(x)[0]
    after = before + change[:, None] * tf.gather(tf.cast(layer.W, x.dtype), bit)
    growth = layer.hidden.cumulant(after) - layer.hidden.cumulant(before)
    growth += change * tf.gather(tf.cast(layer.vbias, x.dtype), bit)
    return -float(x.shape[1]) * tf.nn.softplus(growth)


def reconstruction_cross_entropy(layer, v, uniforms):
    """Computes the cross entropy between each case and its reconstruction by one Gibbs step.

    -log p(v | h) with h drawn from p(h | v): what the tutorial's `get_reconstruction_cost` monitors
    in CD-1, with the opposite sign. For Bernoulli units the sum over visible units of
    -v log p - (1 - v) log(1 - p), taken from pre-activations, so large weights stay finite.

    Args:
        layer: An `RBMLayer`.
        v: Tensor of shape `(cases, visible)`.
        uniforms: Uniform numbers of the hidden units, `(cases, layer.uniforms_per_step[1])`.

    Returns:
        Tensor of shape `(cases,)`, nats per case.
    """
    _, _, h = layer.sample_h_given_v(v, uniforms)
    pre_activation, _ = layer.propdown(h)
    return -layer.visible.log_prob(tf.cast(v, pre_activation.dtype), pre_activation)


def free_energy_gap(layer, train, valid):
    """Computes how much higher the mean free energy of held-out cases is than of training cases.

    log Z cancels, so this is mean log p(train) - mean log p(valid): near 0 without overfitting, and
    growing with it (Hinton 2010, section 6). Compare equally many cases, the same ones each time.

    Args:
        layer: An `RBMLayer`.
        train: Training cases, `(cases, visible)`.
        valid: Held-out cases, `(cases, visible)`.

    Returns:
        Scalar tensor, nats per case.
    """
    return tf.reduce_mean(layer.free_energy(valid)) - tf.reduce_mean(layer.free_energy(train))
