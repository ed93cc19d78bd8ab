"""One thread: these networks are too small to share between cores, and tests may run beside each other."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
