"""What a study does, in numbers, with defaults that finish in minutes on two cores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from noisekit.errors import InputError, unknown_name
from noisekit.study.device import check_device

LEARNING_RATES: dict[str, float] = {
    "sgd": 0.02,
    "signsgd": 0.0005,
    "rmsprop": 0.0005,
    "rmspropw": 0.0005,
    "adam": 0.001,
    "adamw": 0.001,
}
"""Learning rate of each optimizer that a study can compare, if none is given."""

MOST = 10**9
"""Largest number of anything that a study counts."""


@dataclass(frozen=True)
class StudyConfig:
    """What a study does.

    First a network trains on all its data while the noise of its gradients is recorded. Then, from where
    training ended, SDE paths and real runs of each optimizer start on a subset of the data, small enough that
    the SDE's exact noise covariance can be had at every step.
    """

    optimizers: tuple[str, ...] = ("sgd", "adam")
    """Optimizers to predict and to run: sgd, signsgd, rmsprop, rmspropw, adam, adamw."""
    learning_rates: tuple[float, ...] = ()
    """One learning rate for each optimizer, in their order; empty takes the defaults."""
    weight_decay: float = 0.0
    """Weight decay of every compared optimizer."""
    batch_size: int = 32
    """Samples in a minibatch of the compared optimizers."""
    steps: int = 40
    """Optimizer steps to compare."""
    warmup_steps: int = 20
    """Real steps before the comparison, so that the SDE starts from the optimizer's own state."""
    replicates: int = 32
    """Number of SDE paths, and of real runs, of each optimizer."""
    substeps: int = 2
    """SDE integration steps for one optimizer step; the discretisation error comes from twice as many."""
    save_every: int = 4
    """Optimizer steps between saved instants."""
    artificial_noise: float = 0.1
    """Standard deviation of the Gaussian noise added to the gradient of a problem without samples."""
    n_samples: int = 512
    """Training samples in the subset on which optimizers are compared."""
    training_steps: int = 94
    """Optimizer steps of the recorded training run."""
    training_batch_size: int = 128
    """Samples in a minibatch of the recorded training run."""
    training_learning_rate: float = 0.1
    """Learning rate of the recorded training run, by SGD."""
    record_every: int = 4
    """Steps between recorded batches."""
    coordinates: int = 512
    """Number of parameters whose per-sample gradients are kept."""
    sketch: int = 64
    """Dimensions of the random projection of each sample's gradient; 0 keeps none."""
    seed: int = 0
    """Seed of every random number in the study."""
    device: str | None = None
    """cpu or cuda; where the problem puts itself if not given, which is the CPU for those of the list."""

    def check(self) -> None:
        """Raise InputError for the first setting that cannot be used, saying what is needed instead."""
        if not self.optimizers:
            raise InputError(f"A study needs an optimizer: one or more of {', '.join(LEARNING_RATES)}.")
        for name in self.optimizers:
            if name not in LEARNING_RATES:
                raise unknown_name("optimizer", name, LEARNING_RATES)
        if len(set(self.optimizers)) < len(self.optimizers):
            raise InputError(f"An optimizer is named twice in {', '.join(self.optimizers)}; name each once.")
        if self.learning_rates and len(self.learning_rates) != len(self.optimizers):
            raise InputError(
                f"There are {len(self.learning_rates)} learning rates for {len(self.optimizers)} optimizers; "
                "give one for each, in the same order, or none."
            )
        for rate in (*self.learning_rates, self.training_learning_rate):
            if not 0 < rate < float("inf"):
                raise InputError(f"A learning rate is {rate}; it needs to be a positive number.")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(
                f"weight_decay is {self.weight_decay}; it needs to be zero or a positive number."
            )
        if not 0 <= self.artificial_noise < float("inf"):
            raise InputError(f"artificial_noise is {self.artificial_noise}; it needs to be zero or positive.")
        self._check_counts()
        check_device(self.device)

    def _check_counts(self) -> None:
        may_be_zero = {"warmup_steps", "sketch", "seed"}
        smallest = {"replicates": 2, "training_batch_size": 4, "coordinates": 2, "n_samples": 2}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int):
                least = 0 if field.name in may_be_zero else smallest.get(field.name, 1)
                if value < least:
                    raise InputError(f"{field.name} is {value}; it needs to be at least {least}.")
                if value > MOST:
                    raise InputError(f"{field.name} is {value}; it needs to be at most {MOST:,}.")
        if self.substeps & (self.substeps - 1):
            raise InputError(
                f"substeps is {self.substeps}; it needs to be a power of two, such as 2, 4 or 8."
            )
        if self.batch_size > self.n_samples:
            raise InputError(
                f"batch_size is {self.batch_size} and n_samples is {self.n_samples}; "
                "a minibatch cannot be larger than the subset it is drawn from."
            )
        for name in ("steps", "warmup_steps"):
            if getattr(self, name) % self.save_every:
                raise InputError(
                    f"{name} is {getattr(self, name)}, which is not a multiple of save_every, "
                    f"{self.save_every}; choose one that is, so that the last instant is saved."
                )

    def learning_rate(self, optimizer: str) -> float:
        """Return the learning rate of one of the study's optimizers."""
        if self.learning_rates:
            return self.learning_rates[self.optimizers.index(optimizer)]
        return LEARNING_RATES[optimizer]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings with the learning rates written out, for the file."""
        return asdict(self) | {"learning_rates": [self.learning_rate(name) for name in self.optimizers]}

    def command(self, problem: str) -> str:
        """Return the command line that repeats a study of ``problem`` with these settings."""
        return command_line("run", problem, self)


def command_line(command: str, problem: str, config: Any) -> str:
    """Return the line that repeats ``command`` with the settings of a dataclass, without its defaults."""
    words = [f"noisekit {command}", problem]
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default and field.name != "seed":
            continue
        written = " ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
        words.append(f"--{field.name.replace('_', '-')} {written}")
    return " ".join(words)
