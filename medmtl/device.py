"""The machine that a training runs on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from medmtl.errors import InputError, MachineError

if sys.platform != "win32":
    import resource

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Device:
    """What the plan must know of the machine.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        bf16: whether bfloat16 arithmetic is native.
        cores: processors available to this process.
    """

    kind: Literal["cpu", "cuda"]
    bf16: bool
    cores: int


def describe_device(name: DeviceName) -> Device:
    """The device asked for; ``auto`` takes a CUDA device where there is one.

    Raises:
        InputError: for another name; there is no silent CPU run.
        MachineError: if ``cuda`` is asked for and absent.
    """
    known = get_args(DeviceName)
    if name not in known:
        raise InputError(f"no device is called {name!r}; known: {', '.join(known)}", code="B164")
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("no CUDA device is available; use --device cpu or auto", code="B143")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if name != "cpu" and torch.cuda.is_available():
        return Device("cuda", torch.cuda.is_bf16_supported(including_emulation=False), cores)
    return Device("cpu", _cpu_has_bf16(), cores)


def describe_hardware(kind: str) -> str:
    """The GPU's name, or the instruction set that torch uses: what can change the last bits of a result."""
    if kind == "cuda":
        return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "no CUDA device"
    return str(torch.backends.cpu.get_cpu_capability())


def _cpu_has_bf16() -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported()) if supported is not None else False


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a network computes in a planned precision; in fp32 it changes nothing."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


@contextmanager
def true_fp32() -> Iterator[None]:
    """A GPU's fp32 is fp32 inside; by torch's own choice its convolutions would be in TF32, 10 bits of 23.

    The setting is the whole process's and is put back at the end; who has set it by operation is left with that. On a
    CPU it changes nothing.
    """
    try:
        before = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody chose, for single operations, by torch's newer names for it
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def peak_bytes(device: torch.device) -> int:
    """Most memory so far, as a plan predicts it: resident of this process on a CPU, allocated on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident_bytes()


def peak_resident_bytes(*, of_children: bool = False) -> int:
    """Most resident memory so far of this process, or of the largest of its children that ended; 0 on Windows."""
    if sys.platform == "win32":
        return 0
    whose = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
