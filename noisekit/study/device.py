"""Where a study computes."""

from __future__ import annotations

from noisekit.errors import InputError, unknown_name


def check_device(device: str | None) -> None:
    """Raise InputError unless ``device`` is None, "cpu", or a CUDA device that is here ("cuda", "cuda:1").

    >>> check_device("cpu")
    """
    if device is None or device == "cpu":
        return
    kind, _, index = device.partition(":") if isinstance(device, str) else (device, "", "")
    if kind != "cuda" or (":" in str(device) and not index.isdigit()):
        raise unknown_name("device", device, ("cpu", "cuda"))
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise InputError(
            f"The device is {device!r}, and torch finds no CUDA device here; take cpu, or install a build of "
            "torch with CUDA."
        )
    if index and int(index) >= count:
        raise InputError(f"The device is {device!r}, and there are {count} CUDA devices, counted from 0.")
