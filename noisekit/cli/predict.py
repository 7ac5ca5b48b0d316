"""``noisekit predict``: what an optimizer will do under the noise of a data file."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from noisekit.cli.command import PAGE, Command, File, number, print_json, print_rows, printable
from noisekit.cli.hyperparameters import OptimizerOptions
from noisekit.cli.one_run import one_run

if TYPE_CHECKING:
    from noisekit.study.prediction import Prediction
    from noisekit.study.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Say what an optimizer will do under the noise that a data file recorded, without training.

    The loss that the noise keeps up, how long the way there is, whether it is stable, whether theory
    applies, and which batch and hyper-parameters to try.
    """

    file: File
    """A data file that noisekit wrote, best with `collect` or `run`."""
    settings: tyro.conf.OmitArgPrefixes[OptimizerOptions]
    sharpness: float | None = None
    """Largest curvature of the loss, if you know it better than the file."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""

    def run(self) -> int:
        options = self.settings.given()

        from noisekit.results.io import open_tree
        from noisekit.study import predict

        with open_tree(self.file) as tree:
            found = predict(
                one_run(tree, self.seed, self.file),
                self.settings.optimizer,
                learning_rate=self.settings.learning_rate,
                batch_size=self.settings.batch_size,
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
            between = (
                f"{number(f.lower, 2)} to {number(f.upper, 2)}" if math.isfinite(f.lower) else "not known"
            )
            unit = "" if f.units == "1" else f.units
            batch = "" if f.batch_size is None else str(f.batch_size)
            table.append([f.quantity, _amount(f.value), between, unit, batch, f.note])
        print_rows(table)
    if found.gauges:
        print("\nDoes the theory apply?")
        print_rows([[g.verdict, f"{g.symbol} = {number(g.value, 2)}", g.meaning] for g in found.gauges])
    if found.trials:
        print("\nWhat to try")
        paced = any(math.isfinite(t.steps_to_fall) for t in found.trials)
        head = ["", "batch", "hyper-parameters", "floor", "progress of a step", "steps to 1/e", ""]
        table = [head, *(_cells(trial) for trial in found.trials)]
        print_rows(table if paced else [line[:5] + line[6:] for line in table])
    for sentence in found.unknown:
        print("\n" + textwrap.fill(f"Not known: {sentence}", PAGE))


def _amount(value: float) -> str:
    """Return a floor, or a number of steps that may never be enough."""
    return "never" if value == math.inf else number(value, 2)


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
