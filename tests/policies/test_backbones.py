import pytest
import torch

from policies.backbones.base import Backbone
from policies.backbones.mlp import ResidualMlp
from policies.backbones.transformer import Transformer
from policies.backbones.unet import Unet

A, FEATURES, WINDOW = 3, 10, 2


def make(kind: str, horizon: int) -> Backbone:
    if kind == "mlp":
        return ResidualMlp(horizon * A, FEATURES, hidden=16, expansion=32, blocks=1, time_features=8)
    if kind == "unet":
        return Unet(horizon, A, FEATURES, (8, 16), kernel=5, groups=4, condition=16, time_features=8)
    return Transformer(horizon, A, FEATURES, WINDOW, width=16, heads=2, blocks=2, expansion=2, time_features=8)


@pytest.fixture(params=[("mlp", 4), ("unet", 4), ("unet", 16), ("transformer", 4), ("transformer", 16)], ids=str)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    kind, horizon = request.param
    made = make(kind, horizon)
    made.chunk = horizon * A  # type: ignore[assignment]  # for the tests
    return made


def test_candidates_share_the_embedding_of_their_observation(backbone: Backbone) -> None:
    x, features, times = torch.randn(2, 5, backbone.chunk), torch.randn(2, FEATURES), torch.tensor([0, 9, 49])
    condition, time = backbone.embed_condition(features), backbone.embed_time(times)

    shared = backbone.join(condition[None, :, None], time[:, None, None])

    assert shared.shape[:3] == (3, 2, 1)
    for step in range(3):
        together = backbone(x, shared[step])
        assert together.shape == x.shape
        for row in range(2):
            one = backbone.join(condition[row], time[step]).expand(5, -1)
            torch.testing.assert_close(together[row], backbone(x[row], one), atol=1e-5, rtol=1e-4)


def test_freezing_changes_no_value(backbone: Backbone) -> None:
    x = torch.randn(4, backbone.chunk)
    embedding = backbone.join(backbone.embed_condition(torch.randn(4, FEATURES)), backbone.embed_time(torch.arange(4)))
    before = backbone(x, embedding)

    backbone.freeze()

    torch.testing.assert_close(backbone(x, embedding), before, atol=1e-5, rtol=1e-4)


def test_every_step_of_a_chunk_tells_on_every_other(backbone: Backbone) -> None:
    x = torch.zeros(1, backbone.chunk, requires_grad=True)
    embedding = backbone.join(
        backbone.embed_condition(torch.randn(1, FEATURES)), backbone.embed_time(torch.tensor([3]))
    )

    for step in (0, -1):
        backbone(x, embedding)[0].view(-1, A)[step].sum().backward(retain_graph=True)
        assert x.grad is not None
        assert (x.grad.view(-1, A).abs().amax(dim=1) > 0).all()
        x.grad = None


def test_observation_and_time_tell_on_the_correction(backbone: Backbone) -> None:
    features, time = torch.randn(1, FEATURES), torch.tensor([3])
    x = torch.randn(1, backbone.chunk)

    def correct(features: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return backbone(x, backbone.join(backbone.embed_condition(features), backbone.embed_time(time)))

    assert not torch.allclose(correct(features, time), correct(features + 1, time), atol=1e-4)
    assert not torch.allclose(correct(features, time), correct(features, time + 20), atol=1e-4)


def test_a_transformer_tells_its_frames_apart() -> None:
    transformer = make("transformer", 4)
    first, second = torch.randn(1, FEATURES // 2), torch.randn(1, FEATURES // 2)

    one, other = (transformer.embed_condition(torch.cat(pair, dim=1)) for pair in ((first, second), (second, first)))

    half = one.shape[1] // 2
    assert not torch.allclose(one[:, :half], other[:, half:], atol=1e-5)
