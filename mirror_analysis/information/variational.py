"""Mutual information from a trained critic, judged on units it has never seen."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import torch

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.inference import combine_seeds, jackknife_interval
from mirror_analysis.inference import p_value as permutation_p
from mirror_analysis.inference.units import Labels
from mirror_analysis.information.config import EstimatorConfig
from mirror_analysis.information.critics import CRITICS
from mirror_analysis.information.evaluation import Bound
from mirror_analysis.information.heldout import HeldOut, Judged, divide
from mirror_analysis.information.inputs import paired_rows
from mirror_analysis.information.training import (
    Progress,
    fit_critic,
    score_matrix,
    standardise,
)
from mirror_analysis.matrices import Array
from mirror_analysis.results import Null, Parameter, Score

BOUNDS: dict[str, Bound] = {
    "donsker_varadhan": Bound("donsker_varadhan", "donsker_varadhan"),
    "infonce": Bound("infonce", "infonce"),
    "jensen_shannon": Bound("jensen_shannon", "js_divergence"),
    "mine": Bound("mine", "mine"),
    "nwj": Bound("nwj", "nwj"),
    "smile": Bound("smile", "js_divergence"),
}
"""Name -> what its critic is trained on and how its value is taken."""

_SATURATED = 0.9  # share of the ceiling from which a value says little more than "at least"


def mutual_information(
    x: Array,
    y: Array,
    *,
    bound: str = "infonce",
    critic: str = "separable_linear",
    units: Labels | None = None,
    draws: int = 199,
    config: EstimatorConfig | None = None,
    progress: Progress | None = None,
) -> Score:
    """A lower bound on the mutual information of paired rows, in nats, on held-out units.

    A critic is trained on one part of the units, stopped by another, and the bound is taken on
    the rest, so that it cannot be raised by fitting noise: unrelated data give 0 or less. The
    value is the mean over training seeds. A score matrix holds one row of each unit, so its
    rows are independent; a unit's further rows (16 at most) come into matrices of their own,
    and the values are averaged. Time that all units share counts as information.

    "infonce" cannot exceed the log of its pairs (`ceiling`). The others have no ceiling, but no
    honest estimate stands above that number either. They take a logarithm or a mean of
    exponentials of scores over the test pairs: "donsker_varadhan" and "mine" are somewhat too
    large on average for it, "smile" is not a bound where scores pass its clip, and "nwj" and
    "jensen_shannon" are unbiased for the bound of their critic but of large variance when there
    is much information; their intervals then miss rare large scores. "mine" is trained with the
    moving-average gradient and valued by Donsker-Varadhan; "jensen_shannon" is trained on the
    Jensen-Shannon divergence and valued by `information.jensen_shannon`, "smile" likewise by
    `information.smile`.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], the same samples.
        bound: one of donsker_varadhan, infonce, jensen_shannon, mine, nwj, smile.
        critic: one of bilinear, inner_product, mlp, quadratic, separable_linear, separable_mlp.
        units: [sample] labels of independent units, such as episodes, kept whole when rows are
            divided; None for every row by itself.
        draws: shuffled pairings of the test units behind the null and the p-value; 0 for none.
        config: settings; None takes the defaults.
        progress: called with (updates done, updates at most).

    Returns:
        The score: interval over test units (32 groups, jackknife) and over seeds, for the
        critics as trained; null by shuffling whole test units under the trained critics; `n` =
        test units; parameters with the settings, `log_pairs` and whether it is `saturated`: the
        value reaches 90 % of the log of its pairs, so the truth may be far above it.

    Raises:
        UnknownNameError: if there is no such bound or critic.
        ShapeError: if a side is not [sample, feature], or samples or labels disagree in number.
        DegenerateError: if there are too few units, a side is constant over the training rows,
            NaN or infinity, or the training diverges.
        DeviceError: if x and y are on two devices.

    Source:
        Poole et al. 2019; Song and Ermon 2020; McAllester and Stratos 2020 (limits).

    Example:
        >>> x, y = TASKS["normal-bivariate-0.75"].sample(5000, seed=0)  # exact: 0.413
        >>> score = mutual_information(x, y, critic="quadratic")
        >>> round(score.value, 1)
        0.4
    """
    if bound not in BOUNDS:
        raise UnknownNameError("bound", bound, BOUNDS)
    if critic not in CRITICS:
        raise UnknownNameError("critic", critic, CRITICS)
    config = config or EstimatorConfig()
    rows_x, rows_y = paired_rows(x, y)
    parts = divide(len(rows_x), units, config)
    fit = torch.from_numpy(np.concatenate(parts.fit)).to(rows_x.device)
    x_in, y_in = (
        standardise(values, fit, name=name, inputs=config.inputs)
        for values, name in ((rows_x, "x"), (rows_y, "y"))
    )
    kind = BOUNDS[bound]
    if bound == "smile":
        kind = replace(kind, tau=config.tau)
    test = HeldOut.of(parts.test, config, draws=draws)
    validation = HeldOut.of(parts.validation, config, draws=0)
    looks = [torch.from_numpy(rows).to(x_in.device) for rows in validation.rows]
    judged, chosen = [], []
    for number, seed in enumerate(config.seeds):
        before, total = number * config.steps, len(config.seeds) * config.steps
        fitted = fit_critic(
            critic,
            kind.objective,
            x_in,
            y_in,
            parts.fit,
            looks,
            config=config,
            seed=seed,
            progress=partial(_report, progress, before, total),
        )
        judged.append(test.judge(kind, partial(score_matrix, fitted.critic), x_in, y_in))
        chosen.append(fitted.chosen)
        _report(progress, before, total, config.steps)
    settings: dict[str, Parameter] = {
        "critic": critic,
        "trained_on": kind.objective,
        "fit_units": len(parts.fit),
        "validation_units": len(parts.validation),
        "updates": round(sum(chosen) / len(chosen)),
        "seeds": len(config.seeds),
        **_settings(critic, kind, config),
    }
    return _score(kind, judged, test, settings)


def _report(progress: Progress | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _settings(critic: str, kind: Bound, config: EstimatorConfig) -> dict[str, Parameter]:
    """The settings that had a part in the value."""
    names = ["batch", "weight_decay", "inputs", "split_seed"]
    names += ["width"] if critic.startswith("separable") or critic == "inner_product" else []
    names += ["hidden"] if critic.endswith("mlp") else []
    names += ["temperature"] if critic == "separable_linear" else []
    names += ["tau"] if kind.name == "smile" else []
    names += ["average_rate"] if kind.name == "mine" else []
    values: dict[str, Parameter] = {name: getattr(config, name) for name in names}
    return {**values, "learning_rate": config.rate(critic)}


def _score(
    kind: Bound, judged: list[Judged], test: HeldOut, settings: dict[str, Parameter]
) -> Score:
    values = np.array([j.value for j in judged])
    without = np.stack([j.without for j in judged])
    limit = math.log(test.pairs)
    score = Score(
        measure=kind.name,
        value=None,
        x="x",
        y="y",
        n=len(test.units),
        ceiling=limit if kind.name == "infonce" else None,
        parameters={**settings, "pairs": test.pairs, "log_pairs": limit},
    )
    if not (np.isfinite(values).all() and np.isfinite(without).all()):
        return msgspec.structs.replace(
            score,
            undefined="the mean of exponentials of test scores overflows; use infonce or smile,"
            " or inputs='normal_scores'",
        )
    value = float(values.mean())
    interval = (
        combine_seeds(values.tolist(), without)[1]
        if len(values) > 1
        else jackknife_interval(value, without[0])
    )
    shuffles = np.mean([j.shuffled for j in judged], axis=0)
    null = p = None
    if len(shuffles):
        null = Null(float(shuffles.mean()), float(shuffles.std()), len(shuffles), "units")
        p = float(permutation_p(value, shuffles))
    return msgspec.structs.replace(
        score,
        value=value,
        interval=interval,
        null=null,
        p_value=p,
        parameters={**score.parameters, "saturated": value >= _SATURATED * limit},
    )
