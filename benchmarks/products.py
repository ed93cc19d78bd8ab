"""The floor of a computation: its matrix products alone, at the speed at which this machine does products of these shapes."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# (batch, rows, inner, columns) -> how often.
Products: TypeAlias = Mapping[tuple[int, int, int, int], int]

REPEATS = 7


def products_of(call: Callable[[], Any]) -> Products:
    """Every matrix product that torch does while `call` runs; a convolution counts as the product it is equal to."""
    seen = _Watch()
    with seen:
        call()
    return seen.products


def seconds(products: Products) -> float:
    """How long these products take by themselves, each shape the median of a few."""
    return sum(count * _measure(shape) for shape, count in products.items())


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[int, int, int, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("linear", "mm", "addmm"):
            rows, weight = (args[0], args[1]) if name != "addmm" else (args[1], args[2])
            inner = rows.shape[-1]
            self._count(1, rows.numel() // inner, inner, weight.numel() // inner)
        elif name in ("bmm", "baddbmm"):
            left, right = args[-2:] if name == "baddbmm" else args[:2]
            self._count(left.shape[0], left.shape[1], left.shape[2], right.shape[2])
        # Inference mode shows convolutions before they are resolved into the one of all kinds.
        elif name in ("conv_transpose1d", "conv_transpose2d") or (name == "convolution" and args[6]):
            rows, weight = args[:2]
            self._count(1, rows.numel() // weight.shape[0], weight.shape[0], weight.numel() // weight.shape[0])
        elif name in ("convolution", "conv1d", "conv2d"):
            weight = args[1]
            rows = out.numel() // weight.shape[0]
            self._count(1, rows, weight.numel() // weight.shape[0], weight.shape[0])
        elif "scaled_dot_product" in name:
            query, key = args[0], args[1]
            batch = prod(query.shape[:-2])
            self._count(batch, query.shape[-2], query.shape[-1], key.shape[-2])
            self._count(batch, query.shape[-2], key.shape[-2], query.shape[-1])
        return out

    def _count(self, *shape: int) -> None:
        self.products[shape] += 1  # type: ignore[index]  # four numbers, as every caller gives


def _measure(shape: tuple[int, int, int, int]) -> float:
    batch, rows, inner, columns = shape
    left = torch.randn(batch, rows, inner)
    # As inference lays weights out: the order in which a product of few rows reads them.
    right = torch.randn(batch, columns, inner).transpose(1, 2).contiguous()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(10):
            torch.bmm(left, right) if batch > 1 else torch.mm(left[0], right[0])
        times.append((time.perf_counter() - start) / 10)
    return statistics.median(times)
