"""``noisekit predict``: what an optimizer will do under the noise of a data file."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from noisekit.cli.command import PAGE, Command, File, between, number, print_json, print_rows, printable
from noisekit.cli.hyperparameters import OptimizerOptions
from noisekit.cli.one_run import one_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from noisekit.study.prediction import Prediction
    from noisekit.study.trials import Trial
    from noisekit.theory import Gauge


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Say what an optimizer will do under the noise that a data file recorded, without training.

    The loss that the noise keeps up, how long the way there is, whether it is stable, whether theory
    applies, and which batch and hyper-parameters to try.

    Example: noisekit predict record.nc --optimizer adamw --lr 1e-3 --batch-size 64
    """

    file: File
    """A data file that noisekit wrote, best with `collect` or `run`."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerOptions]
    sharpness: float | None = None
    """Largest curvature of the loss, if you know it better than the file."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""

    def run(self) -> int:
        options = self.optimizer.given()

        from noisekit.results.io import open_tree
        from noisekit.study import predict

        with open_tree(self.file) as tree:
            found = predict(
                one_run(tree, self.seed, self.file),
                self.optimizer.optimizer,
                learning_rate=self.optimizer.learning_rate,
                batch_size=self.optimizer.batch_size,
                sharpness=self.sharpness,
                **options,
            )
        if self.json:
            print_json(found.as_dict())
        else:
            _print(found)
        return 0


def _print(found: Prediction) -> None:
    for sentence in found.verdict:
        print(textwrap.fill(printable(sentence), PAGE))
    if found.verdict:
        print()
    if found.figures:
        table = [["", "value", "95 % interval", "unit", "batch", ""]]
        for f in found.figures:
            unit = "" if f.units == "1" else f.units
            batch = "" if f.batch_size is None else str(f.batch_size)
            never = f.units == "steps"
            value, ends = _amount(f.value, never), between(f.lower, f.upper, never=never)
            table.append([f.quantity, value, ends, unit, batch, f.note])
        print_rows(table)
    if found.gauges:
        print("\nDoes the theory apply?")
        print_rows([[g.verdict, f"{g.symbol} = {_estimate(g)}", g.meaning] for g in found.gauges])
        if any(g.lower < g.upper for g in found.gauges):
            print("In brackets: 95 % intervals. What has none is a setting of the optimizer.")
    if found.trials:
        print("\nWhat to try")
        paced = any(math.isfinite(t.steps_to_fall) for t in found.trials)
        head = ["", "batch", "hyper-parameters", "floor", "progress of a step", "steps to 1/e", ""]
        table = [head, *(_cells(trial) for trial in found.trials)]
        print_rows(table if paced else [line[:5] + line[6:] for line in table])
        print(textwrap.fill(_how_well_known(found.trials), PAGE))
    for sentence in found.unknown:
        print("\n" + textwrap.fill(f"Not known: {sentence}", PAGE))


def _amount(value: float, never: bool = True) -> str:
    """Return a number, "never" for steps without end, and a dash for what the record does not tell."""
    if value == math.inf and never:
        return "never"
    return number(value, 2) if math.isfinite(value) else "—"


def _estimate(gauge: Gauge) -> str:
    """Return a gauge's value with its interval in brackets, where it was estimated with one."""
    value = "∞" if gauge.value == math.inf else number(gauge.value, 2)
    return f"{value} ({between(gauge.lower, gauge.upper)})" if gauge.lower < gauge.upper else value


def _how_well_known(trials: Sequence[Trial]) -> str:
    """Return what the 95 % intervals of the trials are, which are relatively alike."""
    parts = []
    floors = [t.floor_upper / t.floor for t in trials if t.floor_upper > 0]
    if floors:
        parts.append(f"floors are known to a factor of {number(max(floors), 3)}")
    steps = [
        max(t.steps_upper / t.steps_to_fall, t.steps_to_fall / t.steps_lower)
        for t in trials
        if 0 < t.steps_lower <= t.steps_upper < math.inf
    ]
    if steps and max(steps) > 1.01:
        parts.append(f"steps to 1/e to a factor of {number(max(steps), 3)}")
    low = min((t.progress_lower for t in trials), default=math.nan)
    high = max((t.progress_upper for t in trials), default=math.nan)
    if low < high:
        parts.append(f"progress of a step is {between(low, high)}")
    text = ", ".join(parts)
    return (
        f"{text[0].upper()}{text[1:]} (95 %)."
        if text
        else "How well these are known, the file does not tell."
    )


def _cells(trial: Trial) -> list[str]:
    hyper = ", ".join(
        f"{key} {number(value, 6 if key == 'betas' else 3)}" for key, value in trial.hyperparameters.items()
    )
    values = (trial.floor, trial.progress_of_a_step, trial.steps_to_fall)
    return [
        trial.what,
        str(trial.batch_size),
        f"{trial.optimizer}: {hyper}",
        *(_amount(v) for v in values),
        trial.note,
    ]
