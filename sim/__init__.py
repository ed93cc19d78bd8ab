"""The simulated task. Importing this package, or gymnasium with it installed, registers `steer/PickPlace-v0`."""

from __future__ import annotations

import gymnasium


def register() -> None:
    """Tell gymnasium of our environments; a second call changes nothing. Loads no physics."""
    if "steer/PickPlace-v0" not in gymnasium.registry:
        gymnasium.register(id="steer/PickPlace-v0", entry_point="sim.env:PickPlace")


register()
