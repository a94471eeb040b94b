# nibabel is not fully annotated
# mypy: disable-error-code=no-untyped-call

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import r2_score, roc_auc_score

from medmtl import config as configuration
from medmtl.build import build_tasks
from medmtl.checking import check_cohort
from medmtl.data.synthetic import write_cohort
from medmtl.data.synthetic.anatomy import draw_scan
from medmtl.data.synthetic.lesion import Lesion
from medmtl.data.synthetic.outcome import log_hazard, malignancy_probability, risk_mean
from medmtl.data.synthetic.preset import PRESETS, PresetName
from medmtl.data.synthetic.subject import Subject, draw_missing, draw_subjects
from medmtl.errors import InputError

# sha256 of the tables and of every array with its affine, of 10 cases, seed 3, 2 channels. A change of these numbers
# is a change of every published result on the synthetic cohort: say so in the changelog.
FROZEN = {
    "easy": "c2043ece9d45b0e2c8b44a096a47265ebee68fe2e4df4b29dddbc0d6f977fbff",
    "hard": "e78d962e9d92e62593f6d9b6e7d9b3533a1ac79e43985ac7939c37303e6ec72d",
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for table in ("cohort.csv", "latents.csv"):
        total.update((folder / table).read_bytes())
    for path in sorted(folder.glob("*/*.nii.gz")):
        image = nib.Nifti1Image.from_filename(path)
        total.update(path.name.encode())
        total.update(np.ascontiguousarray(image.dataobj).tobytes())
        total.update(np.round(image.affine, 3).tobytes())
    return total.hexdigest()


def lesion_with(*, trait: float = 0.5, diameter_mm: float = 10.0, size: float = 0.5) -> Lesion:
    return Lesion(size, diameter_mm, elongation=trait, spiculation=trait, heterogeneity=trait, contrast=1.0)


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("easy"), cases=30, seed=1).parent


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_voxels_and_tables_are_frozen(tmp_path: Path, preset: PresetName) -> None:
    write_cohort(tmp_path, cases=10, seed=3, preset=preset, channels=2)
    assert digest(tmp_path) == FROZEN[preset]


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_cohort(tmp_path / name, cases=10, seed=5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 10 + 9 + 3
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_another_seed_gives_other_voxels(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cohort(tmp_path / str(seed), cases=10, seed=seed)
    assert digest(tmp_path / "0") != digest(tmp_path / "1")


@pytest.mark.parametrize(
    ("cases", "seed", "preset", "channels"),
    [(10, 0, "easy", 1), (11, 7, "easy", 2), (10, 2, "hard", 2), (25, 4, "easy", 1)],
)
def test_passes_its_own_check(tmp_path: Path, cases: int, seed: int, preset: PresetName, channels: int) -> None:
    write_cohort(tmp_path / "new", cases=cases, seed=seed, preset=preset, channels=channels)
    config = configuration.load(tmp_path / "new" / "config.yaml")
    checked = check_cohort(config, build_tasks(config))
    assert len(checked.cohort.cases) == cases
    assert len(config.cohort.channels) == channels
    assert not checked.findings.rejected()
    assert config.split.folds == (5 if cases >= 25 else 2)


def test_masks_lie_on_their_image_and_hold_the_lesion(easy: Path) -> None:
    truth = {row["case_id"]: row for row in rows(easy / "latents.csv")}
    for row in rows(easy / "cohort.csv"):
        if not row["lesion"]:
            continue
        image, mask = (
            nib.Nifti1Image.from_filename(easy / row["image"]),
            nib.Nifti1Image.from_filename(easy / row["lesion"]),
        )
        assert image.shape == mask.shape
        np.testing.assert_array_equal(image.affine, mask.affine)
        voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        volume = np.count_nonzero(mask.dataobj) * voxel_ml
        assert volume == pytest.approx(float(truth[row["case_id"]]["volume_ml"]), abs=0.51 * voxel_ml)


def test_orientations_spacings_and_sites_are_mixed(easy: Path) -> None:
    table = rows(easy / "cohort.csv")
    images = [nib.Nifti1Image.from_filename(easy / row["image"]) for row in table]
    assert len({nib.aff2axcodes(image.affine) for image in images}) >= 4
    assert len({tuple(nib.affines.voxel_sizes(image.affine).round(3)) for image in images}) == len(images)
    canonical = np.array([nib.as_closest_canonical(image).shape for image in images])
    assert canonical.max(axis=0).tolist() <= [32, 32, 24]
    medians = {
        site: np.median(
            [np.median(image.dataobj) for image, row in zip(images, table, strict=True) if row["site"] == site]
        )
        for site in ("north", "south")
    }
    assert medians["south"] > 2 * medians["north"]


def test_a_lesion_is_seen_in_every_channel_with_its_own_contrast() -> None:
    preset = PRESETS["easy"]
    differences = []
    for channel in range(3):
        scan = draw_scan(preset, lesion_with(trait=0.0), "north", 3, np.random.default_rng(0))
        image, mask = scan.channels[channel], scan.mask > 0
        middle = image[tuple(slice(n // 4, -(n // 4)) for n in image.shape)]
        differences.append(float(image[mask].mean() - np.median(middle)))
    assert differences[0] > 200
    assert differences[1] < -50
    assert 0 < differences[2] < differences[0] / 2


def test_a_further_channel_leaves_the_first_as_it_is() -> None:
    one, two = (draw_scan(PRESETS["easy"], lesion_with(), "south", n, np.random.default_rng(8)) for n in (1, 2))
    np.testing.assert_array_equal(one.channels[0], two.channels[0])
    np.testing.assert_array_equal(one.mask, two.mask)


def test_traits_are_seen_in_the_voxels() -> None:
    def surface_and_texture(trait: float) -> tuple[float, float]:
        found = []
        for seed in range(8):
            scan = draw_scan(PRESETS["easy"], lesion_with(trait=trait), "north", 1, np.random.default_rng(seed))
            mask = scan.mask > 0
            faces = sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in range(3))
            inside = scan.channels[0][mask]
            found.append((faces / mask.sum(), inside.std() / inside.mean()))
        return float(np.mean([f for f, _ in found])), float(np.mean([t for _, t in found]))

    smooth, malignant = surface_and_texture(0.0), surface_and_texture(1.0)
    assert malignant[0] > 1.2 * smooth[0]
    assert malignant[1] > 1.5 * smooth[1]


def test_most_lesions_are_one_piece(easy: Path) -> None:
    files = [easy / row["lesion"] for row in rows(easy / "cohort.csv") if row["lesion"]]
    masks = [np.asarray(nib.Nifti1Image.from_filename(file).dataobj, np.uint8) for file in files]
    largest = [np.bincount(label(mask)[0].ravel())[1:].max() / mask.sum() for mask in masks if mask.any()]
    assert len(largest) >= 10
    assert min(largest) > 0.95


@pytest.mark.parametrize("preset", ["easy", "hard"])
@pytest.mark.parametrize("cases", [10, 11, 13, 25, 60])
def test_every_cohort_has_what_its_tasks_need(cases: int, preset: PresetName) -> None:
    for seed in range(5):
        subjects = draw_subjects(cases, seed, PRESETS[preset])
        missing = draw_missing(subjects, seed)
        lesions = [subject for subject in subjects if subject.lesion is not None]
        assert cases / 3 <= len(lesions) <= cases * 2 / 3
        for malignant in (False, True):
            known = [s for s in lesions if s.malignant is malignant and s.index not in missing["malignancy"]]
            assert len(known) >= 2
            assert {s.site for s in lesions} == {"north", "south"}
        followed = [s.event for s in subjects if s.index not in missing["survival"]]
        assert 2 <= sum(followed) <= len(followed) - 2
        assert np.std([s.risk for s in subjects if s.index not in missing["risk"]]) > 1
        assert all(s.days >= 1 for s in subjects)
        assert not missing["lesion"] & missing["risk"]


def test_a_tenth_of_each_column_is_missing(easy: Path) -> None:
    table, truth = rows(easy / "cohort.csv"), rows(easy / "latents.csv")
    for column in ("lesion", "risk", "time", "event"):
        assert sum(not row[column] for row in table) == 4
    unlabelled = [row for row, true in zip(table, truth, strict=True) if true["malignancy"] and not row["malignancy"]]
    assert len(unlabelled) == 2
    assert all(not row["malignancy"] for row, true in zip(table, truth, strict=True) if float(true["volume_ml"]) == 0)


def test_the_table_agrees_with_the_latents(easy: Path) -> None:
    for row, true in zip(rows(easy / "cohort.csv"), rows(easy / "latents.csv"), strict=True):
        assert row["case_id"] == true["case_id"]
        if row["risk"]:
            assert float(row["risk"]) == pytest.approx(float(true["risk"]), abs=0.051)
        if row["time"]:
            died, left = float(true["survival_days"]), float(true["follow_up_days"])
            assert int(row["event"]) == (died <= left)
            assert 0 <= int(row["time"]) - min(died, left) < 1


def test_formulas_by_hand() -> None:
    easy = PRESETS["easy"]
    assert malignancy_probability(easy, lesion_with(trait=0.5)) == pytest.approx(0.5)
    assert malignancy_probability(easy, lesion_with(trait=0.75)) == pytest.approx(1 / (1 + np.exp(-3)))
    assert risk_mean(easy, None, 0.0, 72) == pytest.approx(15 + 2)
    assert risk_mean(easy, lesion_with(size=0.5), 1.0, 48) == pytest.approx(15 + 15 + 30 * 0.5 + 25 - 2)
    assert log_hazard(lesion_with(size=1.0), 0.5, 60) == pytest.approx(0.3 + 1.2 + 0.6)
    assert lesion_with(diameter_mm=10.0).volume_mm3 == pytest.approx(523.5988, abs=1e-3)


def explained(subjects: tuple[Subject, ...]) -> tuple[float, float]:
    """The risk's variance explained by the oracle, and by the best increasing function of the true volume."""
    risk = np.array([s.risk for s in subjects])
    volume = np.array([s.lesion.volume_mm3 if s.lesion else 0.0 for s in subjects])
    by_volume = IsotonicRegression().fit(volume, risk).predict(volume)
    return float(r2_score(risk, [s.risk_mean for s in subjects])), float(r2_score(risk, by_volume))


def class_aucs(subjects: tuple[Subject, ...]) -> tuple[float, float]:
    """The AUC for the class of the oracle and of the true volume."""
    lesions = [(s.malignant, s.malignancy_probability, s.lesion.volume_mm3) for s in subjects if s.lesion is not None]
    truth, oracle, volume = zip(*lesions, strict=True)
    return float(roc_auc_score(truth, oracle)), float(roc_auc_score(truth, volume))


@pytest.mark.parametrize("seed", [0, 1])
def test_hard_is_not_solved_by_the_volume_alone(seed: int) -> None:
    subjects = draw_subjects(400, seed, PRESETS["hard"])
    oracle, volume = class_aucs(subjects)
    assert 0.85 < oracle < 0.97
    assert abs(volume - 0.5) <= 0.6 * (oracle - 0.5)
    best, by_volume = explained(subjects)
    assert 0.6 < best < 0.9
    assert by_volume <= 0.6 * best


def test_easy_leaves_little_noise_but_some() -> None:
    subjects = draw_subjects(400, 0, PRESETS["easy"])
    assert 0.95 < class_aucs(subjects)[0] < 1
    assert 0.9 < explained(subjects)[0] < 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"cases": 9}, "10"), ({"channels": 0}, "channel"), ({"seed": -1}, "seed"), ({"preset": "easier"}, "easy, hard")],
)
def test_arguments_out_of_range_are_refused_and_nothing_is_written(
    tmp_path: Path, arguments: dict[str, int], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        write_cohort(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        write_cohort(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        write_cohort(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
