"""Where and how exactly tensors are computed: device, precision, and what to do out of memory."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch

from geodinoseg.errors import DeviceError, DeviceMemoryError
from geodinoseg.model.parameters import check_device_name

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_Result = TypeVar("_Result")

_CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory"


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU without one.

    Raises:
        DeviceError: there is no such device.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"only {count} of them" if count else "no GPU"
            raise DeviceError(f"device {name!r}: there is {found} here; give cpu or auto.")
    return device


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype in which the network computes; weights and sums stay float32.

    `auto` is float32 on the CPU, where half precision is slower; on a GPU bfloat16, or float16
    if the GPU lacks bfloat16.
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
    """The tensor on the device; copied to a GPU from pinned memory, asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full, and nothing else.

    The CPU allocator has no error of its own: it raises RuntimeError with this message.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError | DeviceMemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_IS_FULL in str(error)


def give_memory_back(device: torch.device) -> None:
    """Free the memory that PyTorch caches, so that pieces of another size find room."""
    gc.collect()  # a traceback is a cycle, and keeps the failed attempt's tensors
    if device.type == "cuda":
        torch.cuda.empty_cache()


class FittingBatches:
    """Runs batches through a network, in pieces no larger than what has fitted so far."""

    def __init__(self, size: int, *, is_trial: bool = False) -> None:
        """Begin with pieces of a size; a trial finds the size that fits, without a warning."""
        self.size = size
        self._is_trial = is_trial

    def run(
        self,
        compute: Callable[[torch.Tensor, torch.Tensor], _Result],
        first: torch.Tensor,
        second: torch.Tensor,
        join: Callable[[list[_Result]], _Result],
    ) -> _Result:
        """compute(first, second) over slices of their first axis, joined in order.

        Slices are halved from now on when memory is full; DeviceMemoryError when one tile does
        not fit.
        """
        results: list[_Result] = []
        done = 0
        while done < len(first):
            piece = slice(done, done + self.size)
            result = self._tried(compute, first[piece], second[piece])
            if result is not None:
                results.append(result)
                done += len(first[piece])
        return results[0] if len(results) == 1 else join(results)

    def _tried(
        self,
        compute: Callable[[torch.Tensor, torch.Tensor], _Result],
        first: torch.Tensor,
        second: torch.Tensor,
    ) -> _Result | None:
        """The result; None if memory was full, and pieces are smaller now."""
        try:
            return compute(first, second)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(first) == 1:
                raise DeviceMemoryError(
                    "memory is too small for one tile; give smaller tiles (--tile), another "
                    "device, or a smaller backbone."
                ) from error
        # Outside the handler: the error would keep the failed attempt's tensors alive.
        give_memory_back(first.device)
        self.size = len(first) // 2
        if not self._is_trial:
            logger.warning(
                "memory is too small for batches of %d tiles; continuing with %d. The last digits "
                "of probabilities may differ from a run with enough memory; give --batch-size %d "
                "to use this size throughout.",
                len(first),
                self.size,
                self.size,
            )
        return None
