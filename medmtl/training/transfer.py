"""Starting from another run's trunk: which of its tensors fit, and whether that keeps validation honest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medmtl.checking import Checked
from medmtl.checking.known import Known, inherited, trained_on
from medmtl.data.case import Case, named
from medmtl.errors import ArtefactError, InputError
from medmtl.model import MultiTaskModel
from medmtl.run_folder import RunFolder, no_checkpoint

logger = logging.getLogger(__name__)

TRUNKS = ("sharing.", "second_sharing.")
DECODERS = ("sharing.decoders.", "second_sharing.decoders.")  # of no use without the encoder that they read
SHOWN = 3  # cases and tensors that a message names


@dataclass(frozen=True)
class Initial:
    """What a run starts from.

    Attributes:
        tensors: name -> tensor of the donor that fits the new trunk.
        record: for the manifest: ``weights_sha256`` of the donor, how many tensors ``matched``, and the names that are
            ``absent`` there or have ``other_shape``.
    """

    tensors: Mapping[str, torch.Tensor]
    record: Mapping[str, Any]


def take_trunk(donor: RunFolder, model: MultiTaskModel) -> Initial:
    """The donor's newest trunk, averaged where it has an average, as far as name and shape of a tensor agree.

    Args:
        donor: a run with a commit; its heads are left alone.
        model: the new model, on the CPU.

    Raises:
        InputError: B141 if nothing of an encoder fits.
        ArtefactError: if the donor has no whole commit.
    """
    stored = donor.newest()
    if stored is None:
        raise no_checkpoint(donor)
    group = "average" if "average" in stored.tensors else "model"
    theirs = stored.tensors[group]
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TRUNKS)}
    # norms of a second view begin as those of the first, as they do without a donor
    theirs = {**{name: theirs[first] for name in own if (first := _first_norm(name)) in theirs}, **theirs}
    absent = sorted(own.keys() - theirs.keys())
    other = sorted(name for name in own.keys() & theirs.keys() if not _fits(own[name], theirs[name]))
    matched = {name: theirs[name] for name in own if name not in {*absent, *other}}
    if all(name.startswith(DECODERS) for name in matched):
        raise InputError(
            f"no encoder of {donor.path.name} fits the network of this plan (tensors are matched by name and shape); "
            "set plan.width, plan.max_width, plan.spacing, network and sharing as they are in that run",
            code="B141",
        )
    logger.info("%d of %d tensors of the trunk come from %s", len(matched), len(own), donor.path.name)
    if absent or other:
        shown = ", ".join([*absent, *other][:SHOWN])
        logger.warning(
            "%d tensors start afresh: %d are absent in %s and %d have another shape there (%s%s)",
            len(absent) + len(other), len(absent), donor.path.name, len(other), shown,
            ", ..." if len(absent) + len(other) > SHOWN else "",
        )  # fmt: skip
    record = {
        "weights_sha256": stored.sha256[group],
        "matched": len(matched),
        "absent": absent,
        "other_shape": other,
    }
    return Initial(matched, record)


def refuse_other_order(donor: RunFolder, channels: Sequence[str]) -> None:
    """Refuse channels that stand at other places in the donor: its first convolution would take one for another.

    Args:
        donor: the other run.
        channels: this run's, in input order.

    Raises:
        InputError: B141, naming the first one.
    """
    theirs = donor.load_plan().preparation.channels
    for place, name in enumerate(channels):
        if name in theirs and theirs.index(name) != place:
            raise InputError(
                f"channel {name} is number {place + 1} here and number {theirs.index(name) + 1} in init.run "
                f"{donor.path.name}, whose weights go by number; write cohort.channels in its order, "
                f"{', '.join(theirs)}",
                code="B141",
            )


def seen_by(donor: RunFolder) -> list[Known]:
    """What a donor was trained on, and what those had seen from whose trunks it comes; nothing twice.

    Raises:
        ArtefactError: if its manifest is damaged.
    """
    manifest = donor.load_manifest()
    found: list[Known] = []
    for record in (trained_on(manifest), *inherited(manifest)):
        if record not in found:
            found.append(record)
    return found


def refuse_leak(donor: RunFolder, seen: Sequence[Known], held_out: Sequence[Case], checked: Checked) -> None:
    """Refuse a donor that was trained on what this run holds out: its score would not be one of unseen patients.

    Args:
        donor: the other run.
        seen: of :func:`seen_by`; a held-out case is among them if its patient is, or one of its images.
        held_out: validation and test cases of this run.
        checked: this run's cohort.

    Raises:
        InputError: names the first cases.
    """
    known = [case for case in held_out if any(record.has_case(case, checked) for record in seen)]
    if known:
        shown = named([case.case_id for case in known[:SHOWN]], [case.row for case in known[:SHOWN]])
        through = ", or a run that it comes from," if len(seen) > 1 else ""
        raise InputError(
            f"init.run {donor.path.name}{through} may have been trained on {len(known)} of the cases that this run "
            f"holds out ({shown}); start from a run that held them out, such as the same fold of the same split"
        )


def load_trunk(model: MultiTaskModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the matched tensors into a model.

    Raises:
        ArtefactError: if one does not fit, which means that the run folder was changed.
    """
    own = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if name not in own or not _fits(own[name], tensor)]
    if wrong:
        raise ArtefactError(f"the initial weights do not fit this model: {', '.join(wrong[:SHOWN])}", code="B151")
    model.load_state_dict(dict(tensors), strict=False)


def _first_norm(name: str) -> str:
    """The first view's tensor where the name is that of a second view's norm; otherwise the name itself."""
    return name.replace(".second_weight", ".weight").replace(".second_bias", ".bias")


def _fits(own: torch.Tensor, other: torch.Tensor) -> bool:
    return own.shape == other.shape and own.dtype == other.dtype
