"""``noisekit scale``: hyper-parameters for another batch size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from noisekit.cli.command import Command, between, number, print_json, print_rows
from noisekit.cli.hyperparameters import OptimizerOptions
from noisekit.cli.one_run import one_run
from noisekit.errors import InputError, unknown_name

if TYPE_CHECKING:
    import xarray as xr

    from noisekit.study.rescaling import Rescaling
    from noisekit.theory import Gauge


@dataclass(frozen=True, kw_only=True)
class Scale(Command):
    """Print the hyper-parameters for a batch that is so many times as large, by each rule, and why.

    With a data file, it also says whether the rules hold there: whether the noise dominates, as those of
    adaptive optimizers assume, and for sgd whether the new learning rate is stable.

    Example: noisekit scale --optimizer adamw --lr 1e-3 --batch-ratio 4
    """

    file: Annotated[
        Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")
    ] = None
    """A data file whose noise says whether the rules apply."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerOptions]
    batch_ratio: float
    """New batch size over the old one; below 1 for a smaller batch."""
    preset: str | None = None
    """Show one rule only: sde, linear, sqrt or fixed_lr."""
    sharpness: float | None = None
    """Largest curvature of the loss, if you know it better than the file, to see where sgd diverges."""
    steps: int | None = None
    """Steps of the whole run, to be scaled too."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""

    def run(self) -> int:
        given = self.optimizer.in_torch_names(steps=self.steps, batch_size=self.optimizer.batch_size)

        from noisekit.study.rescaling import rescalings
        from noisekit.theory.scaling import PRESETS, presets_of

        if self.preset is not None and self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        found = rescalings(self.optimizer.optimizer, given, self.batch_ratio)
        if self.preset is not None:
            found = tuple(row for row in found if row.preset == self.preset)
            if not found:
                name = self.optimizer.optimizer
                kind = "sgd" if self.preset == "linear" else "adaptive optimizers"
                has = ", ".join(presets_of(name))
                raise InputError(f"The preset {self.preset} is for {kind}; {name} has {has}.")
            if found[0].refused:
                raise InputError(found[0].refused)
        regime, curvature = self._read()
        if self.json:
            variants = [asdict(row) | {"stability": row.stability(curvature)} for row in found]
            head = {"optimizer": self.optimizer.optimizer, "batch_ratio": self.batch_ratio}
            print_json({**head, "hyperparameters": given, "variants": variants, "regime": regime})
            return 0
        self._print(given, found, curvature)
        for line in regime:
            print(line["text"])
        return 0

    def _read(self) -> tuple[list[dict[str, Any]], float | None]:
        """Return what the file says of signal and noise, and the largest curvature, given or the file's."""
        if self.file is None:
            return [], self.sharpness
        from noisekit.results.io import open_tree
        from noisekit.study.curvature import curvature_of

        with open_tree(self.file) as opened:
            tree = one_run(opened, self.seed, self.file)
            curvature = curvature_of(tree, self.optimizer.optimizer, self.sharpness)
            return self._regime(tree), None if curvature is None else curvature.value

    def _print(self, given: dict[str, Any], found: tuple[Rescaling, ...], curvature: float | None) -> None:
        print(f"{self.optimizer.optimizer}, a batch {number(self.batch_ratio)} times as large (δ)\n")
        table = [["", "now", *(row.preset for row in found)]]
        for key, value in given.items():
            new = [number(row.hyperparameters[key]) if row.hyperparameters else "—" for row in found]
            table.append([key, number(value), *new])
        print_rows(table)
        for row in found:
            print(f"\n{row.preset}: {row.meaning}.")
            for key, why in row.reasons.items():
                print(f"  {key}: {why}.")
            if row.refused:
                print(f"  {row.refused}")
            elif row.largest_ratio < float("inf"):
                limit = number(row.largest_ratio)
                average = "the momentum" if self.optimizer.optimizer == "sgd" else "a β"
                print(f"  The batch can grow by less than {limit} times before {average} reaches 0.")
            stability = row.stability(curvature)
            if stability:
                print(f"  {stability[0].upper()}{stability[1:]}.")
        if self.optimizer.optimizer == "sgd":
            print("\nThe rules hold however large the gradient is beside its noise; their limit is ηλ_max.")
            if any(row.preset == "linear" for row in found) and given.get("momentum"):
                print("nk.scale_hyperparameters takes linear: with momentum, sde multiplies lr by δ².")
        else:
            print(
                "\nThe rules assume that noise dominates the gradient of one minibatch, at both batch sizes."
            )

    def _regime(self, tree: xr.DataTree) -> list[dict[str, Any]]:
        """Return, for the old and the new batch, whether the noise of the file dominates."""
        from noisekit.study import predict

        lines = []
        name, options = self.optimizer.optimizer, self.optimizer.given()
        options["learning_rate"] = self.optimizer.learning_rate
        first = predict(tree, name, batch_size=self.optimizer.batch_size, **options)
        later = max(1, round(first.batch_size * self.batch_ratio))
        both = first, predict(tree, name, batch_size=later, **options)
        for size, found in zip((first.batch_size, later), both, strict=True):
            gauge = next((g for g in found.gauges if g.name == "signal_over_noise"), None)
            text = f"Batch {size}: the file does not tell how the signal compares with the noise."
            if gauge is not None:
                ratio = f"{number(gauge.value, 2)}{_ends(gauge)}"
                text = f"Batch {size}: signal over noise {ratio}, {_rules(gauge, name)}."
            if not found.exists:
                text = f"Batch {size}: {found.verdict[0]}"
            value = None if gauge is None else gauge.value
            ends = (
                {"lower": None, "upper": None}
                if gauge is None
                else {"lower": gauge.lower, "upper": gauge.upper}
            )
            lines.append({"batch_size": size, "signal_over_noise": value, **ends, "text": text})
        return lines


def _ends(gauge: Gauge) -> str:
    return f" (95 % {between(gauge.lower, gauge.upper)})" if gauge.lower < gauge.upper else ""


def _rules(gauge: Gauge, name: str) -> str:
    """Return whether the rules apply, for all that the record tells."""
    if name == "sgd":
        return "at which the rules apply as at any"
    if gauge.verdict == "ok":
        return "the rules apply"
    if gauge.value <= gauge.limit:
        return "the rules seem to apply, but the record is too short to be sure"
    return "the rules are off by about this share"
