"""A log-likelihood from both sides, on the same cases: AIS flatters a model, RAISE does not."""

import time

import runs

import numpy as np

import dbn


def measure(rbm, x, base_rates, metrics: runs.Metrics, *, chains, temperatures, raised):
    """Measures the log-likelihood of cases by AIS, and of some of them by RAISE too; tells both.

    Args:
        rbm: The RBM.
        x: Cases, `(cases, visible)`, binary.
        base_rates: Means of the visible units in the training data.
        metrics: The figures of the run.
        chains: Chains of AIS.
        temperatures: Of both.
        raised: How many cases, the first of x, RAISE is for.

    Returns:
        The `LogPartition` by AIS.
    """
    started = time.perf_counter()
    log_partition = dbn.likelihood.annealed_importance_sampling(
        rbm, base_rates, chains=chains, temperatures=temperatures
    )
    found = dbn.likelihood.log_likelihood(rbm, x, log_partition)
    metrics.tell(
        "RBM by AIS, {annealed} chains and {temperatures} temperatures: {log_likelihood:.2f} nats "
        "per image, {low:.2f} to {high:.2f}, effective sample size {effective_sample_size:.0f}",
        annealed=chains,
        temperatures=temperatures,
        log_likelihood=found.mean,
        low=found.low,
        high=found.high,
        log_partition=log_partition.value,
        effective_sample_size=log_partition.effective_sample_size,
    )
    same = x[:raised]
    by_raise = float(
        np.mean(
            dbn.likelihood.raise_log_likelihood(rbm, same, base_rates, temperatures=temperatures)
        )
    )
    by_ais = dbn.likelihood.log_likelihood(rbm, same, log_partition).mean
    metrics.tell(
        "On the first {raise_cases}: {raise_log_likelihood:.2f} by RAISE, "
        "{raise_cases_by_ais:.2f} by AIS, {gap:.2f} apart",
        raise_cases=len(same),
        raise_log_likelihood=by_raise,
        raise_cases_by_ais=by_ais,
        gap=by_ais - by_raise,
    )
    metrics.tell(
        "Measured in {measuring_seconds:.0f} s", measuring_seconds=time.perf_counter() - started
    )
    return log_partition
