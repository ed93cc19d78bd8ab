"""Cameras in a PyBullet client: where one stands, and the RGB image it takes.

Images are taken only when asked for: on a CPU one costs several control ticks.
"""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from robots.bullet import BulletClient, pybullet, quiet
from robots.panda_arm import HAND_LINK, PandaArm
from steer.errors import ConfigError
from steer.spec import ArraySpec

Renderer = Literal["auto", "cpu", "gpu"]

VIEWS: Final = ("front", "wrist")

NEAR_M: Final = 0.02
FAR_M: Final = 4.0
LIGHT_FROM: Final = (0.4, -0.8, 1.6)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: eye and target in m (base frame), field of view in degrees, which way is up in the image."""

    eye_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    fov_deg: float
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)


FRONT: Final = Camera(eye_m=(1.22, 0.0, 0.78), target_m=(0.42, 0.0, 0.10), fov_deg=42.0)
VIDEO: Final = Camera(eye_m=(1.22, -0.86, 0.86), target_m=(0.36, 0.0, 0.20), fov_deg=44.0)


def camera(view: str, arm: PandaArm) -> Camera:
    """The camera of a view now; the wrist's moves with the hand."""
    return FRONT if view == "front" else _wrist(arm)


def view_specs(views: Sequence[str], size: int) -> tuple[ArraySpec, ...]:
    """What square images of these views look like; `ConfigError` for a view that there is not."""
    unknown = [view for view in views if view not in VIEWS]
    if unknown:
        raise ConfigError(f"images names {unknown}, expected some of {list(VIEWS)}")
    if size < 1:
        raise ConfigError(f"image_size is {size} pixels, expected at least 1")
    return tuple(ArraySpec(view, "uint8", (size, size, 3), low=0, high=255) for view in views)


class Photographer:
    """Takes pictures in one client, with the EGL plugin where there is a GPU and TinyRenderer otherwise."""

    def __init__(self, client: BulletClient, renderer: Renderer = "auto") -> None:
        self._client = client
        self._plugin = _load_egl(client) if renderer == "gpu" or (renderer == "auto" and has_gpu()) else -1

    @property
    def on_gpu(self) -> bool:
        return self._plugin >= 0

    def view(self, view: str, arm: PandaArm, size: int) -> NDArray[np.uint8]:
        """One of `VIEWS`, uint8[size, size, 3]."""
        return self.take(camera(view, arm), size, size)

    def take(self, camera: Camera, width: int, height: int) -> NDArray[np.uint8]:
        """uint8[height, width, 3] RGB."""
        view = pybullet.computeViewMatrix(camera.eye_m, camera.target_m, camera.up)
        projection = pybullet.computeProjectionMatrixFOV(camera.fov_deg, width / height, NEAR_M, FAR_M)
        _, _, pixels, _, _ = self._client.getCameraImage(
            width,
            height,
            view,
            projection,
            lightDirection=LIGHT_FROM,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_BULLET_HARDWARE_OPENGL if self.on_gpu else pybullet.ER_TINY_RENDERER,
        )
        return np.ascontiguousarray(np.asarray(pixels, np.uint8).reshape(height, width, 4)[..., :3])


def has_gpu() -> bool:
    """Is there a GPU whose driver EGL could use? Software EGL is slower than TinyRenderer."""
    return bool(glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dri/renderD*"))


def _wrist(arm: PandaArm) -> Camera:
    """Beside the hand, looking along the fingers."""
    link = arm.client.getLinkState(arm.body, HAND_LINK, computeForwardKinematics=1)
    origin = np.array(link[4])
    axes = np.array(pybullet.getMatrixFromQuaternion(link[5])).reshape(3, 3)
    eye = origin + axes @ np.array([0.085, 0.0, 0.045])
    target = origin + axes @ np.array([0.0, 0.0, 0.16])
    return Camera(_triple(eye), _triple(target), fov_deg=80.0, up=_triple(axes[:, 0]))


def _load_egl(client: BulletClient) -> int:
    """The plugin's number, negative where it cannot be loaded."""
    found = importlib.util.find_spec("eglRenderer")
    if found is None or found.origin is None:
        return -1
    with quiet():
        number: int = client.loadPlugin(found.origin, "_eglRendererPlugin")
    return number


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = vector.tolist()
    return x, y, z
