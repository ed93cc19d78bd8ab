"""What has to be done before LeRobot 0.4.4 can be imported beside a torch without CUDA. Runs in LeRobot's environment only.

Import `install` and call it before the first `import lerobot` of a process.
"""

from __future__ import annotations

from functools import cache

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@cache
def install() -> torch.library.Library | None:
    """Declare torchvision's two compiled operators where its compiled part cannot be loaded.

    The torchvision wheel of the package index links CUDA libraries, which a CPU build of torch does not bring; importing it then
    fails on the registration of fake kernels for operators that nobody declared. LeRobot imports torchvision for its ResNets,
    transforms and frozen batch norms, which are plain torch; it calls neither operator. The returned library owns the
    declarations and is kept by the cache; None when torch has CUDA, where the real ones load.
    """
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch's
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)  # type: ignore[no-untyped-call]  # torch's
    return library
