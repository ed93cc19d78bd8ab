"""The critic contract over a V-GPS critic: imported from either form, and saved as one of our own folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from critics.vgps.critic import VGPSCritic
from steer.critic import Critic
from tests.contracts.critic_contract import CriticContract
from tests.critics.vgps import toys


@pytest.fixture(scope="module", params=["directory", "file", "own", "other image size"])
def critic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Critic:
    if request.param == "directory":
        return toys.critic(toys.DIRECTORY_FORM)
    if request.param == "other image size":
        return toys.critic(stated=toys.Stated(image_size=(20, 28)))
    imported = toys.critic(toys.FILE_FORM)
    if request.param == "file":
        return imported
    path: Path = tmp_path_factory.mktemp("critic") / "model"
    imported.save(path)
    return VGPSCritic.load(path)


class TestVGPS(CriticContract):
    pass
