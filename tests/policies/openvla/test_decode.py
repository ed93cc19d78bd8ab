"""Packed decoding equals separate sequences, and what is drawn keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from policies.openvla.decode import decode, packed_mask, prefill
from policies.openvla.sampling import ActionChooser, candidate_quantiles, draw

FIRST, BINS, STEPS = 40, 20, 5


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(config).eval().requires_grad_(False)
    return model


class Given:
    """Chooses the tokens it was given and keeps the logits."""

    def __init__(self, head: Tensor, ids: Tensor) -> None:
        self.head, self.ids = head, ids
        self.logits: list[Tensor] = []

    def __call__(self, step: int, hidden: Tensor) -> Tensor:
        self.logits.append(hidden @ self.head.T)
        return self.ids[:, :, step]


def test_candidates_behind_one_prefix_equal_whole_sequences(llama: LlamaForCausalLM) -> None:
    embeds = torch.randn(2, 7, 32)
    ids = torch.randint(64, (2, 6, STEPS))
    chooser = Given(llama.lm_head.weight, ids)
    decode(llama.model, prefill(llama.model, embeds), 6, STEPS, chooser)
    packed = torch.stack(chooser.logits, dim=2)
    for row in range(2):
        for k in range(6):
            whole = torch.cat([embeds[row], llama.model.embed_tokens(ids[row, k, :-1])])
            expected = llama(inputs_embeds=whole[None]).logits[0, 6:]
            torch.testing.assert_close(packed[row, k], expected, atol=1e-4, rtol=1e-4)


def test_a_prefix_can_be_continued_and_stays_as_it_was(llama: LlamaForCausalLM) -> None:
    embeds = torch.randn(1, 9, 32)
    start = prefill(llama.model, embeds[:, :6])
    before = start.layers[0][0].clone()
    continued = prefill(llama.model, embeds[:, 6:], start)
    whole = prefill(llama.model, embeds)
    assert continued.length == 9
    torch.testing.assert_close(continued.hidden, whole.hidden, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(start.layers[0][0], before, atol=0, rtol=0)


def test_a_candidate_sees_the_prefix_and_its_own_tokens(llama: LlamaForCausalLM) -> None:
    mask = packed_mask(prefill(llama.model, torch.randn(1, 2, 32)), 2, 2)[0, 0]
    no = float("-inf")
    torch.testing.assert_close(mask, torch.tensor([[0, 0, 0, no, 0, no], [0, 0, no, 0, no, 0]]))


def chosen(llama: LlamaForCausalLM, seed: int, count: int, temperature: float = 1.0, top_k: int = 0) -> Tensor:
    torch.manual_seed(3)
    prefix = prefill(llama.model, torch.randn(1, 4, 32))
    quantiles = candidate_quantiles(np.array([seed]), count, STEPS)
    chooser = ActionChooser(llama.lm_head.weight, FIRST, BINS, quantiles, temperature, top_k)
    return decode(llama.model, prefix, count, STEPS, chooser)[0]


def test_only_action_tokens_are_chosen(llama: LlamaForCausalLM) -> None:
    ids = chosen(llama, 1, 64, temperature=50.0)
    assert ids.min() >= FIRST
    assert ids.max() < FIRST + BINS
    assert len(ids.unique()) > BINS // 2


def test_the_first_candidate_is_greedy_whatever_the_seed(llama: LlamaForCausalLM) -> None:
    torch.testing.assert_close(chosen(llama, 1, 4)[0], chosen(llama, 2, 1)[0])
    assert (chosen(llama, 1, 4, temperature=0.0) == chosen(llama, 1, 1)).all()


def test_top_1_is_greedy(llama: LlamaForCausalLM) -> None:
    ids = chosen(llama, 1, 8, temperature=5.0, top_k=1)
    assert (ids == ids[:1]).all()


def test_where_another_token_is_likelier_than_all_actions_it_is_counted() -> None:
    head = torch.eye(4)
    chooser = ActionChooser(head, 2, 2, torch.full((2, 1, 2), 0.5, dtype=torch.float64))
    chooser(0, torch.tensor([[[9.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]]))
    assert chooser.differing == 1
    chooser(1, torch.tensor([[[0.0, 0.0, 0.0, 1.0]], [[0.0, 7.0, 1.0, 0.0]]]))
    assert chooser.differing == 2


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(1, 4000, 3)
    index = draw(logits, (torch.arange(4000) + 0.5)[None].double() / 4000, 1.0)
    assert index[0].bincount(minlength=3).tolist() == [400, 2400, 1200]
