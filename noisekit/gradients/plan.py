"""How the per-sample gradients of an examined model are taken, and how far that is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from noisekit.gradients.hooks import Layout, Target
from noisekit.gradients.layer_rules import find_rule
from noisekit.gradients.losses import Reduction
from noisekit.gradients.model_state import ModelState


@dataclass(frozen=True)
class Trust:
    """How passes with a loss may be taken."""

    by_samples: bool
    """Without autograd's gradient of the parameters, which the samples have been seen to add up to."""
    samples_by_graph: int = 0
    """Up to how many samples without hooks, the layers being read off the graph."""


@dataclass(frozen=True)
class Plan:
    """How the per-sample gradients of a model are taken: by hooks where exact, by replay for the rest."""

    layouts: Mapping[str, Layout]
    targets: tuple[Target, ...]
    hooked: tuple[str, ...]
    replayed: tuple[str, ...]
    replay_engine: str
    """"vmap", "loop" or "masked"."""
    unused: tuple[str, ...]
    """Trainable parameters that the outputs do not depend on."""
    stochastic: bool
    """Whether a forward pass draws random numbers."""
    frontier: tuple[int, ...] = ()
    """The outputs that a loss inside the model is computed from."""
    state: ModelState | None = None
    """The model as it was when it was examined."""
    reductions: WeakKeyDictionary[Any, Reduction] = field(default_factory=WeakKeyDictionary)
    """How the losses seen so far are reduced."""
    losses: dict[Any, Any] = field(default_factory=dict)
    """Loss functions with the further arguments that a loop gives them."""
    selections: dict[Any, Any] = field(default_factory=dict)
    """Drawn coordinates and sketches by what was asked for."""
    trust: WeakKeyDictionary[Any, Trust] = field(default_factory=WeakKeyDictionary)
    """What has been seen of passes with each loss."""

    def doubt(self, loss_fn: Any) -> None:
        """Go back to autograd's gradients for this loss, and compare the samples with them once more."""
        self.trust[loss_fn] = Trust(by_samples=False)
        for selection in self.selections.values():
            selection.checked = False

    @cached_property
    def coverage(self) -> float:
        """The fraction of the trainable parameters that the outputs depend on."""
        assert self.state is not None
        sizes = {name: p.numel() for name, p in self.state.trainable().items()}
        return sum(n for name, n in sizes.items() if name not in self.unused) / sum(sizes.values())

    @cached_property
    def hooks_suffice(self) -> bool:
        """Whether layer rules see every parameter."""
        return not self.replayed and not self.frontier and all(target.rule for target in self.targets)

    @cached_property
    def dense(self) -> bool:
        """Whether all layers are linear ones on vectors, one a sample as far as was seen."""
        of_linear = find_rule(nn.Linear(1, 1))
        plain = all(self.layouts[t.module_name] == Layout() for t in self.targets if t.rule)
        return self.hooks_suffice and plain and all(t.rule is of_linear for t in self.targets)
