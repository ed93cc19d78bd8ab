"""A V-GPS critic as a robot's owner meets it: by name, steering a policy, saved, and refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from critics.vgps.bounds import PUBLISHED
from critics.vgps.critic import VGPSCritic
from critics.vgps.language import EmbeddingTable
from steer import registry
from steer.cli.main import main
from steer.client.steering_client import SteeringClient
from steer.decision import Request
from steer.engine import Engine
from steer.errors import CheckpointError, ConfigError, SpecError, UnsupportedError
from steer.observation import Batch, Observation, ObservationSpec, Task
from steer.robot import RobotSpec, write_robot
from steer.server.server import ServerConfig, running
from steer.spec import Array, ArraySpec
from tests.critics.vgps import toys

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def batch(*instructions: str) -> Batch:
    seen = Observation.single({"image": IMAGE})
    return Batch.stack([seen] * len(instructions), [Task(instruction) for instruction in instructions])


def actions(rows: int = 1, count: int = 4, steps: int = 1) -> Array:
    spec = PUBLISHED["bridge"].action_spec()
    shape = (rows, count, steps, 7)
    return np.random.default_rng(1).uniform(spec.low, spec.high, shape).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "muse.json"
    path.write_text(json.dumps(dict(zip(toys.INSTRUCTIONS, toys.table().embeddings.tolist(), strict=True))))
    return path


def named(table: Path, further: str = "", place: Path = toys.FILE_FORM) -> VGPSCritic:
    critic = registry.critic(f"vgps:{place}?bounds=bridge&embeddings={table}&image_size=32{further}")
    assert isinstance(critic, VGPSCritic)
    return critic


def test_it_loads_by_name(table: Path) -> None:
    critic, spec = named(table), named(table).spec
    assert (spec.members, spec.reduction, spec.scores, spec.prefixes, spec.gamma) == (
        2,
        "min",
        "first_action",
        (1,),
        0.98,
    )
    assert spec.observation["image"].shape == (-1, -1, 3)
    context = critic.encode(batch("open the drawer"))
    expected = toys.critic()
    np.testing.assert_array_equal(
        critic.score(context, actions()), expected.score(expected.encode(batch("open the drawer")), actions())
    )


def test_the_target_network_scores() -> None:
    target, online = toys.critic(), toys.critic(params="params")
    ask = batch("open the drawer")
    assert target.version != online.version
    assert np.abs(target.score(target.encode(ask), actions()) - online.score(online.encode(ask), actions())).max() > 1


def test_image_and_instruction_change_the_score() -> None:
    critic = toys.critic()
    scores = critic.score(critic.encode(batch("", "open the drawer")), np.repeat(actions(), 2, axis=0))
    assert not np.allclose(scores[:, 0], scores[:, 1], atol=1e-3)
    for pixel in (0, 255):
        other = Batch({"image": np.full((1, 1, 32, 32, 3), pixel, np.uint8)}, np.ones((1, 1), np.bool_), (Task(""),))
        assert not np.allclose(critic.score(critic.encode(other), actions()), scores[:, :1], atol=1e-3)


def test_actions_beyond_the_bounds_score_as_at_the_bounds() -> None:
    critic = toys.critic()
    context, high = critic.encode(batch("")), np.broadcast_to(critic.spec.action.high, (1, 1, 1, 7))
    np.testing.assert_array_equal(critic.score(context, high * 3), critic.score(context, high.copy()))


def test_the_image_is_encoded_once_for_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    critic, rows = toys.critic(), []
    forward = critic.network.encoder.forward
    monkeypatch.setattr(critic.network.encoder, "forward", lambda x, text: (rows.append(len(x)), forward(x, text))[1])
    context = critic.encode(batch("open the drawer"))
    critic.score(context, actions(count=32))
    critic.score(context, actions(count=8))
    assert rows == [1]


def test_images_are_resized_unless_told_otherwise() -> None:
    small, any_size = toys.critic(), toys.critic(stated=toys.Stated(image_size=None))
    released = toys.critic(stated=toys.Stated())
    assert released.config.network.image_size == (256, 256)
    ask = batch("")
    scores = [critic.score(critic.encode(ask), actions()) for critic in (small, any_size, released)]
    assert not np.allclose(scores[0], scores[1], atol=1e-4)
    assert not np.allclose(scores[0], scores[2], atol=1e-4)


def test_it_ranks_what_a_caller_brings() -> None:
    critic = toys.critic()
    brought = actions(count=6, steps=4)[0]
    request = Request(Observation.single({"image": IMAGE}), Task("open the drawer"), candidates=brought)
    decision = Engine(None, critic).rerank([request])[0]
    scores = critic.score(critic.encode(batch("open the drawer")), brought[None, :, :1])[:, 0]
    assert decision.reduce == "min"
    assert decision.chosen == scores.min(0).argmax()
    np.testing.assert_array_equal(decision.chunk, brought[decision.chosen])


def test_a_server_offers_it_to_policies_elsewhere() -> None:
    """With a table that has no empty instruction: warming must not need one."""
    stated = replace(
        PUBLISHED["bridge"].action_spec(),
        kind="delta", frame="base", reference="measured", rotation="rpy", gripper="positive_opens",
    )  # fmt: skip
    axes = tuple(replace(axis, unit="m") for axis in stated.axes)
    table = EmbeddingTable(["open the drawer"], np.ones((1, 512), np.float32))
    action = replace(stated, axes=axes)
    critic = VGPSCritic.from_flax(toys.FILE_FORM, PUBLISHED["bridge"], table, stated=toys.SMALL, action=action)
    robot = RobotSpec("widowx", action, ObservationSpec((ArraySpec("image", "uint8", (48, 64, 3)),)))
    request = Request(
        Observation.single({"image": IMAGE}), Task("open the drawer"), candidates=actions(count=6, steps=4)[0]
    )
    here = Engine(None, critic).rerank([request])[0]
    with running(Engine(None, critic), ServerConfig(address="127.0.0.1:0", warm_samples=2)) as address:
        client = SteeringClient(address, robot)
        decision = client.rerank(request)
        with pytest.raises(SpecError, match="'shut the drawer' is not among the 1"):
            client.rerank(replace(request, task=Task("shut the drawer")))
        client.close()
    np.testing.assert_array_equal(decision.scores, here.scores)
    assert decision.chosen == here.chosen


def test_saved_as_one_of_our_folders_it_loads_by_path_alone(tmp_path: Path, table: Path) -> None:
    critic = named(table)
    version = critic.save(tmp_path / "saved", card="A critic.")
    loaded = registry.critic(str(tmp_path / "saved"))
    ask = batch("open the drawer", "")
    assert (loaded.version, loaded.spec) == (version, critic.spec)
    np.testing.assert_array_equal(
        loaded.score(loaded.encode(ask), actions(2)), critic.score(critic.encode(ask), actions(2))
    )
    with pytest.raises(SpecError, match="not among the 3"):
        loaded.encode(batch("fly"))
    with pytest.raises(ConfigError, match=r"no options \['bounds'\]"):
        registry.critic(f"vgps:{tmp_path / 'saved'}?bounds=bridge")


def test_a_sidecar_says_what_the_actions_mean(tmp_path: Path, table: Path) -> None:
    stated = replace(PUBLISHED["bridge"].action_spec(), kind="delta", frame="base")
    write_robot(tmp_path / "robot.json", RobotSpec("widowx", stated, toys.critic().spec.observation))
    assert named(table, f"&robot={tmp_path / 'robot.json'}").spec.action == stated


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ("&pooling=mean", "pooling is 'mean'"),
        ("&groups=two", "whole number"),
        ("&colour=red", r"no options \['colour'\]"),
        ("&device=cuda", "no CUDA device"),
    ],
)
def test_options_that_cannot_be_are_refused(table: Path, further: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        named(table, further)


@pytest.mark.parametrize("text", ["0", "big", "3x", "-1"])
def test_an_image_size_that_is_none_is_refused(table: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        registry.critic(f"vgps:{toys.FILE_FORM}?bounds=bridge&embeddings={table}&image_size={text}")


def test_bounds_have_to_be_stated_and_to_fit(tmp_path: Path, table: Path) -> None:
    with pytest.raises(ConfigError, match=r"add \?bounds=bridge"):
        registry.critic(f"vgps:{toys.FILE_FORM}?embeddings={table}")
    (tmp_path / "b.json").write_text('{"low": [0], "high": [1], "rate_hz": 5}')
    with pytest.raises(ConfigError, match="of 7 axes, the bounds have 1"):
        registry.critic(f"vgps:{toys.FILE_FORM}?embeddings={table}&bounds={tmp_path / 'b.json'}")


def test_a_table_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="in 3 numbers, the critic was trained on 512"):
        VGPSCritic.from_flax(toys.FILE_FORM, PUBLISHED["bridge"], EmbeddingTable(["a"], np.zeros((1, 3), np.float32)))


def test_a_critic_without_conditioning_takes_no_instructions(tmp_path: Path) -> None:
    arrays = {name: value for name, value in toys.arrays().items() if "FilmConditioning" not in name}
    path = toys.write_agent(tmp_path / "checkpoint_1", arrays)
    with pytest.raises(ConfigError, match="leave the embeddings out"):
        toys.critic(path)
    critic = VGPSCritic.from_flax(path, PUBLISHED["bridge"], stated=toys.SMALL)
    scores = critic.score(critic.encode(batch("anything", "else")), np.repeat(actions(), 2, axis=0))
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=1e-6)


def test_more_steps_than_the_first_are_refused() -> None:
    critic = toys.critic()
    with pytest.raises(UnsupportedError, match="4 steps"):
        critic.score(critic.encode(batch("")), actions(steps=4))


def test_a_saved_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    toys.critic().save(tmp_path / "saved")
    config = tmp_path / "saved" / "config.json"
    config.write_text(config.read_text().replace('"vgps"', '"q"'))
    with pytest.raises(CheckpointError, match="not what the manifest says"):
        VGPSCritic.load(tmp_path / "saved")


def test_a_converted_agent_scores_the_same_without_the_agent(tmp_path: Path) -> None:
    table = toys.table()
    np.savez(tmp_path / "muse.npz", instructions=list(table.instructions), embeddings=table.embeddings)
    agent = f"vgps:{toys.FILE_FORM}?bounds=bridge&image_size=32&embeddings={tmp_path / 'muse.npz'}"
    main(["convert", agent, str(tmp_path / "ours")])
    before, after = registry.critic(agent), registry.critic(str(tmp_path / "ours"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (48, 40, 3), np.uint8)
    batch = Batch.stack([Observation.single({"image": image})] * 2, [Task(text) for text in toys.INSTRUCTIONS[1:]])
    actions = rng.uniform(-0.05, 0.05, (2, 5, 1, 7)).astype(np.float32)
    scores = [critic.score(critic.encode(batch), actions) for critic in (before, after)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert after.spec == before.spec
    size = sum(file.stat().st_size for file in (tmp_path / "ours").rglob("*") if file.is_file())
    assert size < toys.FILE_FORM.stat().st_size / 4


def test_a_converted_agent_takes_another_table(tmp_path: Path) -> None:
    made = toys.critic()
    made.save(tmp_path / "ours")
    other = {"close the drawer": [0.5] * 512}
    (tmp_path / "other.json").write_text(json.dumps(other))
    again = registry.critic(f"{tmp_path / 'ours'}?embeddings={tmp_path / 'other.json'}")
    batch = Batch.stack([Observation.single({"image": np.zeros((8, 8, 3), np.uint8)})], [Task("close the drawer")])
    assert again.encode(batch).shape[1] == 1
    with pytest.raises(SpecError, match="not among the 3 of the embedding table"):
        made.encode(batch)


def test_what_cannot_be_converted_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (
        (f"octo:{toys.FILE_FORM}", "used as they are"),
        (f"vgps:{toys.FILE_FORM}", "add ?bounds="),
        ("nowhere", "no such file or folder to convert"),
    ):
        with pytest.raises(SystemExit):
            main(["convert", name, str(tmp_path / "ours")])
        assert words in capsys.readouterr().err
