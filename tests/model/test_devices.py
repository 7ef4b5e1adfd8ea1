from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from geodinoseg.errors import DeviceError, DeviceMemoryError
from geodinoseg.model.devices import (
    FittingBatches,
    autocast,
    is_out_of_memory,
    pick_device,
    pick_precision,
    to_device,
)


def sums(pixels, valid):
    return pixels.sum(dim=1) + valid


@pytest.mark.slow
@given(count=st.integers(1, 23), fits=st.integers(1, 23))
def test_a_full_device_gets_smaller_pieces_and_the_result_is_that_of_the_whole(count, fits):
    pixels = torch.arange(count * 3, dtype=torch.float32).reshape(count, 3)
    valid = torch.arange(count)
    tried = []

    def compute(first, second):
        tried.append(len(first))
        if len(first) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sums(first, second)

    batches = FittingBatches(count)
    result = batches.run(compute, pixels, valid, torch.cat)
    assert torch.equal(result, sums(pixels, valid))
    assert sum(n for n in tried if n <= fits) == count
    failed = sum(n > fits for n in tried)
    batches.run(compute, pixels, valid, torch.cat)
    assert sum(n > fits for n in tried) == failed, "what does not fit is tried once"


def test_a_smaller_batch_is_said_with_the_option_that_makes_it_so(caplog):
    def compute(first, second):
        if len(first) > 2:
            raise torch.OutOfMemoryError
        return first

    FittingBatches(8).run(compute, torch.zeros(8, 1), torch.zeros(8), torch.cat)
    assert [r.args for r in caplog.records] == [(8, 4, 4), (4, 2, 2)]
    assert "--batch-size 2" in caplog.text


FULL = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_one_tile_that_does_not_fit_is_an_error_that_says_what_to_do(error):
    def compute(first, second):
        raise error

    with pytest.raises(DeviceMemoryError, match=r"too small for one tile; give smaller tiles"):
        FittingBatches(5).run(compute, torch.zeros(5, 1), torch.zeros(5), torch.cat)


def test_the_cpu_allocator_of_this_torch_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: illegal address"),
        ValueError("x"),
        RuntimeError("out of memory bounds: index 4"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_other_errors_pass_untouched_and_nothing_is_tried_again(error):
    calls = []

    def compute(first, second):
        calls.append(len(first))
        raise error

    with pytest.raises(type(error)) as caught:
        FittingBatches(4).run(compute, torch.zeros(4, 1), torch.zeros(4), torch.cat)
    assert caught.value is error
    assert calls == [4]


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")


def test_a_gpu_that_is_there_can_be_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="'cuda:2': there is only 2 of them here"):
        pick_device("cuda:2")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'cuda': there is no GPU here; give cpu or auto"):
        pick_device("cuda")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "CPU", "meta", "mps", "xpu"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(DeviceError, match="device"):
        pick_device(name)


def test_auto_precision_is_what_the_device_does_well(monkeypatch):
    assert pick_precision("auto", torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_precision("auto", torch.device("cuda")) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_precision("auto", torch.device("cuda")) == torch.float16


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_precision_can_be_named(name):
    assert pick_precision(name, torch.device("cpu")) == getattr(torch, name)


@pytest.mark.parametrize("name", ["", "float64", "half", "int8", "load"])
def test_precisions_that_are_none_are_refused(name):
    with pytest.raises(DeviceError, match="give one of auto, float32, bfloat16, float16"):
        pick_precision(name, torch.device("cpu"))


def test_autocast_computes_in_the_dtype_and_leaves_float32_alone():
    matrix = torch.ones(2, 2)
    with autocast(torch.device("cpu"), torch.bfloat16):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), torch.float32):
        assert (matrix @ matrix).dtype == torch.float32


def test_a_tensor_for_the_cpu_is_not_copied():
    tensor = torch.zeros(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
