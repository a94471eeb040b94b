"""The state of an optimiser by parameter name, so that it outlives the order of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from medmtl.checkpoint.reading import Tensors
from medmtl.errors import ArtefactError


def optimiser_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The state of an optimiser by parameter name.

    Args:
        optimizer: one that keeps tensors only, such as AdamW, or SGD with momentum.
        names: parameter -> unique name, for every parameter that it holds.

    Returns:
        ``NAME.SLOT`` -> tensor (for AdamW ``exp_avg``, ``exp_avg_sq`` and ``step``, for SGD ``momentum_buffer``),
        without entries for parameters that were never stepped; and per parameter group its ``params`` (names) and
        ``options``, fit for JSON.
    """
    plain = optimizer.state_dict()
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    tensors = {f"{ordered[i]}.{slot}": value for i, entry in plain["state"].items() for slot, value in entry.items()}
    groups = [
        {
            "params": [ordered[i] for i in group["params"]],
            "options": {key: value for key, value in group.items() if key != "params"},
        }
        for group in plain["param_groups"]
    ]
    return tensors, groups


def load_optimiser(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.nn.Parameter, str],
    tensors: Tensors,
    state: list[dict[str, Any]],
) -> None:
    """Put back what :func:`optimiser_tensors` returned; whatever state the optimiser had is dropped.

    Args:
        optimizer: built as the saved one was.
        names: parameter -> name.
        tensors: ``NAME.SLOT`` -> tensor; copied.
        state: the parameter groups.

    Raises:
        ArtefactError: groups, parameters, options, slots or shapes differ from those of this optimiser.
    """
    plain = optimizer.state_dict()
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    present = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    if [group["params"] for group in state] != present:
        raise ArtefactError(
            "the checkpoint's optimiser holds other parameters than this model; it cannot be resumed", code="B155"
        )
    for group, saved in zip(plain["param_groups"], state, strict=True):
        options = saved["options"]
        if options.keys() != group.keys() - {"params"}:
            raise ArtefactError(
                "the checkpoint's optimiser has other options; resume with the version it was made with", code="B155"
            )
        # JSON has no tuples, and some options (betas) are one.
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})
    plain["state"] = _entries({names[parameter]: parameter for parameter in ordered}, tensors)
    optimizer.load_state_dict(plain)


def _entries(parameters: dict[str, torch.Tensor], tensors: Tensors) -> dict[int, dict[str, torch.Tensor]]:
    index = {name: i for i, name in enumerate(parameters)}
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition(".")
        if name not in parameters or (value.dim() and value.shape != parameters[name].shape):
            raise ArtefactError(
                f"the checkpoint's optimiser entry {key!r} fits no parameter of this model", code="B151"
            )
        entries.setdefault(index[name], {})[slot] = value.clone()
    if len({frozenset(entry) for entry in entries.values()}) > 1:
        raise ArtefactError(
            "the checkpoint's optimiser lacks entries of some parameters; it cannot be resumed exactly", code="B155"
        )
    return entries
