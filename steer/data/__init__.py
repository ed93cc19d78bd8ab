"""Episodes on disk and what training draws from them. Knows no framework: numpy, zarr and the vocabulary only."""

from steer.data.candidates import candidates
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
    "candidates",
    "load_frames",
]
