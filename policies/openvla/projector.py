"""From vision features to the language model's embeddings: an MLP with the exact GELU."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu


class Projector(nn.Module):
    """Two linear layers behind one tower; three behind two, the first of which widens to 4 x the features."""

    def __init__(self, vision_dim: int, hidden_size: int, fused: bool) -> None:
        super().__init__()
        wide = 4 * vision_dim if fused else hidden_size
        self.fc1 = nn.Linear(vision_dim, wide)
        self.fc2 = nn.Linear(wide, hidden_size)
        self.fc3 = nn.Linear(hidden_size, hidden_size) if fused else None

    def forward(self, features: Float[Tensor, "b p d"]) -> Float[Tensor, "b p e"]:
        x: Tensor = self.fc2(gelu(self.fc1(features)))
        if self.fc3 is not None:
            x = self.fc3(gelu(x))
        return x
