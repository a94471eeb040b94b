"""A stand-in for a GPU: a device whose tensors the CPU computes, and which may not meet the CPU's own.

    python -m tests.other_device JOB.json

Trains and predicts there what the job lists, and writes to its ``answer`` where in a training step the host waited for
the device; copies to it are not counted. It is a process of its own, because torch takes such a device for good.

What it shows: of what is run on it, every tensor lies where its computation is, and the numbers are the CPU's. What it
cannot show: the arithmetic, the precisions and the memory of a real GPU.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
# as on a GPU, an index may come from the CPU
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
SIZED_BY_VALUES = (aten.nonzero.default, aten.masked_select.default)


class Elsewhere(torch.Tensor):
    """A tensor of the other device; ``held`` is what the CPU computes with.

    Attributes:
        waits: function of medmtl -> times that it made the host wait for the device.
    """

    waits: ClassVar[Counter[str]] = Counter()
    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        layout: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        device = torch.device(NAME, 0)
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=device, **layout)
        assert isinstance(made, Elsewhere)
        made.held = held
        return made

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [tuple(t.shape) for t in tensors if not isinstance(t, cls) and t.ndim]
        if here and func not in (*MOVES, *INDEXED):
            raise RuntimeError(f"{func} of tensors {here} on the CPU and others on another device")
        stays = isinstance(args[0], cls) if func is aten.copy_.default else True
        if "device" in kwargs and kwargs["device"] is not None:
            stays = torch.device(kwargs["device"]).type == NAME
            kwargs = {**kwargs, "device": torch.device("cpu") if stays else kwargs["device"]}
        by_mask = func is aten.index.Tensor and any(t is not None and t.dtype is torch.bool for t in args[1])
        if not stays or by_mask or func is aten._local_scalar_dense.default or func in SIZED_BY_VALUES:
            cls.waits[_caller()] += 1
        own = {id(t.held): t for t in tensors if isinstance(t, cls)}  # what works in place gives back its own

        def placed(value: Any) -> Any:
            if not stays or not isinstance(value, torch.Tensor):
                return value
            return own[id(value)] if id(value) in own else cls(value)

        return tree_map(placed, func(*tree_map(_held, args), **tree_map(_held, kwargs)))


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value


def _caller() -> str:
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("medmtl."):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"


def _empty(size: Any, stride: Any = None, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> torch.Tensor:
    if stride is not None:
        return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))
    return Elsewhere(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _copy(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _held(to).copy_(_held(source))
    return to


class _Autocast(torch.autocast):
    """Off on the other device, for which torch has no kernels of lower precision."""

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True) -> None:
        super().__init__(device_type, dtype, enabled=enabled and device_type != NAME)


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device, known to torch; once in a process."""
    _setup_privateuseone_for_python_backend(NAME)
    known: Any = torch
    known.elsewhere.get_amp_supported_dtype = lambda: [torch.float32]
    known.autocast = _Autocast
    known.inference_mode = torch.no_grad  # a subclass cannot be made from a tensor of the inference mode
    library = known.library.Library("aten", "IMPL")
    for name, kernel in {"empty_strided": _empty, "empty.memory_format": _empty, "copy_": _copy}.items():
        library.impl(name, kernel, "PrivateUse1")
    yield torch.device(NAME, 0)
    del library  # with it, its kernels go


def main(job: dict[str, Any]) -> None:
    """Train every run of a job on the other device, and predict there with the CPU's."""
    with other_device() as device:
        from medmtl import api
        from medmtl.training import loop, step

        waits: dict[str, dict[str, int]] = {}

        def counted(*args: Any) -> Any:
            Elsewhere.waits.clear()
            record = step.train_step(*args)
            waits[run["out"]] = dict(Elsewhere.waits)
            return record

        asked = property(lambda self: device, lambda self, value: None)
        with (
            patch("medmtl.distributed.Ranks.device", lambda self, kind: device),
            patch("medmtl.inference.predict.Predictor.device", asked, create=True),
            patch.object(loop, "train_step", counted),
        ):
            for run in job["runs"]:
                api.train(run["config"], run["out"], device="cpu", overrides=run["overrides"])
                api.predict(run["predicts"], [run["table"]], f"{run['out']}-predicted", device="cpu")
    Path(job["answer"]).write_text(json.dumps(waits))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
