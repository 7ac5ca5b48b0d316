"""Settings worth trying instead of those asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from noisekit.errors import InputError
from noisekit.study.applied import for_the_mean
from noisekit.study.curvature import Curvature
from noisekit.study.intervals import interval
from noisekit.study.pace import steps_to_fall
from noisekit.study.prediction_figures import progress_of_a_step
from noisekit.study.setting import Setting
from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.scaling import scaled_hyperparameters

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Trial:
    """One setting: what it is for, its hyper-parameters in torch's names, its floor and its pace.

    Ends of 95 % intervals are NaN where the file does not tell them.
    """

    what: str
    optimizer: str
    batch_size: int
    hyperparameters: dict[str, Any]
    floor: float
    floor_lower: float
    floor_upper: float
    steps_to_fall: float
    """To 1/e, along the sharpest direction."""
    steps_lower: float
    steps_upper: float
    progress_of_a_step: float
    """NaN where the noise scale is not told from infinity."""
    progress_lower: float
    progress_upper: float
    note: str


def trials(tree: xr.DataTree, setting: Setting, curvature: Curvature | None) -> tuple[Trial, ...]:
    """Return the setting itself and what to try: another batch, a lower learning rate, a stable one."""
    found = [_trial("as asked", setting, curvature, "")]
    scaled = _other_batch(tree, setting, curvature)
    if scaled is not None:
        found.append(_trial("batch near the noise scale", scaled[0], curvature, scaled[1]))
    half = _with_rate(setting, setting.hyper.learning_rate / 2)
    slower = _stable(setting, curvature)
    if slower is None or steps_to_fall(half, curvature)[0] != math.inf:
        found.append(_trial("half the learning rate", half, curvature, "half the floor"))
    if slower is not None:
        note = "learning rate times sharpness at 0.5, where the SDE follows the optimizer"
        found.append(_trial("a stable learning rate", slower, curvature, note))
    return tuple(found)


def _trial(what: str, setting: Setting, curvature: Curvature | None, note: str) -> Trial:
    floor, error = setting.floor()
    low, high = interval(floor, error)
    fall, progress = steps_to_fall(setting, curvature), progress_of_a_step(setting)
    return Trial(
        what=what,
        optimizer=setting.hyper.optimizer,
        batch_size=setting.batch_size,
        hyperparameters=_as_torch(setting.hyper),
        floor=floor,
        floor_lower=low,
        floor_upper=high,
        steps_to_fall=fall[0],
        steps_lower=fall[1],
        steps_upper=fall[2],
        progress_of_a_step=progress[0],
        progress_lower=progress[1],
        progress_upper=progress[2],
        note=note,
    )


def _other_batch(
    tree: xr.DataTree, setting: Setting, curvature: Curvature | None
) -> tuple[Setting, str] | None:
    """Return the setting at the power of two next to the noise scale, scaled so that its SDE stays."""
    scale, batch = setting.noise.scale, setting.batch_size
    if setting.infinite or not scale.identifiable or not 0 < scale.value < math.inf:
        return None
    most = int(tree.attrs.get("n_training_samples") or tree.attrs.get("n_samples") or 2**31)
    target = min(2 ** max(0, round(math.log2(scale.value))), most)
    if not (target > 1.5 * batch or target < batch / 1.5):
        return None
    limit = ""
    while target != batch:
        try:
            given = _as_torch(setting.effective)
            new = scaled_hyperparameters(setting.hyper.optimizer, given, target / batch, None)
            found = _at_batch(setting, _from_torch(setting.hyper, new), target)
            if target < batch or steps_to_fall(found, curvature)[0] != math.inf:
                same = "the same floor" if "momentum" in new else "the same SDE"
                return found, f"{same} in {batch / target:.3g} times as many steps{limit}"
            limit = "; a larger batch would be unstable"
        except InputError:
            limit = "; a larger batch would take a β to 0"
        target = 2 ** round(math.log2(target) - 1) if target > 2 * batch else batch
    return None


def _at_batch(setting: Setting, effective: Hyperparameters, batch_size: int) -> Setting:
    """Return the setting at another batch whose hyper-parameters for the mean gradient are ``effective``."""
    back = 1 / setting.noise.applied.factor(batch_size)
    return replace(setting, hyper=for_the_mean(effective, back), batch_size=batch_size)


def _stable(setting: Setting, curvature: Curvature | None) -> Setting | None:
    """Return the setting with ηλ_max (over P) at 0.5, if it is above."""
    value = math.nan if curvature is None else curvature.value * setting.pull()
    if not value > 0.5:
        return None
    return _with_rate(setting, setting.hyper.learning_rate * 0.5 / value)


def _with_rate(setting: Setting, rate: float) -> Setting:
    return replace(setting, hyper=replace(setting.hyper, learning_rate=float(f"{rate:.6g}")))


def _as_torch(hyper: Hyperparameters) -> dict[str, Any]:
    """Return the hyper-parameters that the optimizer has, by torch's names."""
    given: dict[str, Any] = {"lr": hyper.learning_rate}
    if hyper.optimizer == "sgd" and hyper.momentum:
        given["momentum"] = hyper.momentum
    if hyper.optimizer.startswith("adam"):
        given["betas"] = (hyper.momentum, hyper.beta)
    if hyper.optimizer.startswith("rmsprop"):
        given["alpha"] = hyper.beta
    if hyper.is_adaptive:
        given["eps"] = hyper.eps
    decay = hyper.coupled_decay or hyper.decoupled_decay
    return given | ({"weight_decay": decay} if decay else {})


def _from_torch(hyper: Hyperparameters, new: dict[str, Any]) -> Hyperparameters:
    first, second = new.get("betas", (new.get("momentum", hyper.momentum), new.get("alpha", hyper.beta)))
    decay = new.get("weight_decay", 0.0)
    return replace(
        hyper,
        learning_rate=new["lr"],
        momentum=first,
        beta=second,
        eps=new.get("eps", hyper.eps),
        coupled_decay=decay if hyper.coupled_decay else 0.0,
        decoupled_decay=decay if hyper.decoupled_decay else 0.0,
    )
