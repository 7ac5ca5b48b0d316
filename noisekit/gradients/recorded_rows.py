"""The recorded steps of one recorder, with the moments over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients import device
from noisekit.gradients.batch import ONE_SAMPLE
from noisekit.gradients.collector import Sums
from noisekit.gradients.record import GradientRecord
from noisekit.gradients.rows import Row, RowContext, join_rows
from noisekit.gradients.streaming import RunningMoments


class RecordedRows:
    """One row a recorded step, all of one batch size; steps of another size are only counted."""

    def __init__(self, *, moments: bool):
        self.context: RowContext | None = None
        """What all rows share, known when the first batch came by."""
        self._rows: list[Row] = []
        self._skipped: list[int] = []
        self._keep_moments = moments
        self._moments: RunningMoments | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        sums: Sums,
        step: int,
        loss: Tensor,
        learning_rates: Sequence[float | Tensor],
        elapsed: float,
        given: Mapping[str, Tensor | None] | None = None,
    ) -> Row | None:
        """Keep the statistics of a step and return its row; None for a batch of another size.

        ``given`` are the gradients that the optimizer was given, by name, where they are known.

        Raises NonFiniteError for a bad sample: of this step on the CPU, of the step before on a GPU, where
        looking at this one would wait for it.
        """
        assert self.context is not None
        if self._rows and sums.n_samples != self._rows[0].n_samples:
            self._skipped.append(step)
            return None
        if sums.n_samples < 2:
            raise InputError(ONE_SAMPLE)
        means, variances = sums.means(), sums.variances()
        row = Row.of(sums, means, variances, step, loss, learning_rates, elapsed, given)
        if device.on_host(sums.squared_norms):
            row.check_finite(self._names())
        elif self._rows:
            self._rows[-1].check_finite(self._names())
        self._rows.append(row)
        if self._keep_moments:
            own = RunningMoments.of_batch(sums.n_samples, means, variances)
            self._moments = own if self._moments is None else self._moments.merge(own)
        return row

    def record(self, last: int | None = None) -> GradientRecord:
        """Return the record of all steps; or of the ``last`` ones alone, without moments.

        Raises InputError where nothing was recorded.
        """
        if last is not None and last < 1:
            raise InputError(f"last = {last}: give how many of the recorded steps you want, 1 or more.")
        if not self._rows or self.context is None:
            raise InputError(
                "Nothing was recorded: run the training loop inside the `with` block, with optimizer.step() "
                "on this optimizer, or call record(inputs, targets)."
            )
        self._rows[-1].check_finite(self._names())
        rows = self._rows if last is None else self._rows[-last:]
        return join_rows(rows, self.context, self._moments if last is None else None, list(self._skipped))

    def forget(self, keep: int) -> None:
        """Drop all rows but the last ``keep``, at least one, which says what the batch size is."""
        if keep < 1:
            raise InputError(f"keep = {keep}: the last recorded step stays, so that the batch size is known.")
        del self._rows[:-keep]

    def _names(self) -> list[str]:
        assert self.context is not None
        return list(self.context.selection.sizes)
