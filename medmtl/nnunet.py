"""What an nnU-Net plan decides, as keys of ``plan`` and ``network``.

Both forms that nnU-Net v2 writes are read: with ``architecture`` (since 2.5), and with ``UNet_class_name`` and its
neighbours in the configuration. Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medmtl.errors import ArtefactError
from medmtl.files import parse_json
from medmtl.networks.encoder import EncoderOptions
from medmtl.validation import Faults

if TYPE_CHECKING:
    from medmtl.config import Config

MAX_BYTES = 20_000_000
Normalisation = Literal["zscore", "zscore_nonzero", "ct", "none"]
# scheme, and whether only voxels that are not 0 count
NORMALISATIONS: dict[tuple[str, bool], Normalisation] = {
    ("ZScoreNormalization", False): "zscore",
    ("ZScoreNormalization", True): "zscore_nonzero",
    ("CTNormalization", False): "ct",
    ("CTNormalization", True): "ct",
    ("NoNormalization", False): "none",
    ("NoNormalization", True): "none",
}
# what the encoders have, where the plan names it
PARTS = {"conv_op": "Conv3d", "norm_op": "InstanceNorm3d", "nonlin": "LeakyReLU", "dropout_op": None}


def honour(config: Config, faults: Faults) -> Config:
    """The configuration with what the plan of ``plan.nnunet`` decides; keys that are set win.

    Strides, kernels and channels are one decision: where ``plan.strides`` is set none of them is taken. A run's own
    configuration has all keys, and the plan is not read again. Statistics of intensities are not taken: they were
    learned from cases that this run holds out.

    Args:
        config: each block of which is valid.
        faults: gets every fault.
    """
    own = config.plan
    given = [value is not None for value in (own.spacing, own.shape, own.batch, own.strides)]
    if own.nnunet is None or (all(given) and set(own.normalisation) == set(config.cohort.channels)):
        return config
    try:
        plan = _Plan(own.nnunet, own.configuration)
        found, network = plan.keys(), plan.network(config.network)
        normalisation = plan.normalisation(list(config.cohort.channels), own.normalisation)
    except ValueError as error:
        faults.add(("plan", "nnunet"), f"{own.nnunet}, {error}", "B142")
        return config
    if own.strides is not None:
        found = {name: value for name, value in found.items() if name not in ("strides", "kernels", "channels")}
    if own.width is not None or own.max_width is not None:
        found.pop("channels", None)
    taken = {name: value for name, value in found.items() if getattr(own, name) is None}
    keys = {*taken, *(f"normalisation.{name}" for name in normalisation if name not in own.normalisation)}
    section = own.model_copy(update={**taken, "normalisation": normalisation}).with_taken(keys)
    return config.model_copy(update={"plan": section, "network": network})


class _Plan:
    """One configuration of a ``plans.json``; faults are ValueErrors that begin with the key."""

    def __init__(self, path: Path, name: str) -> None:
        document = _read(path)
        configurations = _mapping(document, "configurations", "")
        self._place = f"configurations.{name}"
        self._own: dict[str, Any] = {}
        following: Any = name
        seen: list[str] = []
        while following is not None:
            if not isinstance(following, str) or following in seen or following not in configurations:
                known = ", ".join(map(str, configurations))
                raise ValueError(f"configurations: {following!r} is not there or inherits from itself; known: {known}")
            seen.append(following)
            held = _mapping(configurations, following, "configurations.")
            self._own = {**held, **self._own}
            following = held.get("inherits_from")
        if self._own.get("previous_stage"):
            raise ValueError(f"{self._place}.previous_stage: a cascade's second stage is not supported; name another")
        forward = document.get("transpose_forward", [0, 1, 2])
        if forward not in [list(order) for order in permutations(range(3))]:
            raise ValueError(f"transpose_forward: an order of the axes 0, 1 and 2 is expected, found {forward!r}")
        # nnU-Net's arrays are z, y, x, and transposed before they are planned on; ours are x, y, z
        self._order = [forward.index(axis) for axis in (2, 1, 0)]
        structure = self._own.get("architecture")
        self._modern = isinstance(structure, dict)
        where = f"{self._place}.architecture."
        self._network = _mapping(structure, "arch_kwargs", where) if isinstance(structure, dict) else self._own
        self._names = f"{where}arch_kwargs." if self._modern else f"{self._place}."
        self._class = _get(structure, "network_class_name", where) if isinstance(structure, dict) else ""
        self._class = str(self._class or _get(self._own, "UNet_class_name", f"{self._place}.")).rpartition(".")[2]

    def keys(self) -> dict[str, Any]:
        """Keys of ``plan`` with their values, but for the normalisation."""
        for name, wanted in PARTS.items():
            given = self._network.get(name, wanted)
            if (str(given).rpartition(".")[2] if given else None) != wanted:
                raise ValueError(f"{self._names}{name}: {wanted or 'null'} is supported, found {given!r}")
        strides = self._triples("strides" if self._modern else "pool_op_kernel_sizes")
        kernels = self._triples("kernel_sizes" if self._modern else "conv_kernel_sizes")
        if len(strides) != len(kernels) or strides[0] != (1, 1, 1):
            raise ValueError(f"{self._names}: as many strides as kernels are expected, the first of them 1, 1, 1")
        if even := [kernel for kernel in kernels if any(n % 2 == 0 for n in kernel)]:
            raise ValueError(f"{self._names}: kernels must be odd, found {list(even[0])}")
        batch = _get(self._own, "batch_size", f"{self._place}.")
        if type(batch) is not int or batch < 1:
            raise ValueError(f"{self._place}.batch_size: a whole number from 1 is expected, found {batch!r}")
        return {
            "spacing": tuple(float(size) for size in self._axes(self._own, "spacing", f"{self._place}.")),
            "shape": self._shape(),
            "batch": batch,
            "strides": strides,
            "kernels": kernels,
            "channels": self._channels(len(strides)),
        }

    def network(self, options: EncoderOptions) -> EncoderOptions:
        """The options of the network with what the plan says of its blocks."""
        names = ("n_blocks_per_stage", "n_conv_per_stage") if self._modern else ("n_conv_per_stage_encoder",)
        name = next((name for name in names if name in self._network), names[0])
        blocks = _counts(_get(self._network, name, self._names), f"{self._names}{name}")
        try:
            return options.as_in_nnunet(self._class, blocks)
        except ValueError as error:
            raise ValueError(f"{self._names}{name}: {error}") from None

    def _shape(self) -> tuple[int, int, int]:
        shape = self._axes(self._own, "patch_size", f"{self._place}.")
        if any(n != int(n) for n in shape):
            raise ValueError(f"{self._place}.patch_size: whole numbers are expected, found {list(shape)}")
        return (int(shape[0]), int(shape[1]), int(shape[2]))

    def _channels(self, stages: int) -> tuple[int, ...]:
        if self._modern:
            found = _counts(_get(self._network, "features_per_stage", self._names), f"{self._names}features_per_stage")
        else:
            bounds = ("UNet_base_num_features", "unet_max_num_features")
            base, most = (_counts([_get(self._own, n, self._names)], f"{self._names}{n}")[0] for n in bounds)
            found = tuple(min(base * 2**stage, most) for stage in range(stages))
        if len(found) != stages or min(found) < 4:
            raise ValueError(f"{self._names}: 4 features or more at each of {stages} stages, found {list(found)}")
        return found

    def normalisation(self, channels: list[str], own: Mapping[str, Normalisation]) -> dict[str, Normalisation]:
        """Kind of each channel, ``own`` where it is set."""
        place = f"{self._place}.normalization_schemes"
        schemes = _get(self._own, "normalization_schemes", f"{self._place}.")
        masked = self._own.get("use_mask_for_norm", [False] * len(channels))
        if not all(isinstance(held, list) and len(held) == len(channels) for held in (schemes, masked)):
            raise ValueError(
                f"{place}: one scheme, and one use_mask_for_norm, for each of {len(channels)} channels is expected, "
                f"found {schemes!r} and {masked!r}"
            )
        found: dict[str, Normalisation] = {}
        for channel, scheme, mask in zip(channels, schemes, masked, strict=True):
            kind = own.get(channel) or NORMALISATIONS.get((str(scheme), bool(mask)))
            if kind is None:
                known = ", ".join(dict.fromkeys(name for name, _ in NORMALISATIONS))
                raise ValueError(f"{place}: {scheme!r} is none of {known}; set plan.normalisation.{channel}")
            found[channel] = kind
        return found

    def _triples(self, name: str) -> tuple[tuple[int, int, int], ...]:
        held = _get(self._network, name, self._names)
        if not isinstance(held, list) or not held:
            raise ValueError(f"{self._names}{name}: a list of three numbers per stage is expected, found {held!r}")
        rows = [self._axes({name: row}, name, self._names) for row in held]
        if any(n != int(n) for row in rows for n in row):
            raise ValueError(f"{self._names}{name}: whole numbers are expected, found {held!r}")
        return tuple((int(x), int(y), int(z)) for x, y, z in rows)

    def _axes(self, holder: Mapping[str, Any], name: str, prefix: str) -> tuple[float, float, float]:
        """Three positive numbers in our order of the axes; one number stands for all three."""
        value = _get(holder, name, prefix)
        value = [value] * 3 if isinstance(value, int | float) else value
        if not isinstance(value, list) or len(value) != 3 or not all(_positive(n) for n in value):
            hint = "; two are a 2D configuration's" if isinstance(value, list) and len(value) == 2 else ""
            raise ValueError(f"{prefix}{name}: three numbers above 0 are expected, found {value!r}{hint}")
        x, y, z = (value[axis] for axis in self._order)
        return (x, y, z)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes; is it a plan?")
    try:
        document = parse_json(data, path.name)
    except ArtefactError as error:
        raise ValueError(str(error)) from None
    if not isinstance(document, dict):
        raise ValueError("must hold keys and values")
    return document


def _get(holder: Mapping[str, Any], name: str, prefix: str) -> Any:
    if name not in holder:
        raise ValueError(f"{prefix}{name}: this key is missing")
    return holder[name]


def _mapping(holder: Mapping[str, Any], name: str, prefix: str) -> dict[str, Any]:
    value = _get(holder, name, prefix)
    if not isinstance(value, dict):
        raise ValueError(f"{prefix}{name}: keys and values are expected, found {str(value)[:40]!r}")
    return value


def _counts(value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(n) is int and n > 0 for n in value):
        raise ValueError(f"{place}: whole numbers above 0 are expected, found {value!r}")
    return tuple(value)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
