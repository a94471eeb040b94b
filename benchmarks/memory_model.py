"""Predicted against real peak memory of short trainings on noise, over what the prediction depends on.

    python benchmarks/memory_model.py [NAME ...]

Every row is a training of its own process: four cases, three steps, one validation and one commit. A table is
printed.

On two cores of an AMD EPYC (bfloat16), torch 2.13 for CPUs, Python 3.11, Linux:

    training                   planned GB real GB    ratio
    tiny                             0.73    0.65      1.12
    hippocampus                      1.11    1.03      1.08
    hippocampus, batch 2             0.89    0.80      1.11
    cine                             1.44    1.28      1.13
    cine, full resolution            2.00    1.93      1.04
    cube                             1.21    1.14      1.06
    cube, batch 4                    1.53    1.39      1.10
    cube, fp32                       1.49    1.39      1.07
    cube, no segmentation            0.91    0.86      1.06
    cube, 8 labels                   1.30    1.11      1.17
    cube, 4 channels                 1.28    1.15      1.11
    cube, residual                   1.21    1.15      1.05
    cube, two decoders               1.51    1.36      1.11
    cube, no deep supervision        1.21    1.12      1.08
    cube, 8 channels wide            0.93    0.91      1.03
    wide                             1.23    1.11      1.11
    large                            2.54    2.24      1.13

Later, on such a machine and beside other programs, kinds of sharing on the cube (two tasks):

    cube                             1.17    1.05      1.11
    cube, soft                       1.38    1.18      1.17
    cube, cross-stitch               1.44    1.27      1.14
    cube, attention                  1.37    1.21      1.13
    cube, own experts                1.63    1.41      1.16
    cube, adapters                   1.24    1.06      1.17

The constants of medmtl/planning/memory.py were fitted to these peaks and raised until the smallest ratio was above 1.
Since then preparation holds fewer files open, real peaks are 0.1 to 0.15 GB lower, and the constant of the process was
lowered by 0.06 GB: "wide" and "cine" now stand at about 1.19. "cube, resenc" (1.72 planned, 1.44 real, 1.20) and "cube,
segresnet" (1.53, 1.23, 1.25) were measured once, when "cube" stood at 1.15. The peak of one training is not the same
each time: "cube, no segmentation" took 0.80 to 0.85 GB in 15 runs on two cores of an Intel Xeon, and 0.88 GB once on
another machine, 1 % more than was planned for it. The constant of the process was raised by 0.03 GB since; "tiny" (0.57
GB real) is then overestimated by more than a quarter. On a GPU nothing was fitted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 3
CASES = 4


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        shape, spacing: of every scan.
        channels: images per case.
        labels: labels of each segmentation.
        case_tasks: classifications beside them.
        plan, network, sharing: keys of these sections.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 1
    labels: tuple[int, ...] = (1,)
    case_tasks: int = 1
    plan: tuple[tuple[str, Any], ...] = ()
    network: tuple[tuple[str, Any], ...] = ()
    sharing: tuple[tuple[str, Any], ...] = ()


CUBE = (64, 64, 64)
TWO = (("batch", 2),)
SETTINGS = {
    "tiny": Setting((16, 16, 16), plan=TWO),
    "hippocampus": Setting((35, 50, 36), labels=(2,), case_tasks=2, plan=(("batch", 6),)),
    "hippocampus, batch 2": Setting((35, 50, 36), labels=(2,), case_tasks=2, plan=TWO),
    "cine": Setting((128, 128, 14), (1.95, 1.95, 9.6), 2, (3, 3), 3, TWO),
    "cine, full resolution": Setting((192, 192, 14), (1.3, 1.3, 9.6), 2, (3, 3), 3, TWO),
    "cube": Setting(CUBE, plan=TWO),
    "cube, batch 4": Setting(CUBE, plan=(("batch", 4),)),
    "cube, fp32": Setting(CUBE, plan=(*TWO, ("precision", "fp32"))),
    "cube, no segmentation": Setting(CUBE, labels=(), plan=TWO),
    "cube, 8 labels": Setting(CUBE, labels=(8,), plan=TWO),
    "cube, 4 channels": Setting(CUBE, channels=4, labels=(3,), plan=TWO),
    "cube, residual": Setting(CUBE, plan=TWO, network=(("blocks", "residual"),)),
    "cube, resenc": Setting(CUBE, plan=TWO, network=(("kind", "resenc"),)),
    "cube, segresnet": Setting(CUBE, plan=TWO, network=(("kind", "segresnet"),)),
    "cube, two decoders": Setting(CUBE, labels=(1, 1), plan=TWO, network=(("decoder", "per_task"),)),
    "cube, soft": Setting(CUBE, plan=TWO, sharing=(("kind", "soft"),)),
    "cube, cross-stitch": Setting(CUBE, plan=TWO, sharing=(("kind", "cross_stitch"),)),
    "cube, attention": Setting(CUBE, plan=TWO, sharing=(("kind", "mtan"),)),
    "cube, own experts": Setting(CUBE, plan=TWO, sharing=(("kind", "ple"),)),
    "cube, adapters": Setting(CUBE, plan=TWO, sharing=(("kind", "adapters"),)),
    "cube, no deep supervision": Setting(CUBE, plan=TWO, network=(("deep_supervision", False),)),
    "cube, 8 channels wide": Setting(CUBE, plan=(*TWO, ("width", 8), ("max_width", 64))),
    "wide": Setting((48, 48, 48), plan=(*TWO, ("width", 32), ("max_width", 320))),
    "large": Setting((112, 112, 96), channels=2, labels=(3,), plan=TWO),
}


def main() -> None:
    """Measure each setting, or one in this process for the loop that called it."""
    if sys.argv[1:2] == ["--measure"]:
        measure(SETTINGS[sys.argv[2]], Path(sys.argv[3]))
        return
    print("| training | planned GB | real GB | planned / real |\n|---|---|---|---|")
    for name in sys.argv[1:] or SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            # a process of its own, started by one that never loaded torch: peak memory is inherited from the parent
            subprocess.run([sys.executable, __file__, "--measure", name, folder], check=True)
            log = (Path(folder) / "run" / "log.jsonl").read_text(encoding="utf-8")
        (timing,) = (line["timing"] for line in map(json.loads, log.splitlines()) if "timing" in line)
        planned, real = timing["planned_memory_bytes"], timing["peak_memory_bytes"]
        print(f"| {name} | {planned / 1e9:.2f} | {real / 1e9:.2f} | {planned / real:.2f} |", flush=True)


def measure(setting: Setting, folder: Path) -> None:
    """Write a cohort of noise and train on it; the run's log holds the peak."""
    from medmtl import api

    api.train(write_cohort(setting, folder), folder / "run", device="cpu")


def write_cohort(setting: Setting, folder: Path) -> Path:
    """The configuration of a cohort whose every label occurs in every case."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    affine = np.diag([*setting.spacing, 1.0])
    channels = [f"c{number}" for number in range(setting.channels)]
    masks = {f"s{number}": labels for number, labels in enumerate(setting.labels)}
    classes = [f"k{number}" for number in range(setting.case_tasks)]
    rows = [["case", *channels, *masks, *classes]]
    for case in range(CASES):
        files: dict[str, Any] = {name: rng.normal(100, 20, setting.shape).astype(np.float32) for name in channels}
        for name, labels in masks.items():
            files[name] = (np.arange(np.prod(setting.shape)) % (labels + 1)).astype(np.uint8).reshape(setting.shape)
        for name, array in files.items():
            nib.Nifti1Image(array, affine).to_filename(folder / f"{case}-{name}.nii")
        rows.append([str(case), *(f"{case}-{name}.nii" for name in files), *("ab"[case % 2] for _ in classes)])
    (folder / "cohort.csv").write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    tasks: dict[str, Any] = {
        name: {"kind": "segmentation", "column": name, "labels": {f"l{v}": v for v in range(1, labels + 1)}}
        for name, labels in masks.items()
    }
    tasks |= {name: {"kind": "classification", "column": name, "classes": ["a", "b"]} for name in classes}
    config = {
        "schema": 1,
        "cohort": {"table": "cohort.csv", "case": "case", "patient": "case", "channels": {c: c for c in channels}},
        "tasks": tasks,
        "network": {"kind": "unet", **dict(setting.network)},
        "sharing": {"kind": "hard", **dict(setting.sharing)},
        "plan": {"memory_gb": 64, **dict(setting.plan)},
        "split": {"folds": 2},
        "training": {"steps": STEPS, "checkpoint_every": STEPS},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return path


if __name__ == "__main__":
    main()
