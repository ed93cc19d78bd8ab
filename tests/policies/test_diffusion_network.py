import torch

from policies.backbones.mlp import ResidualMlp
from policies.encoder import ImageEncoder, ObservationEncoder
from steer.observation import ObservationSpec
from tests.policies.toys import IMAGE, STATE


def test_the_split_first_layer_is_one_linear_layer() -> None:
    denoiser = ResidualMlp(chunk=6, condition=5, hidden=16, expansion=32, blocks=1, time_features=8)
    x, features, timesteps = torch.randn(3, 6), torch.randn(3, 5), torch.tensor([0, 7, 49])
    whole = torch.nn.Linear(6 + 5 + 8, 16)
    with torch.no_grad():
        parts = (denoiser.from_chunk.weight, denoiser.from_condition.weight, denoiser.from_time.weight)
        whole.weight.copy_(torch.cat(parts, dim=1))
        whole.bias.copy_(denoiser.from_condition.bias)

    split = denoiser.from_chunk(x) + denoiser.embed_condition(features) + denoiser.embed_time(timesteps)

    torch.testing.assert_close(split, whole(torch.cat([x, features, denoiser.time(timesteps)], dim=1)))


def test_the_recipe_has_half_a_million_parameters() -> None:
    denoiser = ResidualMlp(chunk=28, condition=25, hidden=256, expansion=512, blocks=2, time_features=32)

    assert sum(p.numel() for p in denoiser.parameters()) == 556_572


def test_padding_frames_change_nothing_but_their_mark() -> None:
    encoder = ObservationEncoder(ObservationSpec((STATE,), window=2), {"state": 4}, image_features=8)
    state, other = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    other[:, 1] = state[:, 1]
    mask = torch.tensor([[False, True]])

    torch.testing.assert_close(encoder({"state": state}, mask), encoder({"state": other}, mask))
    assert not torch.equal(
        encoder({"state": state}, mask), encoder({"state": state}, torch.ones(1, 2, dtype=torch.bool))
    )


def test_shades_of_grey_are_told_apart() -> None:
    encoder = ImageEncoder(features=8)
    black, grey, white = (encoder(torch.full((1, 16, 16, 3), value, dtype=torch.uint8)) for value in (0, 128, 255))

    assert not torch.allclose(black, grey, atol=1e-3)
    assert not torch.allclose(grey, white, atol=1e-3)


def test_keys_are_concatenated_in_the_order_of_the_spec() -> None:
    encoder = ObservationEncoder(ObservationSpec((IMAGE, STATE)), {"state": 4}, image_features=8)
    arrays = {"state": torch.ones(2, 1, 4), "camera.front": torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8)}

    features = encoder(arrays, torch.ones(2, 1, dtype=torch.bool))

    assert features.shape == (2, encoder.size) == (2, 12)
    torch.testing.assert_close(features[:, 8:], torch.ones(2, 4))
