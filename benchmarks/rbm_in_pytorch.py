"""The update that `benchmarks/speed.py` times, written in PyTorch."""

import torch
from torch.nn import functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class RBM(torch.nn.Module):
    """A Bernoulli RBM. All that changes is a parameter or a buffer: CUDA graphs need its place.

    Args:
        case: What is trained, a `Case`.
        visible: Number of visible units.
    """

    def __init__(self, case, visible):
        super().__init__()
        self.case = case
        limit = 4 * (6 / (visible + case.hidden)) ** 0.5
        self.W = torch.nn.Parameter(torch.empty(visible, case.hidden).uniform_(-limit, limit))
        self.hbias = torch.nn.Parameter(torch.zeros(case.hidden))
        self.vbias = torch.nn.Parameter(torch.zeros(visible))
        self.register_buffer("chain", torch.zeros(case.batch, visible))
        # That the pseudo-likelihood flips; goes on from epoch to epoch, as in ours.
        self.register_buffer("bit", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bits", torch.arange(visible))
        self.register_buffer("total", torch.zeros(()))

    @torch.no_grad()
    def sample(self, v):
        """Returns the end of the chains, `(chains, visible)`; adds the metric to `total`."""
        v_model = self.chain if self.case.persistent else v
        for _ in range(self.case.k):
            h = torch.bernoulli(torch.sigmoid(v_model @ self.W + self.hbias))
            pre_activation = h @ self.W.T + self.vbias
            v_model = torch.bernoulli(torch.sigmoid(pre_activation))
        if self.case.persistent:
            self.chain.copy_(v_model)
            self.total.add_(self.pseudo_log_likelihood(v))
        else:  # k is 1: this is the first reconstruction
            entropy = F.binary_cross_entropy_with_logits(pre_activation, v, reduction="sum")
            self.total.add_(entropy / len(v))
        return v_model

    def pseudo_log_likelihood(self, v):
        """Returns the estimate by one bit, and moves on to the next."""
        parameters, visible = (self.W, self.hbias, self.vbias), v.shape[1]
        v = v.round()
        flipped = torch.where(self.bits == self.bit, 1 - v, v)
        self.bit.copy_((self.bit + 1) % visible)
        gap = free_energy(*parameters, flipped) - free_energy(*parameters, v)
        return visible * F.logsigmoid(gap).mean()


def free_energy(W, hbias, vbias, v):
    """Returns the free energies of visible states, `(cases,)`."""
    return -(v @ vbias) - F.softplus(v @ W + hbias).sum(1)


def cost(W, hbias, vbias, v, v_model):
    """Returns what is differentiated: the free energy of the data minus that of the model."""
    parameters = W, hbias, vbias
    return free_energy(*parameters, v).mean() - free_energy(*parameters, v_model).mean()


def plain(rbm, rate):
    """Returns the update that a user would write, with autograd and an optimizer."""
    optimizer = torch.optim.SGD(rbm.parameters(), lr=rate)

    def update(v):
        v_model = rbm.sample(v)
        optimizer.zero_grad()
        cost(rbm.W, rbm.hbias, rbm.vbias, v, v_model).backward()
        optimizer.step()

    return update


def compiled(rbm, rate):
    """Returns the same update as one graph: on a GPU a CUDA graph, one launch an update."""

    @torch.no_grad()
    def update(v):
        parameters = rbm.W, rbm.hbias, rbm.vbias
        v_model = rbm.sample(v)
        gradients = torch.func.grad(cost, argnums=(0, 1, 2))(*parameters, v, v_model)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(rate * gradient)

    mode = "reduce-overhead" if DEVICE == "cuda" else "default"
    return torch.compile(update, mode=mode, fullgraph=True)


def training(make_update, case, x, rate, threads, tf32):
    """Returns run(updates, epochs), as the contenders of `speed.py` are.

    Args:
        make_update: `plain` or `compiled`.
        case: A `Case`.
        x: Data, `(cases, visible)`, an array; kept on the GPU, if there is one.
        rate: Learning rate.
        threads: How many, on a CPU.
        tf32: Whether a GPU may make products of float32 in TF32.
    """
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
    data = torch.from_numpy(x).to(DEVICE)
    rbm = RBM(case, x.shape[1]).to(DEVICE)
    update, batch = make_update(rbm, rate), case.batch

    def run(updates, epochs):
        for _ in range(epochs):
            order = torch.randperm(updates * batch, device=DEVICE)
            rbm.total.zero_()
            for i in range(updates):
                update(data[order[i * batch : (i + 1) * batch]])
        return rbm.total.item() / updates  # Waits for all that a GPU has been told to do.

    return run
