"""Episodes on disk and what training draws from them. Knows no framework: numpy, zarr and the vocabulary only.

Beside what is named here: `steer.data.candidates` (a policy's samples at stored frames) and `steer.data.convert`.
"""

from steer.data.episode import Episode, EpisodeRecord
from steer.data.frames import Frames, load_frames
from steer.data.sampling import ChunkBatch, ChunkSampler, Transitions, TransitionSampler
from steer.data.store import EpisodeStore
from steer.data.writer import EpisodeWriter

__all__ = [
    "ChunkBatch",
    "ChunkSampler",
    "Episode",
    "EpisodeRecord",
    "EpisodeStore",
    "EpisodeWriter",
    "Frames",
    "TransitionSampler",
    "Transitions",
    "load_frames",
]
