"""A record written to a zarr store step by step while training goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from noisekit.errors import InputError, unknown_name
from noisekit.results.attributes import storable
from noisekit.results.convert import to_datatree
from noisekit.results.growing_store import GrowingStore
from noisekit.results.io import ZARR_SUFFIX, check_output
from noisekit.results.labelled import array

if TYPE_CHECKING:
    from noisekit.gradients.record import GradientRecord
    from noisekit.gradients.recorder import GradientNoiseRecorder

Repeated = Literal["keep", "replace"]
_LIKE = {
    "gradient_noise": ("block", "block_size"),
    "gradient_noise/samples": ("coordinate", "coordinate_block"),
}


class RecordWriter:
    """Appends gradient records to a zarr store, which is readable at every moment, also after a kill.

    The store has the groups that ``to_datatree(record=...)`` makes: ``/training``, ``/gradient_noise`` and
    ``/gradient_noise/samples``. Only whole steps are ever seen in it, by noisekit and by xarray alone.

    Args:
        path: where to write, with the suffix ``.zarr``.
        provenance: root attributes, as ``provenance`` returns them.
        resume: continue what is at ``path``, where a run before stopped or was killed; nothing there is fine.
        repeated: what to do with steps that the store has already, when a run that was restarted from a
            checkpoint goes over them again: ``"keep"`` those that are stored, or ``"replace"`` them, and all
            after them.
        overwrite: whether what exists at ``path`` may be replaced, when ``resume`` is not asked for.

    Raises:
        InputError: if the path cannot be written to, or holds a record of other things.
        FileFormatError: if what is at ``path`` cannot be continued.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provenance: Mapping[str, Any] | None = None,
        resume: bool = False,
        repeated: Repeated = "keep",
        overwrite: bool = False,
    ):
        if repeated not in ("keep", "replace"):
            raise unknown_name("way with repeated steps", repeated, ("keep", "replace"))
        self.path = check_output(path, overwrite=overwrite or resume, suffixes=(ZARR_SUFFIX,))
        self._provenance = storable(provenance or {})
        self._overwrite, self._repeated = overwrite and not resume, repeated
        self._store: GrowingStore | None = None
        self._checked = False
        self._before = -1
        """The last step that was stored before this writer began."""
        if resume and self.path.exists():
            self._resume()

    @property
    def n_steps(self) -> int:
        """Number of recorded steps in the store."""
        return 0 if self._store is None else self._store.length

    def append(self, record: GradientRecord) -> int:
        """Add the steps of ``record`` to the store and return how many there were to add."""
        if self._before >= 0:
            record = self._without_repeated(record)
        if len(record.step) == 0:
            return 0
        tree = to_datatree(record=record, provenance=self._provenance)
        if self._store is None:
            self._store = GrowingStore.create(self.path, tree, overwrite=self._overwrite)
            return len(record.step)
        self._check_like(tree)
        self._store.append(tree)
        self._store.set_attributes("training", storable(tree["training"].to_dataset().attrs))
        return len(record.step)

    def _resume(self) -> None:
        self._store = GrowingStore(self.path)
        if self._store.length == 0:
            return
        self._before = int(self._store.steps()[-1])
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._store.read() as tree:
            history = str(tree.attrs.get("history", ""))
        line = f"{now} continued after step {self._before}"
        self._store.set_attributes("", {"history": f"{history}\n{line}".strip()})

    def _without_repeated(self, record: GradientRecord) -> GradientRecord:
        """Return the steps of ``record`` that are to be written; cut the store where they replace others."""
        assert self._store is not None
        step = array(record.step)
        if self._repeated == "keep":
            return select_steps(record, step > self._before)
        if len(step):
            self._store.truncate(int((self._store.steps() < step[0]).sum()))
            self._before = -1
        return record

    def _check_like(self, tree: xr.DataTree) -> None:
        """Raise InputError unless ``tree`` speaks of the same parameters and batch as the store."""
        assert self._store is not None
        if self._checked:
            return
        with self._store.read() as stored:
            for group, names in _LIKE.items():
                have, came = (t[group].to_dataset() for t in (stored, tree))
                for name in names:
                    if name not in have.variables and name not in came.variables:
                        continue
                    same = name in have.variables and name in came.variables
                    if not same or not np.array_equal(have[name].values, came[name].values):
                        raise InputError(
                            f"{self.path} holds a record of other parameters: {name} in /{group} differs; "
                            "record with the same model, coordinates and seed, or write to another file."
                        )
                sizes = have.attrs.get("batch_size"), came.attrs.get("batch_size")
                if sizes[0] != sizes[1]:
                    raise InputError(
                        f"{self.path} holds batches of {sizes[0]} samples and a batch of {sizes[1]} came; "
                        "write to another file."
                    )
        self._checked = True


@contextmanager
def stream_record(
    recorder: GradientNoiseRecorder,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    resume: bool = False,
    repeated: Repeated = "keep",
    overwrite: bool = False,
    flush_every: int = 1,
    keep_in_memory: bool = True,
) -> Iterator[RecordWriter]:
    """Write what ``recorder`` records to a zarr store, each step as soon as it is recorded.

    The store can be opened with ``open_tree`` at any time, also after a kill; a run that is started again
    goes on with ``resume=True``, after ``recorder.step`` was set to the step of its checkpoint.
    ``recorder.on_record`` is called as before. Of several processes that train together one streams.

    Args:
        recorder: a GradientNoiseRecorder.
        path, provenance, resume, repeated, overwrite: of the ``RecordWriter``.
        flush_every: recorded steps that are written together; a kill loses fewer than that many.
        keep_in_memory: whether the recorder keeps all steps too; without, memory does not grow, and
            ``recorder.result()`` is what was recorded last.

    >>> import tempfile, torch
    >>> from noisekit.gradients import GradientNoiseRecorder, every
    >>> model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> recorder = GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1))
    >>> path = f"{tempfile.mkdtemp()}/run.zarr"
    >>> with recorder, stream_record(recorder, path) as writer:
    ...     for _ in range(3):
    ...         loss_fn(model(torch.randn(8, 2)), torch.randn(8, 1)).backward()
    ...         optimizer.step()
    >>> writer.n_steps
    3
    """
    writer = RecordWriter(path, provenance=provenance, resume=resume, repeated=repeated, overwrite=overwrite)
    if not isinstance(flush_every, int) or flush_every < 1:
        raise InputError(f"flush_every = {flush_every!r}; it needs a whole number of steps, 1 or more.")
    own, waiting = recorder.on_record, 0

    def flush() -> None:
        nonlocal waiting
        if waiting:
            writer.append(recorder.result(last=waiting))
        waiting = 0
        if not keep_in_memory:
            recorder.forget()

    def on_record(numbers: dict[str, float]) -> None:
        nonlocal waiting
        waiting += 1
        if waiting >= flush_every:
            flush()
        if own is not None:
            own(numbers)

    recorder.on_record = on_record
    try:
        yield writer
    finally:
        recorder.on_record = own
        flush()


def select_steps(record: GradientRecord, wanted: np.ndarray) -> GradientRecord:
    """Return the recorded steps of ``record`` where ``wanted`` (step,) is true."""
    from noisekit.gradients.rows import ALONG_STEPS

    if wanted.all():
        return record
    places = np.flatnonzero(wanted)
    chosen: dict[str, Any] = {}
    for name in ALONG_STEPS:
        values = getattr(record, name)
        chosen[name] = None if values is None else values[places]
    return replace(record, **chosen)
