"""What K candidates cost in each family, all in one run and on one thread.

    python -m benchmarks.candidates [--json]

    k8, k32       proposing 8 or 32 candidates, over one
    floor32       one candidate, and the matrix products that 31 more need at the speed of a bare product of their shapes
    separate32    32 calls
    plain         one candidate, over the model's own modules without Steer around them
    shared        share of the work of one candidate that does not depend on the candidate (its encoding)
    generate32    (token transformer) transformers' own generate(num_return_sequences=32)

Weights are random: the cost does not depend on them. A family whose package is missing is left out, and said so.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# Before any numerical library is loaded: one thread for all of them.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np
import torch
import tyro

from benchmarks.keep import keep
from benchmarks.products import Products, products_of, seconds
from benchmarks.rounds import ratio, take_turns
from policies.backbones.config import UnetConfig
from steer import registry
from steer.data.frames import Frames
from steer.observation import Batch

SEEDS = np.array([1])
# Three levels, as Diffusion Policy's state-based U-Net has them, at a quarter of its channels.
PUBLISHED_UNET = UnetConfig(channels=(64, 128, 256), condition=256)
# `steer train policy --kind` and what differs from its defaults.
OWN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "diffusion_mlp": ("diffusion", {}),
    "diffusion_unet": ("diffusion", {"backbone": "unet"}),
    # 4.8 million parameters over 16 steps: at the default size products are a hundredth of the time.
    "diffusion_unet_5m": ("diffusion", {"backbone": "unet", "horizon": 16, "unet": PUBLISHED_UNET}),
    "diffusion_transformer": ("diffusion", {"backbone": "transformer"}),
    "flow": ("flow", {}),
    "gaussian": ("gaussian", {}),
}
# The token transformer: a language model of 6 layers x 512 behind a prefix as long as OpenVLA's.
LAYERS, WIDTH, PREFIX, TOKENS, VOCABULARY, BINS = 6, 512, 276, 7, 2048, 256


@dataclass(frozen=True)
class Subject:
    """One family. ask(k): encode and propose k candidates; encode: its first half; plain: the modules without Steer.

    products(k): what is multiplied for k candidates. others: further variants, by name.
    """

    ask: Callable[[int], Any]
    encode: Callable[[], Any]
    plain: Callable[[], Any]
    products: Callable[[int], Products]
    others: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arguments:
    """Measure what candidates cost."""

    rounds: int = 15
    """Rounds in which every variant of a family runs once."""
    only: tuple[str, ...] = ()
    """Families to measure; all unless given."""
    out: Path = Path("benchmarks/results/candidates.json")
    """Where the table is kept."""
    json: bool = False
    """Print only the JSON object."""

    def run(self) -> None:
        torch.set_num_threads(1)
        kept = json.loads(self.out.read_text()) if self.out.exists() else {}
        for name, make in _subjects(self.only):
            found = measure(make(), self.rounds)
            if not self.json:
                print(f"{name:<24} {found}", flush=True)
            kept[name] = found
            keep(self.out, kept)
        print(json.dumps(kept))


def measure(subject: Subject, rounds: int) -> dict[str, float]:
    """The figures of one family, see the module."""
    variants: dict[str, Callable[[], Any]] = {f"k{k}": lambda k=k: subject.ask(k) for k in (1, 8, 32)}  # type: ignore[misc]
    variants |= {"encode": subject.encode, "plain": subject.plain, **subject.others}
    with torch.inference_mode():
        times = take_turns(variants, rounds, repeats=1)
        separate = take_turns({"k1": variants["k1"], "separate32": lambda: [subject.ask(1) for _ in range(32)]}, 3, 1)
        repeated = seconds(subject.products(32)) - seconds(subject.products(1))
    one = statistics.median(times["k1"])
    return {
        "k8": ratio(times["k8"], times["k1"]),
        "k32": ratio(times["k32"], times["k1"]),
        "floor32": round(1 + repeated / one, 3),
        "separate32": ratio(separate["separate32"], separate["k1"]),
        "plain": ratio(times["k1"], times["plain"]),
        "shared": ratio(times["encode"], times["k1"]),
        **{name: ratio(times[name], times["k1"]) for name in subject.others},
    }


def _subjects(only: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], Subject]]]:
    every: dict[str, Callable[[], Subject]] = {name: lambda name=name: _own(name) for name in OWN}  # type: ignore[misc]
    every |= {"openvla_tokens": _tokens, "octo_small": _octo}
    for name in only or every:
        yield name, every[name]


def _own(name: str) -> Subject:
    """A family trained here, at its default sizes, on the observations of the pick-and-place task."""
    kind, options = OWN[name]
    trainable = registry.family(registry.POLICIES, kind).trainable
    assert trainable is not None
    objective = trainable.objective(replace(trainable.config(), **options), _frames())
    with tempfile.TemporaryDirectory() as folder:
        objective.save(Path(folder) / "policy")
        policy: Any = registry.policy(f"{folder}/policy")
    batch = Batch.stack([policy.spec.observation.generate(np.random.default_rng(0))])
    arrays = {key: torch.from_numpy(value) for key, value in policy._transforms.observe(batch.arrays).items()}
    mask = torch.from_numpy(batch.mask)
    noise = torch.randn(1, 1, policy.spec.horizon * policy.spec.action.size)
    context = policy.encode(batch)
    return Subject(
        ask=lambda k: policy.sample(policy.encode(batch), k, SEEDS),
        encode=lambda: policy.encode(batch),
        plain=lambda: policy.propose(policy.context(policy._network.encoder(arrays, mask)), noise, None),
        products=lambda k: products_of(lambda: policy.sample(context, k, SEEDS)),
    )


def _frames() -> Frames:
    """One demonstration: enough to know the robot, and for statistics."""
    import gymnasium

    from sim.demonstrations import demonstrate
    from steer.data.frames import load_frames
    from steer.data.store import EpisodeStore

    environment = gymnasium.make("steer/PickPlace-v0")
    with tempfile.TemporaryDirectory() as folder:
        unwrapped: Any = environment.unwrapped
        store = EpisodeStore.create(Path(folder) / "data", unwrapped.robot_spec)
        with store.writer() as writer:
            writer.add(demonstrate(environment, 0))
        return load_frames(EpisodeStore.open(Path(folder) / "data"))


def _tokens() -> Subject:
    """Token by token behind one shared prefix, as OpenVLA proposes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from policies.openvla.decode import decode, prefill
    from policies.openvla.sampling import ActionChooser, candidate_quantiles

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1376,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    embeds = torch.randn(1, PREFIX, WIDTH)

    def sample(prefix: Any, k: int) -> Any:
        quantiles = candidate_quantiles(SEEDS, k, TOKENS)
        chooser = ActionChooser(model.lm_head.weight, VOCABULARY - BINS, BINS, quantiles, 1.0)
        return decode(model.model, prefix, k, TOKENS, chooser)

    def generate(k: int, greedy: bool) -> Any:
        return model.generate(
            inputs_embeds=embeds,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=not greedy,
            num_return_sequences=k,
        )

    prefix = prefill(model.model, embeds)
    return Subject(
        ask=lambda k: sample(prefill(model.model, embeds), k),
        encode=lambda: prefill(model.model, embeds),
        plain=lambda: generate(1, greedy=True),
        products=lambda k: products_of(lambda: sample(prefix, k)),
        others={"generate32": lambda: generate(32, greedy=False)},
    )


def _octo() -> Subject:
    """Octo at its published small size."""
    from benchmarks.octo_small import octo_small
    from policies.octo.model import Scene
    from steer.observation import Task

    policy = octo_small()
    batch = Batch.stack([policy.spec.observation.generate(np.random.default_rng(0))])
    head = policy.model.config.head
    flat = policy.spec.horizon * head.action_dim
    noise = np.random.default_rng(0).standard_normal((head.diffusion_steps + 1, 1, 1, flat)).astype(np.float32)
    frames = {"primary": batch.arrays["image_primary"]}
    goals = {"primary": np.zeros_like(frames["primary"][:, 0])}
    scene = Scene(frames, goals, np.zeros(1, np.bool_), batch.mask, {"primary": batch.mask})
    prefix = policy._prefixes([Task()])

    def plain() -> Any:
        return np.asarray(policy.model.chunks(policy.model.readouts(scene, prefix), noise, policy._acts))

    def products(k: int) -> Products:
        """The score network's layers, every denoising step."""
        steps, hidden = head.diffusion_steps, head.hidden
        layers = [(flat, hidden), (hidden, flat)] + head.blocks * [(hidden, 4 * hidden), (4 * hidden, hidden)]
        counted: dict[tuple[int, int, int, int], int] = {}
        for inner, columns in layers:
            shape = (1, k, inner, columns)
            counted[shape] = counted.get(shape, 0) + steps
        return counted

    return Subject(
        ask=lambda k: policy.sample(policy.encode(batch), k, SEEDS),
        encode=lambda: policy.encode(batch),
        plain=plain,
        products=products,
    )


if __name__ == "__main__":
    tyro.cli(Arguments).run()
