"""What every task kind must do. A kind's test subclasses the contract of its family."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from medmtl import tasks
from medmtl.data.case import Case
from medmtl.data.volume import Grid, Volume
from medmtl.evaluation.meanings import explained
from medmtl.networks.features import Features, FeatureSpec
from medmtl.tasks.base import CaseTask, ScoredCase, Task
from medmtl.tasks.learning import Samples, load_states, states_of
from medmtl.tasks.voxel import LabelTask, MapTask, VoxelTask

SHAPE = (8, 8, 4)
SPEC = FeatureSpec(
    channels=(3, 5, 6),
    strides=((1, 1, 1), (2, 2, 1), (4, 4, 2)),
    decoder_channels=(3, 5),
)


def features(batch: int, seed: int = 0) -> Features:
    """Random maps that fit ``SPEC``; every one wants a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def maps(channels: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.randn(
                batch, c, *(n // s for n, s in zip(SHAPE, stride, strict=True)), generator=generator
            ).requires_grad_()
            for c, stride in zip(channels, strides, strict=True)
        )

    return Features(
        maps(SPEC.channels, SPEC.strides), maps(SPEC.decoder_channels, SPEC.strides[: len(SPEC.decoder_channels)])
    )


def case(cells: Mapping[str, str | None] | None = None, files: Mapping[str, Path] | None = None) -> Case:
    """A row of the table."""
    return Case("c1", "p1", None, 2, {}, cells or {}, files or {})


def volume(array: npt.NDArray[np.integer[Any]], spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Volume:
    """A mask on a grid."""
    d, h, w = array.shape
    return Volume(array, Grid((d, h, w), np.diag([*spacing, 1.0])))


def tensors(output: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of an output."""
    return output if isinstance(output, tuple) else (output,)


def permuted(output: Any, order: torch.Tensor) -> Any:
    """An output whose samples are in another order."""
    return tuple(level[order] for level in output) if isinstance(output, tuple) else output[order]


def batch_loss(task: Task, output: Any, target: torch.Tensor, present: Sequence[bool] | None = None) -> torch.Tensor:
    """The loss of a batch of as many cases; nothing of it is remembered."""
    names = tuple(f"c{index}" for index in range(len(target)))
    present_B = torch.tensor(present or [True] * len(target))
    return task.batch_loss(output, target, present_B, Samples(names, 0, 10, remember=False))


class TaskContract:
    """Shared by all families.

    Attributes:
        options: a valid configuration of the kind.
        truths: at least four targets as ``encode`` takes them, of different values.
        bad_options: further keys that must be refused, each with a word of the message.
    """

    options: ClassVar[Mapping[str, Any]]
    truths: ClassVar[Sequence[Any]]
    bad_options: ClassVar[Sequence[tuple[Mapping[str, Any], str]]]

    def unfitted(self, **changes: Any) -> Task:
        """The task as built before planning."""
        cls = tasks.kinds.get(self.options["kind"])
        return cls("target", cls.Options.model_validate({**self.options, **changes}))

    def fitted(self, **changes: Any) -> Task:
        """The task as training uses it; what it learned goes through JSON, as in ``plan.json``."""
        task = self.unfitted(**changes)
        learned = {**task.fit(list(self.truths)), **task.resolve({"target": task})}
        return type(task)("target", task.options, json.loads(json.dumps(learned, allow_nan=False)))

    def run(self, batch: int, seed: int = 0) -> tuple[Task, nn.Module, Features, torch.Tensor]:
        """Task, head, features and targets of a batch."""
        torch.manual_seed(seed)
        task = self.fitted()
        target = torch.stack([task.encode(self.truths[i % len(self.truths)]) for i in range(batch)])
        head = task.head(SPEC)
        if task.needs_finish:
            truths = torch.stack([task.encode(truth) for truth in self.truths])
            task.finish(head.eval()(features(len(truths), seed)).detach(), truths)
        return task, head.train(), features(batch, seed), target

    def test_loss_is_one_finite_fp32_value_per_sample(self) -> None:
        task, head, maps, target = self.run(4)
        loss_B = task.loss(head(maps), target)
        assert loss_B.shape == (4,)
        assert loss_B.dtype == torch.float32
        assert torch.isfinite(loss_B).all()

    def test_loss_is_fp32_inside_and_after_autocast(self) -> None:
        task, head, maps, target = self.run(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = head(maps)
            inside = task.loss(output, target)
        assert inside.dtype == torch.float32
        torch.testing.assert_close(inside, task.loss(output, target), rtol=0, atol=0)

    def test_loss_works_for_one_sample(self) -> None:
        task, head, maps, target = self.run(1)
        output = head(maps)
        assert batch_loss(task, output, target) == task.loss(output, target)[0]

    def test_loss_is_permuted_with_its_samples(self) -> None:
        task, head, maps, target = self.run(4)
        order = torch.tensor([2, 0, 3, 1])
        output = head.eval()(maps)
        torch.testing.assert_close(
            task.loss(permuted(output, order), target[order]), task.loss(output, target)[order], rtol=1e-6, atol=0
        )

    def test_a_subset_of_labels_gives_the_mean_over_the_labelled_alone(self) -> None:
        task, head, maps, target = self.run(4)
        output = head.eval()(maps)
        reduced = batch_loss(task, output, target, [True, False, True, False])
        kept = permuted(output, torch.tensor([0, 2]))
        torch.testing.assert_close(reduced, task.loss(kept, target[[0, 2]]).mean())

    def test_unlabelled_samples_get_a_gradient_of_exactly_zero(self) -> None:
        task, head, maps, target = self.run(4)
        present = torch.tensor([False, True, False, True])
        torch.autograd.backward(batch_loss(task, head.train()(maps), target, present.tolist()))
        reached = [m.grad for m in (*maps.encoder, *maps.decoder) if m.grad is not None]
        assert reached
        for gradient in reached:
            assert gradient[~present].count_nonzero() == 0
            assert torch.isfinite(gradient).all()
        assert sum(float(gradient[present].abs().sum()) for gradient in reached) > 0

    def test_the_target_of_an_unlabelled_sample_does_not_matter(self) -> None:
        task, head, maps, target = self.run(2)
        output, other = head.eval()(maps), target.clone()
        other[1] = task.encode(self.truths[3])
        first = batch_loss(task, output, target, [True, False])
        torch.testing.assert_close(first, batch_loss(task, output, other, [True, False]), rtol=0, atol=0)

    def test_loss_scale_is_finite_and_above_zero(self) -> None:
        assert self.unfitted().loss_scale == 1.0
        assert 0 < self.fitted().loss_scale < math.inf

    def test_steps_down_the_gradient_lower_the_loss(self) -> None:
        task, head, maps, target = self.run(4)
        optimiser = torch.optim.AdamW(head.eval().parameters(), lr=1e-2)
        losses = []
        for _ in range(20):
            optimiser.zero_grad()
            loss = batch_loss(task, head(maps), target)
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.99 * losses[0]

    def test_no_labelled_case_gives_metrics_without_a_value(self) -> None:
        task = self.fitted()
        metrics = task.metrics([])
        assert metrics
        for estimate in metrics.values():
            assert estimate.value is None
            assert estimate.n == 0
            json.dumps(estimate.to_json(), allow_nan=False)
        task.figures([])

    def test_the_report_explains_each_metric(self) -> None:
        task = self.fitted()
        assert [name for name in task.metrics([]) if not explained({name: {}}, task.kind)] == []

    def test_the_same_configuration_elsewhere_is_the_same_target(self) -> None:
        self.fitted().same_target(self.unfitted())

    def test_what_it_remembers_survives_a_checkpoint_and_nothing_else_does(self) -> None:
        task, head, maps, target = self.run(4)
        task.batch_loss(head(maps), target, torch.ones(4, dtype=torch.bool), Samples(tuple("abcd"), 3, 10, True))
        state = json.loads(json.dumps(task.extra_state(), allow_nan=False))
        other = self.fitted()
        load_states({"target": other}, states_of({"target": task}))
        assert other.extra_state() == task.extra_state() == state
        with pytest.raises(ValueError, match=r"the memory of the tasks \['x'\], not of"):
            load_states({"target": other}, {"x": {"any": 1}})

    def test_bad_options_are_refused(self) -> None:
        for changes, word in self.bad_options:
            with pytest.raises(ValueError, match=word):
                self.unfitted(**changes)

    def test_options_survive_a_dump(self) -> None:
        options = self.unfitted().options
        assert type(options).model_validate(options.model_dump(mode="json")) == options

    def check_scored(self, cases: Sequence[ScoredCase], primary: str) -> None:
        """One case and several give finite metrics, the primary one first, and figures."""
        task = self.fitted()
        for chosen in (cases[:1], cases):
            metrics = task.metrics(chosen)
            assert next(iter(metrics)) == primary
            for name, estimate in metrics.items():
                assert estimate.value is not None or estimate.why, name
                json.dumps(estimate.to_json(), allow_nan=False)
            assert task.figures(chosen)


class CaseTaskContract(TaskContract):
    """For kinds with one answer per case.

    Attributes:
        primary: name of the first metric.
    """

    primary: ClassVar[str]

    def predicted(self) -> list[ScoredCase]:
        """Cases as evaluation makes them, from an untrained head."""
        task, head, maps, _ = self.run(len(self.truths))
        assert isinstance(task, CaseTask)
        activation_BK = task.activate(head.eval()(maps)).detach()
        found = []
        for index, truth in enumerate(self.truths):
            result = task.result(activation_BK[index], {})
            scores = task.result_scores(result, truth)
            found.append(ScoredCase(f"c{index}", f"p{index}", None, 0, truth, result, scores))
        return found

    def test_an_empty_cell_is_not_labelled(self) -> None:
        task = self.unfitted()
        assert task.read(case(cells=dict.fromkeys(task.columns))) is None

    def test_a_dummy_target_has_the_shape_and_type_of_a_real_one(self) -> None:
        task = self.fitted()
        dummy, real = task.encode(None), task.encode(self.truths[0])
        assert (dummy.shape, dummy.dtype) == (real.shape, real.dtype)

    def test_the_first_output_is_nearly_the_best_constant_answer(self) -> None:
        task, head, maps, _ = self.run(len(self.truths))
        target = torch.stack([task.encode(truth) for truth in self.truths])
        assert batch_loss(task, head.eval()(maps), target).item() == pytest.approx(task.loss_scale, rel=0.05)

    def test_activation_is_finite_fp32_also_for_extreme_outputs(self) -> None:
        task, head, maps, _ = self.run(2)
        assert task.activate(head(maps).bfloat16()).dtype == torch.float32
        for scale in (-1e4, 1e4):
            assert torch.isfinite(task.activate(torch.full_like(head(maps), scale))).all()

    def test_a_probe_pair_is_on_one_scale(self) -> None:
        task = self.fitted()
        assert isinstance(task, CaseTask)
        for truth in self.truths:
            target = task.encode(truth)
            score, same = task.probe_pair(self.activation_of(task, truth), target)
            assert score == pytest.approx(same, rel=1e-4, abs=1e-4)

    def activation_of(self, task: CaseTask, truth: Any) -> torch.Tensor:
        """The activation (K,) of a perfect prediction of ``truth``."""
        raise NotImplementedError

    def test_metrics_of_one_and_of_several_cases(self) -> None:
        self.check_scored(self.predicted(), self.primary)

    def test_what_is_said_of_other_folds_leaves_cases_and_order_as_they_are(self) -> None:
        task, cases = self.fitted(), [replace(case, fold=index % 2) for index, case in enumerate(self.predicted())]
        assert isinstance(task, CaseTask)
        assert all(math.isfinite(value) for value in task.reference().values())
        found = task.out_of_fold(cases)
        assert [replace(case, reference={}) for case in found] == cases
        assert set(task.metrics(found)) >= set(task.metrics(cases))

    def test_cells_carry_the_tasks_name_and_are_finite(self) -> None:
        cells = self.predicted()[0].result.cells("target")
        assert next(iter(cells)) == "target"
        assert all(name.startswith("target") for name in cells)
        assert tuple(cells) == self.unfitted().answer_columns
        assert all(math.isfinite(value) for value in cells.values() if isinstance(value, float))


class VoxelTaskContract(TaskContract):
    """For kinds with one answer per voxel. ``truths`` are arrays of ``SHAPE``.

    Attributes:
        primary: name of the first metric.
    """

    primary: ClassVar[str]

    def voxel_task(self, **changes: Any) -> VoxelTask:
        """The fitted task, as a voxel task."""
        task = self.fitted(**changes)
        assert isinstance(task, VoxelTask)
        return task

    def test_targets_have_the_shape_of_the_sample(self) -> None:
        assert self.fitted().encode(self.truths[0]).shape == SHAPE

    def test_metrics_of_one_and_of_several_cases(self) -> None:
        task = self.voxel_task()
        cases = []
        for index, truth in enumerate(self.truths):
            predicted = np.nan_to_num(np.roll(truth, 1, axis=0))
            scores = task.mask_scores(predicted, truth, (1.0, 1.0, 2.0))
            result = task.result(volume(predicted))
            cases.append(ScoredCase(f"c{index}", f"p{index}", None, 0, Path("x"), result, scores))
        self.check_scored(cases, self.primary)

    def test_cells_carry_the_tasks_name(self) -> None:
        cells = self.voxel_task().result(volume(np.nan_to_num(self.truths[0]))).cells("target")
        assert cells
        assert all(name.startswith("target_") for name in cells)
        assert tuple(cells) == self.unfitted().answer_columns


class LabelTaskContract(VoxelTaskContract):
    """For kinds whose answer is a label per voxel."""

    def test_decisions_are_legal_values_of_an_integer_type(self) -> None:
        task, head, maps, _ = self.run(2)
        assert isinstance(task, LabelTask)
        probability = task.activate(head.eval()(maps)).detach()
        assert probability.dtype == torch.float32
        assert probability.shape[2:] == SHAPE
        mask = task.decide(probability[0])
        assert mask.shape == SHAPE
        assert not mask.is_floating_point()
        assert set(np.unique(mask.numpy()).tolist()) <= task.legal_values()


class MapTaskContract(VoxelTaskContract):
    """For kinds whose answer is a value per voxel; ``truths`` are float32 arrays, NaN where no value counts."""

    def volume_of(self, truth: npt.NDArray[Any]) -> Volume:
        """What a prediction holds, which is finite."""
        return volume(np.nan_to_num(truth))

    def test_decisions_are_finite_fp32(self) -> None:
        task, head, maps, _ = self.run(2)
        assert isinstance(task, MapTask)
        values = task.activate(head.eval()(maps)).detach()
        assert values.dtype == torch.float32
        assert values.shape == (2, 1, *SHAPE)
        decided = task.decide(values[0])
        assert (decided.shape, decided.dtype) == (SHAPE, torch.float32)
        assert torch.isfinite(decided).all()

    def test_a_result_holds_a_map_and_no_mask(self) -> None:
        result = self.voxel_task().result(self.volume_of(self.truths[0]))
        assert result.mask is None
        assert result.map is not None

    def test_the_dummy_of_an_absent_sample_has_the_targets_type(self) -> None:
        task = self.fitted()
        assert task.encode(np.zeros(SHAPE, np.uint8)).dtype == task.encode(self.truths[0]).dtype
