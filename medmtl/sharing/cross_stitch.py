"""Cross-stitch networks: an encoder per task, and after each stage a learned mixture of all tasks' maps.

Misra et al. 2016, https://arxiv.org/abs/1604.03539::

    x'_t = sum_s a_ts x_s    after every stage, with one number a_ts per pair of tasks and stage.

It differs from the paper in its start: the identity, at which the tasks' networks are separate, and networks that were
not trained before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from medmtl.networks.cost import Towers
from medmtl.networks.encoder import EncoderOptions, channels_last
from medmtl.networks.features import Features
from medmtl.networks.norm import InstanceNorm, norms
from medmtl.networks.shape import NetworkShape
from medmtl.sharing.base import Sharing, SharingOptions, encoder_copies
from medmtl.sharing.decoders import Maps, decoder_copies


class CrossStitch(Sharing):
    """An encoder per task with learned mixtures of their maps, and a decoder per voxel task.

    Every encoder is run to answer any task, and every present task trains all of them. So encoders and mixtures are
    shared; a task's own are its decoder (one per voxel task, whatever ``network.decoder`` says) and its mixture of the
    deepest maps. Encoders and decoders start as equal copies. Mixtures are not decayed.

    Cost against one encoder: parameters, memory and time of an encoder per task and of a decoder per voxel task, also
    in prediction of one task; and about one map per stage and task for the mixtures.

    Args:
        options: no options of its own.
        shape: measurements of the network.
        network: options of the network.
        voxel: task -> whether it is a voxel task.
    """

    kind = "cross_stitch"
    Options = SharingOptions

    def __init__(
        self, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> None:
        super().__init__(options, shape, network, voxel)
        self._tasks = tuple(voxel)
        self.encoders = encoder_copies(shape, network, voxel)
        self.decoders = decoder_copies(shape, voxel)
        # a row is a parameter of its own: that of the deepest stage is reached by its task alone. Of one dimension,
        # as all that is not decayed: decay would pull the identity to nothing
        self.stitches = nn.ModuleList(
            nn.ParameterDict(
                {
                    f"{name}_row": nn.Parameter(row.clone())
                    for name, row in zip(voxel, torch.eye(len(voxel)), strict=True)
                }
            )
            for _ in shape.channels
        )

    @classmethod
    def towers(
        cls, options: SharingOptions, shape: NetworkShape, network: EncoderOptions, voxel: Mapping[str, bool]
    ) -> Towers:
        """An encoder per task, a decoder per voxel task, and the mixed maps."""
        return Towers(len(voxel), sum(voxel.values()), beside_maps=2.0 * len(voxel))

    @classmethod
    def towers_run(
        cls,
        options: SharingOptions,
        shape: NetworkShape,
        network: EncoderOptions,
        voxel: Mapping[str, bool],
        tasks: Collection[str],
    ) -> Towers:
        """All encoders, whoever asks, and the decoders of those who do."""
        decoders = sum(is_voxel for name, is_voxel in voxel.items() if name in tasks)
        return replace(cls.towers(options, shape, network, voxel), decoders=decoders)

    def features(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        """One pass through all encoders, and one through the decoder of each named voxel task."""
        current = dict.fromkeys(self._tasks, channels_last(image_BCDHW))
        found: dict[str, list[torch.Tensor]] = {name: [] for name in tasks}
        deepest = len(self.stitches) - 1
        for index in range(deepest + 1):
            apart = [self._stage(name, index)(current[name]) for name in self._tasks]
            read = tasks if index == deepest else self._tasks
            current = {name: _mixed(self._row(name, index), apart) for name in read}
            for name, maps in found.items():
                maps.append(current[name])
        encoded: dict[str, Maps] = {name: tuple(maps) for name, maps in found.items()}
        return self.decoders.decode(encoded)

    def shared_parameters(self) -> list[nn.Parameter]:
        """All encoders, and all mixtures but those of the deepest stage."""
        return [*self.encoders.parameters(), *self.stitches[:-1].parameters()]

    def last_stage_parameters(self) -> list[nn.Parameter]:
        """Those of all encoders' deepest stages."""
        deepest = len(self.stitches) - 1
        return [parameter for name in self._tasks for parameter in self._stage(name, deepest).parameters()]

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Its mixture of the deepest maps, and its decoder."""
        if task not in self._tasks:
            return []
        return [self._row(task, len(self.stitches) - 1), *self.decoders.own(task)]

    def encoder_norms(self) -> list[InstanceNorm]:
        """All encoders'."""
        return norms(self.encoders)

    def _stage(self, task: str, index: int) -> nn.Module:
        return self.encoders.get_submodule(f"{task}_encoder.stages.{index}")

    def _row(self, task: str, index: int) -> nn.Parameter:
        return self.stitches.get_parameter(f"{index}.{task}_row")


def _mixed(row_T: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    total = row_T[0] * maps[0]
    for share, one in zip(row_T[1:], maps[1:], strict=True):
        total = total + share * one
    return total
