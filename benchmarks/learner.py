"""What a learner's update costs beside a plain torch loop of the same networks, and where a round's time goes.

    python -m benchmarks.learner --policy runs/demo/policy --critic runs/demo/critic --offline runs/demo/episodes [--json]

The plain loops hold everything as ready tensors in memory and do nothing but draw rows, compute the loss, and step: no store, no
windows, no resumable streams, no metrics. Both take turns (`benchmarks.rounds`). One thread, which never waits: seconds are
those of its core, whatever else the machine is doing.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.keep import keep
from benchmarks.rounds import ratio, take_turns
from critics.objective import CriticObjective
from critics.q_network import State
from policies.training import ChunkObjective, rate_factor
from steer import registry
from steer.data.candidates import candidates, sample_frames
from steer.data.frames import Frames, load_frames
from steer.data.store import EpisodeStore
from steer.errors import ConfigError
from steer.online.config import OnlineConfig
from steer.online.improve import better_chunks, policy_sampler
from steer.online.replay import Data, Replay
from steer.online.start import Start
from steer.spec import Array

ROUND_EPISODES = 25


@dataclass(frozen=True)
class Arguments:
    """Measure the learner on trained models and their data."""

    policy: str
    """Policy checkpoint."""
    critic: str
    """Critic checkpoint."""
    offline: Path
    """Episode store; its first half stands for offline, the other half for online data."""
    rounds: int = 30
    """Rounds in which every variant runs once for `repeats` updates."""
    repeats: int = 10
    """Updates per round and variant."""
    json: bool = False
    """Print only the JSON object."""
    out: Path | None = Path("benchmarks/results/learner.json")
    """Where the result is kept."""

    def run(self) -> None:
        torch.set_num_threads(1)
        result = measure(self)
        if self.out is not None:
            keep(self.out, result)
        if not self.json:
            for name, value in result.items():
                print(f"{name:<16} {value}")
        print(json.dumps(result))


def measure(arguments: Arguments) -> dict[str, Any]:
    """All figures, see the module."""
    config = OnlineConfig(improve="both")
    start = Start.load(arguments.policy, arguments.critic, config)
    store = EpisodeStore.open(arguments.offline)
    frames, base, rows = load_frames(store), start.base(), start.policy_batch_size
    proposals = candidates(store, base, config.base_samples)
    replay = _replay(frames, proposals)
    critic: Any = start.critic_objective(frames, proposals, 0, fresh=False)
    policy: Any = start.policy_objective(frames, 0)
    transitions = replay.sampler(start.transitions, config.critic_batch_size, 0)
    assert replay.online is not None
    refiner = registry.refiner(config.refine, critic.critic())
    chunks = policy_sampler(config, rows, replay, critic.critic(), refiner, start.chunks, 0)
    if chunks is None:
        raise ConfigError(f"{arguments.offline}: no episode succeeded, there is nothing to imitate")
    times = take_turns(
        {
            "critic": lambda: critic.step(transitions.sample()),
            "critic_plain": plain_critic(critic, frames, proposals, config.critic_batch_size),
            "policy": lambda: policy.step(chunks.sample()),
            "policy_plain": plain_policy(policy, start, frames, rows),
            "critic_sample": transitions.sample,
            "policy_sample": chunks.sample,
            "critic_transfer": _repeated(critic.critic_batch, transitions.sample()),
            "policy_transfer": _repeated(policy.inputs, chunks.sample()),
        },
        arguments.rounds,
        arguments.repeats,
        time.process_time,
    )
    return {
        "critic": _beside(times["critic"], times["critic_plain"]),
        "policy": _beside(times["policy"], times["policy_plain"]),
        "round_shares": _shares(times, start, frames, replay.online, critic, refiner, config),
        "batch_sizes": {"critic": config.critic_batch_size, "policy": rows},
        "rounds": arguments.rounds,
        "repeats": arguments.repeats,
    }


def plain_critic(objective: CriticObjective, frames: Frames, proposals: Array, rows: int) -> Callable[[], None]:
    """One update of Cal-QL as a plain loop has it: each member backs up its own maximum, Adam, Polyak."""
    config = objective.config
    network, target = copy.deepcopy(objective.network), copy.deepcopy(objective.network)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)
    raw, normalised, actions, rewards, bootstrap, returns, following = _transitions(objective, frames)
    other = torch.from_numpy(np.ascontiguousarray(proposals[:, :, : config.scored_steps]))
    decisions = torch.from_numpy(frames.decisions)
    weights, averages = list(network.parameters()), list(target.parameters())

    def update() -> None:
        i = decisions[torch.randint(len(decisions), (rows,))]
        j = following[i]
        some = torch.randperm(other.shape[1])[: config.penalty_candidates]
        outputs = network(State(raw[i], normalised[i]), torch.cat((actions[i, None], other[i][:, some]), 1))
        with torch.no_grad():
            some = torch.randperm(other.shape[1])[: config.backup_candidates]
            ahead = target.head.values(target(State(raw[j], normalised[j]), other[j][:, some]))
            wanted = rewards[i] + bootstrap[i] * ahead.amax(-1)
        values = network.head.values(outputs)
        floored = torch.maximum(values[:, :, 1:], returns[i, None])
        gap = floored.logsumexp(-1) - np.log(floored.shape[-1]) - values[:, :, 0]
        loss = network.head.loss(outputs[:, :, 0], wanted).mean(-1).sum()
        loss = loss + config.calql.alpha * network.head.penalty_scale * gap.mean(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, config.target_rate)

    return update


def plain_policy(objective: ChunkObjective[Any], start: Start, frames: Frames, rows: int) -> Callable[[], None]:
    """One update of a policy's own loss: AdamW with clipped gradients, and the average of its weights."""
    config, network = objective.config, copy.deepcopy(objective.network)
    weights = list(network.parameters())
    averages = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    everything = start.chunks(1, frames, 0).at(frames.decisions)
    arrays, mask, actions, _, *_ = objective.inputs(everything)

    def update() -> None:
        i = torch.randint(len(actions), (rows,))
        some = {key: value[i] for key, value in arrays.items()}
        loss, _ = network(some, mask[i], actions[i], None, *objective.draw(actions[i]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_factor(0, config)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - config.ema_decay)

    return update


def _transitions(objective: CriticObjective, frames: Frames) -> tuple[Tensor, ...]:
    """Everything a critic's batch is made of, at every frame, as tensors."""
    config = objective.config
    raw = frames.observations[config.key]
    normalised = objective.transforms.observe({config.key: raw})[config.key]
    final = frames.finals[frames.episode_of]
    index = np.arange(len(frames))
    rows = np.minimum(index[:, None] + np.arange(config.prefix), final[:, None])
    following = np.minimum(index + config.prefix, final)
    ended = frames.terminated[frames.episode_of] & (following == final)
    discounts = (config.gamma ** np.arange(config.prefix + 1)).astype(np.float32)
    arrays = (
        raw,
        normalised,
        frames.actions[rows][:, : config.scored_steps],
        frames.rewards[rows] @ discounts[:-1],
        np.where(ended, np.float32(0), discounts[following - index]),
        frames.mc_returns(config.gamma),
        following,
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in arrays)


def _replay(frames: Frames, proposals: Array) -> Replay:
    """Half of the episodes as offline, half as online data."""
    count = len(frames.lengths)
    halves = [np.arange(0, count, 2), np.arange(1, count, 2)]
    offline, online = (Data(frames.subset(half), proposals[frames.rows(half)]) for half in halves)
    replay = Replay(offline, 0.5)
    replay.grow(online)
    return replay


def _beside(ours: list[float], plain: list[float]) -> dict[str, float]:
    return {
        "updates_per_s": round(1 / statistics.median(ours), 1),
        "plain_updates_per_s": round(1 / statistics.median(plain), 1),
        "time_over_plain": ratio(ours, plain),
    }


def _shares(
    times: dict[str, list[float]], start: Start, frames: Frames, online: Data, critic: Any, refiner: Any, config: Any
) -> dict[str, float]:
    """Of a round of `ROUND_EPISODES` episodes at UTD 1, with everything that the two kinds of improvement need."""
    median = {name: statistics.median(values) for name, values in times.items()}
    some = frames.subset(np.arange(min(ROUND_EPISODES, len(frames.lengths))))
    updates = int(np.ceil(some.lengths / start.executed).sum())
    began = time.process_time()
    for samples in (config.base_samples, config.student_samples):
        sample_frames(start.base(), some, samples, 0, config.temperature)
    sampled = time.process_time()
    states = online.frames.decisions[: config.target_states]
    better_chunks(online, states, critic.critic(), refiner)
    seconds = {"candidates": sampled - began, "better_chunks": time.process_time() - sampled}
    for name in ("critic", "policy"):
        sample, transfer = median[f"{name}_sample"], median[f"{name}_transfer"]
        seconds[f"{name}_sampling"] = updates * sample
        seconds[f"{name}_transfer"] = updates * transfer
        seconds[f"{name}_update"] = updates * (median[name] - sample - transfer)
    total = sum(seconds.values())
    return {name: round(value / total, 3) for name, value in seconds.items()}


def _repeated(call: Callable[[Any], Any], batch: Any) -> Callable[[], Any]:
    return lambda: call(batch)


if __name__ == "__main__":
    tyro.cli(Arguments).run()
