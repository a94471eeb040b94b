"""Hard sharing: one encoder for every task, or one whose deeper stages are copied for groups of tasks.

Caruana 1997, https://doi.org/10.1023/A:1007379606734. Voxel tasks also share one decoder, which is two thirds of the
cost, unless ``network.decoder: per_task`` gives each its own. How many stages tasks should have in common, and which
tasks, is what Misra et al. 2016 (https://arxiv.org/abs/1604.03539, figure 1) and Standley et al. 2020
(https://arxiv.org/abs/1905.07553) measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import nn

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions
from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.norm import InstanceNorm, norms
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import Sharing, SharingOptions, decoder_count, make_encoder
from medmtl.sharing.decoders import Decoders, Maps, decoder_names
from medmtl.spelling import did_you_mean
from medmtl.validation import NAME


class HardOptions(SharingOptions):
    """Options of hard sharing.

    Attributes:
        shared_stages: so many of the encoder's finest stages are common to all tasks, and each group of tasks has its
            own copy of the deeper ones; None shares all stages.
        groups: name -> tasks that have the deeper stages in common; a task in no group has a copy of its own.
    """

    shared_stages: Annotated[int, Field(ge=1)] | None = None
    groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] | None = None

    @model_validator(mode="after")
    def _groups_are_apart(self) -> HardOptions:
        if self.groups and self.shared_stages is None:
            raise ValueError(
                "groups divide the stages behind shared_stages, which is not set; set it, or leave groups away"
            )
        wrong = [group for group in self.groups or {} if not NAME.fullmatch(group)]
        if wrong:
            raise ValueError(f"the name of a group must match {NAME.pattern}, as those of tasks; rename {wrong[0]!r}")
        named = [task for tasks in (self.groups or {}).values() for task in tasks]
        twice = [task for task in dict.fromkeys(named) if named.count(task) > 1]
        if twice:
            raise ValueError(f"groups name the task {twice[0]!r} twice; it can be in one group, once")
        return self


class Hard(Sharing):
    """One encoder, and one decoder or one per voxel task; where asked for, deeper stages per group of tasks.

    Of a grouped encoder, each group starts from the same copy, and ``network.decoder: shared`` gives each group with
    a voxel task one decoder, because the maps that it reads are the group's. A group's stages are its tasks' own where
    it has one task.

    Cost against one encoder: the parameters and maps of the stages behind ``shared_stages``, and of a decoder, once
    per group. Most parameters are in the deep stages, most memory is in the fine ones.

    Args:
        options: stages in common, and groups.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "hard"
    Options = HardOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        assert isinstance(options, HardOptions)
        self._group_of = _groups(options, voxel)
        self.encoder = make_encoder(shape, network)
        decoder_of = decoder_names(voxel, network.decoder == "per_task")
        if self._group_of and network.decoder == "shared":
            decoder_of = {name: f"{self._group_of[name]}_decoder" for name in decoder_of}
        self.decoders = Decoders(shape, decoder_of)
        if self._group_of:
            common, deeper = self.encoder.stages[: options.shared_stages], self.encoder.stages[options.shared_stages :]
            self.encoder.stages = common
            self.branches = nn.ModuleDict({f"{key}_branch": deepcopy(deeper) for key in self._names()})
        self._spec = {name: shape.spec(is_voxel) for name, is_voxel in voxel.items()}

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """One encoder, or deeper stages and a decoder per group."""
        assert isinstance(options, HardOptions)
        group_of = _groups(options, voxel)
        if not group_of:
            return Towers(1, decoder_count(network, voxel))
        assert options.shared_stages is not None
        if options.shared_stages >= len(shape.channels):
            raise ValueError(
                f"shared_stages {options.shared_stages} leaves nothing to groups: the planned network has "
                f"{len(shape.channels)} stages; lower it, or leave it away to share all"
            )
        groups = list(dict.fromkeys(group_of.values()))
        members = [{name: is_voxel for name, is_voxel in voxel.items() if group_of[name] == group} for group in groups]
        return Towers(len(groups), sum(decoder_count(network, group) for group in members), options.shared_stages)

    @classmethod
    def check(cls, options: SharingOptions, tasks: Sequence[str]) -> None:
        """Groups name tasks of the file."""
        assert isinstance(options, HardOptions)
        for group, members in (options.groups or {}).items():
            for name in members:
                if name not in tasks:
                    hint = did_you_mean(name, tasks) or f"known: {', '.join(tasks)}"
                    raise ValueError(f"groups.{group}: {name!r} is no task of this file; {hint}")

    @property
    def spec(self) -> Mapping[str, FeatureSpec]:
        """What each task's head may rely on."""
        return self._spec

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through what is common, and one through each branch and decoder that the named tasks need."""
        common = self.encoder(image_BCDHW)
        needed = dict.fromkeys(self._group_of[name] for name in tasks) if self._group_of else {}
        branched = {group: self._branch(group, common) for group in needed}
        return self.decoders.decode({name: branched[self._group_of[name]] if branched else common for name in tasks})

    def _branch(self, group: str, common: Maps) -> Maps:
        maps = list(common)
        for stage in self.branches[f"{group}_branch"].children():
            maps.append(stage(maps[-1]))
        return tuple(maps)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The common stages', and those of a branch or a decoder that more than one task reads."""
        branches = [p for group in self._names() if len(self._members(group)) > 1 for p in self._deeper(group)]
        return [*self.encoder.parameters(), *branches, *self.decoders.shared()]

    def last_stage_parameters(self) -> list[nn.Parameter]:
        """Those of the deepest stage of the encoder that all tasks have in common."""
        return list(self.encoder.stages[-1].parameters())

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """The encoder's stages, finest first, and branches and decoders that more than one task reads."""
        parts = {f"stage{index}": list(stage.parameters()) for index, stage in enumerate(self.encoder.stages)}
        branches = {group: self._deeper(group) for group in self._names() if len(self._members(group)) > 1}
        decoders = {
            key: list(held.parameters()) for key, held in self.decoders.items() if len(self.decoders.readers(key)) > 1
        }
        return {**parts, **branches, **decoders}

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Those of a branch and of a decoder that only this task reads."""
        group = self._group_of.get(task)
        alone = self._deeper(group) if group and self._members(group) == [task] else []
        return [*alone, *self.decoders.own(task)]

    def reached_only_by(self, tasks: Sequence[str]) -> list[nn.Parameter]:
        """Their own, and those of a group's stages that they alone read."""
        groups = [group for group in self._names() if len(own := self._members(group)) > 1 and set(own) <= set(tasks)]
        return [*super().reached_only_by(tasks), *(p for group in groups for p in self._deeper(group))]

    def encoder_norms(self) -> list[InstanceNorm]:
        """The common stages', and those of branches that more than one task reads."""
        several = [self.branches[f"{group}_branch"] for group in self._names() if len(self._members(group)) > 1]
        return [*norms(self.encoder), *(norm for branch in several for norm in norms(branch))]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(self._group_of.values()))

    def _members(self, group: str) -> list[str]:
        return [name for name, key in self._group_of.items() if key == group]

    def _deeper(self, group: str) -> list[nn.Parameter]:
        return list(self.branches[f"{group}_branch"].parameters())


def _groups(options: HardOptions, voxel: Mapping[str, bool]) -> dict[str, str]:
    """Task -> name of its group; empty where all stages are common."""
    if options.shared_stages is None:
        return {}
    named = {task: f"{group}_group" for group, tasks in (options.groups or {}).items() for task in tasks}
    return {task: named.get(task, f"{task}_alone") for task in voxel}
