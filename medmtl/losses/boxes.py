"""Loss of boxes: which anchors are a lesion's, and how far their boxes are off."""

from __future__ import annotations

import torch
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher, Matcher
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.data.box_utils import box_iou
from torch.nn import functional

CANDIDATES = 4  # of each group, as in nnDetection
PAIRS = 1 << 22  # of a lesion and an anchor that are compared at once; some 54 bytes each
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss, as in RetinaNet
BETA = 1 / 9  # where smooth L1 turns linear, as in MONAI's detection example
CODER = BoxCoder((1.0,) * 6)


class _Matcher(ATSSMatcher):
    """MONAI's, whose constructor would write into the root logger."""

    def __init__(self) -> None:
        Matcher.__init__(self, box_iou)  # type: ignore[arg-type]
        self.num_candidates = CANDIDATES
        self.min_dist = 0.01
        self.center_in_gt = False
        self.debug = False


def matched(box_M6: torch.Tensor, anchors_N7: torch.Tensor) -> torch.Tensor:
    """The lesion of each anchor, (N,), or -1 for background.

    Adaptive training sample selection (Zhang et al. 2020, https://arxiv.org/abs/1912.02424), by MONAI's matcher: of the
    four anchors of each group that lie nearest to a lesion, those whose overlap reaches the mean plus one standard
    deviation of all its candidates', and is not 0. That may be none, so a lesion also gets the anchor that overlaps it
    most. Lesions are taken some at a time, or the memory of a step would grow with the lesions that it meets.

    Args:
        box_M6: lesions, none of them empty; there may be none.
        anchors_N7: corners, and the number of the group; the anchors of a group follow each other.
    """
    if not len(box_M6):
        return torch.full((len(anchors_N7),), -1, dtype=torch.long, device=anchors_N7.device)
    sizes = torch.unique_consecutive(anchors_N7[:, 6], return_counts=True)[1].tolist()
    lesion_N = torch.full((len(anchors_N7),), -1, dtype=torch.long, device=anchors_N7.device)
    reached_N = anchors_N7.new_zeros(len(anchors_N7))  # overlap with the lesion that an anchor has
    best: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each lesion the largest overlap, and whose
    first = 0
    for some_M6 in torch.split(box_M6, max(1, PAIRS // len(anchors_N7))):
        overlap_MN, own_N = _Matcher().compute_matches(some_M6, anchors_N7[:, :6], sizes, 1)
        best.append(overlap_MN.max(dim=1))
        own_overlap_N = overlap_MN.gather(0, own_N.clamp(min=0)[None])[0]
        nearer_N = (own_N >= 0) & (own_overlap_N > reached_N)
        lesion_N = torch.where(nearer_N, own_N + first, lesion_N)
        reached_N = torch.where(nearer_N, own_overlap_N, reached_N)
        first += len(some_M6)
    value_M, index_M = (torch.cat(parts) for parts in zip(*best, strict=True))
    # the smallest overlap is written first, so that of two lesions with one best anchor the better one keeps it
    for lesion in torch.argsort(value_M, stable=True).tolist():
        if value_M[lesion] > 0:
            lesion_N[index_M[lesion]] = lesion
    return lesion_N


def box_loss(prediction_BN7: torch.Tensor, anchors_BN7: torch.Tensor, target_BM6: torch.Tensor) -> torch.Tensor:
    """Focal loss over all anchors plus smooth L1 over those of lesions, per sample, (B,), fp32.

    Both are sums divided by the number of the lesions' anchors, at least 1. Nothing is drawn. Focal loss and smooth L1
    on box codes are RetinaNet's (Lin et al. 2017, https://arxiv.org/abs/1708.02002); codes are the centre's offset in
    anchor sizes and the logarithm of the size's ratio.

    Args:
        prediction_BN7: logit and code of each anchor.
        anchors_BN7: see :func:`matched`; equal for all samples.
        target_BM6: lesions of each sample in voxels; a row without volume is none.
    """
    losses = []
    for value_N7, anchors_N7, row_M6 in zip(prediction_BN7.float(), anchors_BN7, target_BM6, strict=True):
        box = row_M6[(row_M6[:, 3:] > row_M6[:, :3]).all(dim=1)].float()
        lesion_N = matched(box, anchors_N7)
        hit_N = lesion_N >= 0
        total = _focal(value_N7[:, 0], hit_N.float())
        if bool(hit_N.any()):
            code = CODER.encode_single(box[lesion_N[hit_N]], anchors_N7[hit_N, :6])
            total = total + functional.smooth_l1_loss(value_N7[hit_N, 1:], code, beta=BETA, reduction="sum")
        losses.append(total / hit_N.sum().clamp(min=1))
    return torch.stack(losses)


def _focal(logit_N: torch.Tensor, hit_N: torch.Tensor) -> torch.Tensor:
    entropy = functional.binary_cross_entropy_with_logits(logit_N, hit_N, reduction="none")
    missing = torch.where(hit_N > 0, 1 - logit_N.sigmoid(), logit_N.sigmoid())
    return (torch.where(hit_N > 0, ALPHA, 1 - ALPHA) * missing**GAMMA * entropy).sum()
