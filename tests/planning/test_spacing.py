from __future__ import annotations

from pathlib import Path

from tests.planning.cohorts import configured, fingerprint, planned


class TestSpacing:
    def test_it_is_the_median_per_axis(self, tmp_path: Path) -> None:
        spacings = ((1.0, 0.8, 2.0), (1.2, 0.9, 3.0), (1.1, 0.7, 1.0))
        plan = planned(configured(tmp_path), *(fingerprint((40, 40, 40), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.1, 0.8, 2.0)

    def test_few_thick_slices_take_the_tenth_percentile(self, tmp_path: Path) -> None:
        spacings = ((1.0, 1.0, 10.0), (1.0, 1.0, 10.0), (1.0, 1.0, 5.0))
        plan = planned(configured(tmp_path), *(fingerprint((120, 120, 12), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.0, 1.0, 6.0)  # a fifth of the way from 5 to 10
        assert "10th percentile" in plan.reasons["spacing"]

    def test_a_few_thin_slices_make_no_working_spacing_finer_than_in_the_plane(self, tmp_path: Path) -> None:
        thicknesses = (10.0, 10.0, 10.0, 0.3, 0.3)
        plan = planned(configured(tmp_path), *(fingerprint((120, 120, 12), (1.0, 1.0, size)) for size in thicknesses))
        assert plan.preparation.spacing == (1.0, 1.0, 1.0)

    def test_many_thick_slices_keep_the_median(self, tmp_path: Path) -> None:
        spacings = ((1.0, 1.0, 10.0), (1.0, 1.0, 10.0), (1.0, 1.0, 5.0))
        plan = planned(configured(tmp_path), *(fingerprint((40, 40, 40), spacing) for spacing in spacings))
        assert plan.preparation.spacing == (1.0, 1.0, 10.0)

    def test_a_set_spacing_is_taken(self, tmp_path: Path) -> None:
        plan = planned(configured(tmp_path, plan__spacing=[2, 2, 2]), fingerprint((64, 64, 64)))
        assert plan.preparation.spacing == (2.0, 2.0, 2.0)
        assert plan.shape == (32, 32, 32)
        assert plan.reasons["spacing"] == "set in the configuration"
