"""`TokenChunkPolicy`: a small token policy trained here; proposes chunks token by token behind one shared prefix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.checkpoints import load_weights, open_checkpoint
from policies.openvla.chunk_config import TokenChunkConfig
from policies.openvla.chunk_network import TokenChunkNetwork
from policies.openvla.decode import Prefix, decode, prefill
from policies.openvla.sampling import ActionChooser, candidate_quantiles
from steer.errors import SpecError
from steer.observation import Batch
from steer.policy import PolicySpec
from steer.transforms import Pipeline

KIND = "openvla"


@dataclass(frozen=True)
class TokenContext:
    """The observation's keys and values, for B rows."""

    prefix: Prefix
    batch: int


class TokenChunkPolicy:
    """Implements `steer.policy.Policy`; see there for the contract.

    Candidate 0 takes the likeliest token at every step, whatever the seed. Committed steps are continued: their tokens stand
    before the ones that are chosen.
    """

    def __init__(
        self,
        spec: PolicySpec,
        transforms: Pipeline,
        network: TokenChunkNetwork,
        version: str,
        device: str = "cpu",
        top_k: int = 0,
    ) -> None:
        self.spec = spec
        self.version = version
        self._transforms, self._top_k = transforms, top_k
        self._device = torch.device(device)
        self._network = network.to(self._device).eval().requires_grad_(False)
        self._model = network.language_model.model

    @classmethod
    def load(cls, path: Path, device: str = "cpu", top_k: int = 0) -> TokenChunkPolicy:
        """Read a checkpoint folder."""
        checkpoint, config, spec = open_checkpoint(path, KIND, TokenChunkConfig)
        network = TokenChunkNetwork(config, spec, checkpoint.transforms)
        load_weights(network, checkpoint)
        # Other samples, hence another name: candidate caches are keyed by it.
        version = f"{checkpoint.version}-top{top_k}" if top_k else checkpoint.version
        return cls(spec, checkpoint.transforms, network, version, device, top_k)

    @torch.inference_mode()
    def encode(self, observations: Batch) -> TokenContext:
        """Check the observations and run their tokens, once for all candidates."""
        self.spec.observation.validate_batch(observations)
        arrays = self._transforms.observe({key: observations.arrays[key] for key in self.spec.observation.keys})
        tensors = {key: torch.from_numpy(value).to(self._device) for key, value in arrays.items()}
        tokens = self._network.encoder(tensors, torch.from_numpy(observations.mask).to(self._device))
        return TokenContext(prefill(self._model, tokens), len(observations))

    @torch.inference_mode()
    def sample(
        self,
        context: TokenContext,
        num_samples: int,
        seeds: Int[np.ndarray, " b"],
        temperature: float = 1.0,
        committed: Float[np.ndarray, "b d a"] | None = None,
    ) -> Float[np.ndarray, "b k h a"]:
        """K chunks per observation; temperature divides the logits, at 0 all candidates are the greedy one."""
        held = 0 if committed is None else committed.shape[1]
        self.spec.check_request(num_samples, temperature, held)
        if len(seeds) != context.batch:
            raise SpecError(f"seeds: got {len(seeds)}, expected one for each of the {context.batch} observations")
        shape = (self.spec.horizon, self.spec.action.size)
        bins = self._network.bins
        values = np.empty((context.batch, num_samples, *shape), np.float32)
        prefix = context.prefix
        if committed is not None and held:
            prefix = self._continued(prefix, committed)
        tokens = (shape[0] - held) * shape[1]
        quantiles = candidate_quantiles(np.asarray(seeds), num_samples, shape[0] * shape[1])[..., -tokens:]
        head = self._network.language_model.lm_head.weight
        chooser = ActionChooser(head, 0, bins.bins, quantiles.to(self._device), temperature, self._top_k)
        ids = decode(self._model, prefix, num_samples, tokens, chooser).cpu().numpy()
        values[:, :, held:] = bins.decode(ids).reshape(context.batch, num_samples, -1, shape[1])
        values[:, :, :held] = 0
        actions = self._transforms.to_robot(values)
        if committed is not None:
            actions[:, :, :held] = committed[:, None]
        clipped, _ = self.spec.action.clip(actions)
        return clipped

    def _continued(self, prefix: Prefix, committed: Float[np.ndarray, "b d a"]) -> Prefix:
        """The prefix with the tokens of the committed steps behind it."""
        self.spec.action.check_shape(committed, "committed")
        rows = len(prefix.hidden)
        if committed.ndim != 3 or len(committed) != rows:
            raise SpecError(
                f"committed: got shape {committed.shape}, expected (B={rows}, d, A={self.spec.action.size})"
            )
        ids = self._network.bins.encode(self._transforms.to_model(committed)).reshape(rows, -1)
        tokens: Tensor = self._model.embed_tokens(torch.from_numpy(ids).to(self._device))
        return prefill(self._model, tokens, prefix)
