"""The network as one object: a sharing kind and one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from medmtl.errors import ArtefactError
from medmtl.networks.features import Features, FeatureSpec
from medmtl.networks.shallow import with_right_gradients
from medmtl.sharing.base import Sharing
from medmtl.tasks.base import Task
from medmtl.tasks.voxel import LabelTask
from medmtl.weighting.base import Trained


@dataclass(frozen=True)
class SecondView:
    """How some case tasks see their cases, where that is not the other tasks' view.

    Attributes:
        tasks: their names.
        sharing: an encoder of their own; None where they share the first one's.
        own_norms: whether a shared encoder has norms of its own for them.
        tiled: whether a case is a bag of tiles.
    """

    tasks: tuple[str, ...]
    sharing: Sharing | None = None
    own_norms: bool = False
    tiled: bool = False


class MultiTaskModel(nn.Module):
    """Image -> output of each task, always as a mapping, also for one task.

    Args:
        sharing: gives the features of the tasks that read the image.
        tasks: fitted tasks by name; each builds its head.
        head_gradient: share of a case head's gradient that reaches the features; see ``training.head_gradient``.
        covariates: number of features of the clinical covariates.
        second: how some case tasks see their cases, where that is not the other tasks' view.
    """

    def __init__(
        self,
        sharing: Sharing,
        tasks: Mapping[str, Task],
        head_gradient: float = 1.0,
        covariates: int = 0,
        second: SecondView | None = None,
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.second_sharing = second.sharing if second else None
        self._second = second or SecondView(())
        if self._second.own_norms:
            for norm in sharing.encoder_norms():
                norm.add_second()
        self._share = {name: 1.0 if task.voxel else head_gradient for name, task in tasks.items()}
        self._guides_of = {name: task.guides for name, task in tasks.items()}
        named = [guide for guides in self._guides_of.values() for guide in guides]
        self._guides = {guide: _label_task(tasks[guide]) for guide in named}
        self._reads_image = frozenset(name for name, task in tasks.items() if task.reads_image)
        self._reads_covariates = frozenset(name for name, task in tasks.items() if task.reads_covariates)
        self.heads = {name: task.head(self._spec(name, covariates)) for name, task in tasks.items()}
        for name, head in self.heads.items():
            # not a ModuleDict, which refuses a task called like an attribute of a module, such as ``type``
            self.add_module(f"heads_{name}", head)
        with_right_gradients(self)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names in the configured order."""
        return tuple(self.heads)

    def _spec(self, task: str, covariates: int) -> FeatureSpec:
        spec = self._sharing(task).spec[task] if task in self._reads_image else FeatureSpec((), ())
        if task in self._second.tasks:
            spec = replace(spec, tiled=self._second.tiled)
        spec = replace(spec, guided=tuple(self._guides[guide].parts for guide in self._guides_of[task]))
        return replace(spec, covariates=covariates) if task in self._reads_covariates else spec

    def _sharing(self, task: str) -> Sharing:
        own = self.second_sharing if task in self._second.tasks else None
        return own or self.sharing

    def forward(
        self,
        image_BCDHW: torch.Tensor,
        tasks: Sequence[str] | None = None,
        covariates_BN: torch.Tensor | None = None,
        tiles: int = 1,
    ) -> dict[str, Any]:
        """Outputs of the named tasks, or of all; what only other tasks need is not run.

        Args:
            image_BCDHW: the samples, of the view of these tasks; several tiles of a case one after the other.
            tasks: names, of one view.
            covariates_BN: their clinical covariates, wanted where a named task reads them.
            tiles: images per case.
        """
        outputs, _ = self.outputs_and_features(image_BCDHW, tasks, covariates_BN, tiles)
        return outputs

    def outputs_and_features(
        self,
        image_BCDHW: torch.Tensor,
        tasks: Sequence[str] | None = None,
        covariates_BN: torch.Tensor | None = None,
        tiles: int = 1,
    ) -> tuple[dict[str, Any], dict[str, Features]]:
        """The outputs, and what the heads read; arguments as of :meth:`forward`.

        Guides answer first. One that is not named is run as well, without a gradient, so that nothing of it changes.
        What a head reads of its guide is detached: no case loss reaches a mask through its probabilities.
        """
        names = self.tasks if tasks is None else tuple(tasks)
        guides = tuple(dict.fromkeys(guide for name in names for guide in self._guides_of[name]))
        features = self._features(image_BCDHW, tuple(dict.fromkeys((*names, *guides))), covariates_BN, tiles)
        outputs, masks = {}, {}
        for name in guides:
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in names):
                outputs[name] = self.heads[name](features[name].damped(self._share[name]))
            with torch.no_grad():
                masks[name] = self._guides[name].guide(outputs[name])
        for name in names:
            features[name] = replace(features[name], guides=tuple(masks[guide] for guide in self._guides_of[name]))
            if name not in outputs:
                outputs[name] = self.heads[name](features[name].damped(self._share[name]))
        return {name: outputs[name] for name in names}, {name: features[name] for name in names}

    def _features(
        self, image_BCDHW: torch.Tensor, tasks: Sequence[str], covariates_BN: torch.Tensor | None, tiles: int
    ) -> dict[str, Features]:
        seeing = [name for name in tasks if name in self._reads_image]
        seen = self._seen(image_BCDHW, seeing) if seeing else {}
        found = {name: replace(seen.get(name, Features(())), tiles=tiles) for name in tasks}
        return {
            name: replace(one, covariates_BN=covariates_BN) if name in self._reads_covariates else one
            for name, one in found.items()
        }

    def _seen(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, Features]:
        second = tasks[0] in self._second.tasks
        assert all((name in self._second.tasks) == second for name in tasks), "tasks of one view are asked together"
        sharing = self._sharing(tasks[0])
        if self._second.own_norms:
            for norm in sharing.encoder_norms():
                norm.second = second
        pooled: dict[Any, Any] = {}
        return {name: replace(one, pooled=pooled) for name, one in sharing.features(image_BCDHW, tasks).items()}

    def pool(self, image_BCDHW: torch.Tensor, tasks: Sequence[str]) -> dict[str, torch.Tensor]:
        """What the heads of tiled tasks make of each tile alone, (tiles, F); for :meth:`answer`."""
        features = self._seen(image_BCDHW, tasks)
        return {name: self.heads[name].pool(features[name]) for name in tasks}  # type: ignore[operator]

    def answer(self, pooled: Mapping[str, torch.Tensor], covariates_BN: torch.Tensor | None = None) -> dict[str, Any]:
        """Outputs of tiled tasks from all tiles of one case."""
        return {
            name: self.heads[name].answer(  # type: ignore[operator]
                pooled_TF, covariates_BN if name in self._reads_covariates else None, len(pooled_TF)
            )
            for name, pooled_TF in pooled.items()
        }

    def trained(self) -> Trained:
        """All parameters, by who reaches them."""
        kinds = [kind for kind in self._sharings() if len(kind.spec) > 1]  # nobody shares a network of one task
        shared = [parameter for kind in kinds for parameter in kind.shared_parameters()]
        last = [parameter for kind in kinds for parameter in kind.last_stage_parameters()]
        known = set(shared)
        return Trained(shared, last, [parameter for parameter in self.parameters() if parameter not in known])

    def stages(self) -> dict[str, list[nn.Parameter]]:
        """The shared parameters by part of the network; those of a second view's own encoder by names of their own."""
        found: dict[str, list[nn.Parameter]] = {}
        for prefix, kind in zip(("", "second_"), self._sharings(), strict=False):
            if len(kind.spec) > 1:
                found |= {f"{prefix}{name}": held for name, held in kind.stages().items()}
        return found

    def towers(self) -> dict[str, list[nn.Parameter]]:
        """Task -> its own encoder and decoder, where the kind of sharing shares nothing; otherwise empty."""
        apart = [kind for kind in self._sharings() if not kind.shared_parameters()]
        return {task: own for kind in apart for task in kind.spec if (own := kind.own_parameters(task))}

    def reached_only_by(self, tasks: Sequence[str]) -> list[nn.Parameter]:
        """Of the trunk, the parameters that none but the named tasks reach; also a second view's own norms."""
        own = self.sharing.reached_only_by(tasks)
        if self._second.own_norms and set(self._second.tasks) <= set(tasks):
            known = set(own)
            norms = self.sharing.encoder_norms()
            own += [p for norm in norms for p in (norm.second_weight, norm.second_bias) if p not in known]
        return own

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Everything but the heads and a second view's own encoder."""
        return list(self.sharing.parameters())

    def second_trunk_parameters(self) -> list[nn.Parameter]:
        """A second view's own encoder, which case tasks alone train; empty where it shares the first one's."""
        return [] if self.second_sharing is None else list(self.second_sharing.parameters())

    def head_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters of one head."""
        return list(self.heads[task].parameters())

    def after_step(self, rate: float) -> None:
        """What the sharing kind does to the weights itself, after the optimiser's step at the trunk's rate."""
        for kind in self._sharings():
            kind.after_step(rate)

    def _sharings(self) -> list[Sharing]:
        return [self.sharing] if self.second_sharing is None else [self.sharing, self.second_sharing]

    def load_weights(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load weights by name.

        Raises:
            ArtefactError: if a tensor is missing, extra, or of another shape or type; all are listed.
        """
        refuse_other_tensors("weights", self.state_dict(), tensors)
        self.load_state_dict(dict(tensors))


def _label_task(task: Task) -> LabelTask:
    assert isinstance(task, LabelTask), "the configuration names a task with a mask"
    return task


def refuse_other_tensors(what: str, own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse stored tensors that are not exactly those that are wanted.

    Args:
        what: to call them in the message.
        own: name -> tensor of the shape and type that is wanted.
        tensors: as stored.

    Raises:
        ArtefactError: if one is missing, extra, or of another shape or type; all are listed.
    """
    wrong = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name} is unknown" for name in tensors.keys() - own.keys()]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)} {tensors[name].dtype}, "
        f"expected {tuple(own[name].shape)} {own[name].dtype}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape or own[name].dtype != tensors[name].dtype
    ]
    if wrong:
        raise ArtefactError(f"the {what} do not fit this model: {'; '.join(sorted(wrong))}", code="B151")
