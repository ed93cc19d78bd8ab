"""`steer finetune --policy P --critic C --offline STORE --out RUN`: a policy that gets better while the robot works.

The preset's numbers are flags, so the command is made for the preset that `--preset` names.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
import torch
import tyro
from rich.console import Console

from steer.critic import CriticSpec
from steer.data.store import EpisodeStore, stored_robot
from steer.errors import ConfigError
from steer.online.actor import Cast, Collector, Scene, Source
from steer.online.config import PRESETS, OnlineConfig
from steer.online.learner import Learner
from steer.online.live import LiveRun
from steer.online.processes import Processes
from steer.online.publish import Versions
from steer.online.run_folder import OnlineFolder
from steer.online.sources import Background, Watcher
from steer.online.start import Start
from steer.online.store import online_store
from steer.options import json_or_text, pairs
from steer.policy import PolicySpec
from steer.robot import RobotSpec, read_robot
from steer.selection import Selection
from steer.serial import from_json, to_json
from steer.steering import check_compatible
from steer.training.interrupts import Interrupts
from steer.training.loop import TrainingInterrupted

_log = structlog.get_logger(__name__)

_Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Collect episodes with the steered policy, learn from them, publish better models, and again."""

    policy: str
    """Checkpoint folder of the policy to improve."""
    critic: str
    """Checkpoint folder of the critic that steers it."""
    offline: Path | None = None
    """Episode store that both were trained from."""
    out: Path
    """Folder of the run: state, versions, logs."""
    online: Path | None = None
    """Episode store for the new episodes; OUT/episodes unless given. Actors want one without episodes; with --actors 0 what it
    holds is learnt from at once."""
    env: str = "steer/PickPlace-v0"
    """Any gymnasium environment, by its id."""
    env_option: _Repeatable = ()
    """KEY=VALUE for the environment; the value is read as JSON where it is JSON. May be repeated."""
    map: _Repeatable = ()
    """OUR_KEY=ENV_KEY for an observation; leave ENV_KEY empty for an environment without named ones. May be repeated."""
    robot_spec: Path | None = None
    """JSON file with the robot spec of an environment that does not carry one; with --actors 0, of the robot that others record."""
    preset: Literal["calql", "wsrl", "rlpd"] = "calql"
    """Which numbers to begin with."""
    config: Annotated[OnlineConfig, tyro.conf.arg(name="")] = PRESETS["calql"]
    selection: Selection = Selection()
    episodes: int = 300
    """Online episodes in all; a finished run goes on with a larger number and --resume."""
    robot_minutes: float = 0.0
    """End earlier, with the round in which the robot's control steps add up to so many minutes; 0: no such limit."""
    actors: int = 1
    """Processes that play; 0: none, others record into the online store (steer run --record)."""
    play_on: _Flag = False
    """Actors go on playing with the newest version while the learner learns; otherwise they wait for it, and a run can be
    repeated exactly."""
    first_seed: int = 200_000
    """Episode i starts from this + i. Evaluations use other seeds."""
    seed: int = 0
    """Seed of batches, noise and fresh weights."""
    resume: _Flag = False
    """Go on from the last saved state in OUT, exactly."""
    overwrite: _Flag = False
    """Discard an earlier run in OUT with all that it wrote, and OUT/episodes with all that was recorded there, also by a
    server: stop that first. A store elsewhere, which --online names, stays as it is."""
    device: str = "cpu"
    """Where the learner learns: cpu, cuda, cuda:1, or auto. Start the command by `accelerate launch` for several processes."""
    threads: int = 1
    """CPU threads of the learner; the networks are too small to share."""
    save_every: int = 500
    """Updates between two saved states; one is saved after each part of a round, too."""

    def run(self) -> None:
        self._check()
        torch.set_num_threads(self.threads)
        processes = Processes.of(self.device)
        folder = OnlineFolder(self.out)
        with folder.locked() if processes.first else nullcontext():
            try:
                self._learn(folder, processes)
            except TrainingInterrupted as stop:
                if processes.first:
                    Console(stderr=True, soft_wrap=True).print(str(stop), markup=False, highlight=False)
                raise
        if processes.first:
            self._say_where()

    def _say_where(self) -> None:
        versions = Versions(self.out)
        newest = versions.current()
        Console(soft_wrap=True).print(
            f"{newest.episodes} episodes, version {newest.version}: {versions.folder(newest.version)}", highlight=False
        )

    def _learn(self, folder: OnlineFolder, processes: Processes) -> None:
        asked = self._settings(), self.resume, self.overwrite
        # All that may be wrong is found out before anything in the folder changes.
        if processes.first:
            folder.check(*asked)
        self.config.check_offline(self.offline is not None)
        start = Start.load(self.policy, self.critic, self.config)
        offline = None if self.offline is None else EpisodeStore.open(self.offline)
        scene, path = self._scene(), self.online or folder.episodes
        robot = self._robot(scene, offline, path)
        _check_models(start, robot, self.config)
        if processes.first:
            self._check_store(folder, robot)
        going_on = processes.told(folder.claim(*asked) if processes.first else False)
        store = online_store(path, robot)
        source = self._source(scene, start, path, robot) if processes.first else None
        try:
            with Interrupts() as interrupts:
                learner = Learner(
                    start,
                    self.config,
                    folder,
                    store,
                    offline,
                    source,
                    seed=self.seed,
                    save_every=self.save_every,
                    stop=lambda: interrupts.requested,
                    processes=processes,
                )
                if going_on:
                    learner.resume()
                robot_minutes = self.robot_minutes or math.inf
                if not processes.first:
                    learner.run(self.episodes, robot_minutes)
                    return
                title = f"fine-tuning by {self.preset}, {self.config.improve}"
                with LiveRun(title, folder.rounds, folder.logs, learner.progress.published) as live:
                    learner.listen(live.tell, live.show)
                    learner.run(self.episodes, robot_minutes)
        finally:
            if source is not None:
                source.close()

    def _source(self, scene: Scene, start: Start, store: Path, robot: RobotSpec) -> Source:
        config = self.config
        cast = Cast(
            self.out,
            self.policy,
            config.base_samples,
            config.student_samples,
            config.temperature,
            start.executed,
            self.selection,
        )
        if not self.actors:
            return Watcher(online_store(store, robot))
        collector = Collector(scene, cast, store, robot, self.first_seed, self.actors)
        if not self.play_on:
            return collector
        return Background(collector, self.episodes, config.warmup_episodes, config.warmup_behaviour == "steered")

    def _scene(self) -> Scene:
        options = {key: json_or_text(text) for key, text in pairs(self.env_option, "--env-option").items()}
        robot = None if self.robot_spec is None else read_robot(self.robot_spec)
        return Scene(self.env, options, pairs(self.map, "--map"), robot)

    def _robot(self, scene: Scene, offline: EpisodeStore | None, online: Path) -> RobotSpec:
        """The robot of the new episodes: the offline store's, else the one of who plays. Raises `ConfigError` where nobody says."""
        played = _played_robot(scene) if self.actors else None
        if offline is not None:
            return offline.robot
        robot = played or (stored_robot(online) if (online / "store.json").exists() else scene.robot)
        if robot is None:
            raise ConfigError(
                "nothing says which robot others record with --actors 0: give --offline, an --online store that is there already, "
                "or --robot-spec"
            )
        return robot

    def _check_store(self, folder: OnlineFolder, robot: RobotSpec) -> None:
        """Raise unless this run's episodes may go where they are to go."""
        path = self.online or folder.episodes
        own = path.resolve() == folder.episodes.resolve()
        if own and (self.overwrite or not path.exists()):
            return
        held = len(EpisodeStore.create(path, robot, exist_ok=True, skip_broken=True))
        if self.resume or not held:
            return
        if self.actors:
            way_out = "--overwrite them" if own else "give another --online"
            raise ConfigError(
                f"{path} holds {held} episodes that this run did not play: {way_out}, or learn from them with --actors 0"
            )
        _log.warning("the online store holds episodes already, the first round learns from them", episodes=held)

    def _check(self) -> None:
        if self.play_on and not self.actors:
            raise ConfigError("--play-on is for actors, and --actors is 0: leave one of them out")
        online, out = (self.online or self.out).resolve(), self.out.resolve()
        if out in online.parents and online != out / "episodes":
            raise ConfigError(f"--online {self.online} lies in --out, which is for the run alone: choose another place")
        for name, least in (
            ("episodes", 1),
            ("robot_minutes", 0),
            ("actors", 0),
            ("threads", 1),
            ("save_every", 1),
            ("first_seed", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected at least {least}")

    def _settings(self) -> dict[str, Any]:
        """What must be the same when the run is resumed."""
        return {
            "policy": self.policy,
            "critic": self.critic,
            "offline": None if self.offline is None else str(self.offline),
            "online": None if self.online is None else str(self.online),
            "env": self.env,
            "env_option": list(self.env_option),
            "map": list(self.map),
            "first_seed": self.first_seed,
            "seed": self.seed,
            "selection": to_json(self.selection),
            "config": to_json(self.config),
        }


def _played_robot(scene: Scene) -> RobotSpec:
    """The robot of the environment, which can thus be made."""
    environment = scene.make()
    environment.close()
    return environment.robot


def _check_models(start: Start, robot: RobotSpec, config: OnlineConfig) -> None:
    """Raise `SpecError` where the robot does not fit the models; of a critic that starts anew only the settings are used."""
    policy = from_json(PolicySpec, start.policy.spec, f"{start.policy.path}: spec")
    critic = None if config.fresh_critic else from_json(CriticSpec, start.critic.spec, f"{start.critic.path}: spec")
    check_compatible(robot, policy, critic)


def command(words: Sequence[str]) -> Any:
    """The arguments of `steer finetune`, with the defaults of the preset that these words choose."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default="calql")
    chosen = parser.parse_known_args(list(words))[0].preset
    defaults = PRESETS.get(chosen, PRESETS["calql"])

    @dataclass(frozen=True, kw_only=True)
    class Chosen(FineTune):
        __doc__ = FineTune.__doc__
        config: Annotated[OnlineConfig, tyro.conf.arg(name="")] = defaults

    return Chosen
