"""How large a sample is, and what was found in it: what pooled features cannot say, or say too softly."""

from __future__ import annotations

import torch
from torch import nn

from medmtl.networks.features import Features
from medmtl.networks.pooling.running import RunningStandardisation

AXES = 3
SHAPE_GAIN = 10.0
EXTENT_GAIN = 30.0
LEAST = 0.05  # deviation of a logarithm; a size that varies less in training is not blown up in prediction


class Sizes(nn.Module):
    """``z = h (l - m) / sqrt(v + 0.05^2)`` of logarithms l, with running moments m and v over samples.

    l holds the voxels of the sample along each axis, and ``log(1 + voxels)`` of each label of the guides, by the sum of
    its probabilities. A logarithm, because ratios of volumes are sums then, and a small lesion counts as a large organ.

    The sample's shape is what the cases of a step were padded to, and pooled features depend on it. The gain h is a
    step size, 10 for the shape and 30 for a label: where an answer follows from these few numbers, they have to be
    faster than hundreds of features that can learn the training cases by heart.

    Args:
        labels: of all guides together.

    Attributes:
        width: of z.
    """

    gain: torch.Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.width = AXES + labels
        self.standardise = RunningStandardisation(self.width, LEAST**2)
        gain = torch.tensor([SHAPE_GAIN] * AXES + [EXTENT_GAIN] * labels)
        self.register_buffer("gain", gain, persistent=False)

    def forward(self, features: Features) -> torch.Tensor:
        """Features -> (B, width), fp32."""
        finest = features.encoder[0]
        shape_3 = torch.tensor(finest.shape[2:], dtype=torch.float32, device=finest.device)
        parts = [shape_3.log().expand(len(finest), AXES)]
        parts += [guide.total_BL.log1p() for guide in features.guides]
        found: torch.Tensor = self.gain * self.standardise(torch.cat(parts, dim=1))
        return found
