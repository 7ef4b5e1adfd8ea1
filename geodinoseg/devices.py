"""Where and how exactly tensors are computed: device, precision, and what to do out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch

from geodinoseg.errors import DeviceError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_Result = TypeVar("_Result")


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU without one.

    Raises:
        DeviceError: the name is none, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r}: give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"only {count} of them" if count else "no GPU"
            raise DeviceError(f"device {name!r}: there is {found} here; give cpu or auto.")
    elif device.type != "cpu":
        raise DeviceError(f"device {name!r}: give auto, cpu, cuda or cuda:N.")
    return device


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype in which the network computes; weights and sums stay float32.

    `auto` is float32 on the CPU, where half precision is slower; on a GPU bfloat16, or float16
    where it has no bfloat16.

    Raises:
        DeviceError: the name is none.
    """
    if precision not in get_args(Precision):
        raise DeviceError(f"precision {precision!r}: give one of {', '.join(get_args(Precision))}.")
    if precision != "auto":
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Run matrix products in dtype; nothing to do for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU by way of pinned memory, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def in_halves_when_full(
    compute: Callable[[torch.Tensor, torch.Tensor], _Result],
    first: torch.Tensor,
    second: torch.Tensor,
    join: Callable[[list[_Result]], _Result],
) -> _Result:
    """compute(first, second); where the device's memory does not hold it, half the batch at a time.

    Args:
        compute: takes slices of both tensors along their first axis.
        first: (batch, ...).
        second: (batch, ...).
        join: puts the results of the halves together again, in order.

    Raises:
        DeviceError: a batch of one does not fit.
    """
    try:
        return compute(first, second)
    except torch.OutOfMemoryError as error:
        count = len(first)
        if count == 1:
            raise DeviceError(
                "the device's memory does not hold one tile; give smaller tiles (--tile), another "
                "device, or a smaller backbone."
            ) from error
    # Outside the handler: the error would keep the failed attempt's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = count // 2
    halves = (slice(0, middle), slice(middle, count))
    return join([in_halves_when_full(compute, first[h], second[h], join) for h in halves])
