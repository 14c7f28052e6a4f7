"""Activations, perceptrons, position tables."""

import numpy
import pytest
import torch
from torch.nn import functional as F

from bbframe.layers.activation import activation
from bbframe.layers.mlp import GatedMlp, Mlp
from bbframe.layers.positions import resize_positions, smooth_weights


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", F.gelu),
        ("gelu_new", lambda x: F.gelu(x, approximate="tanh")),
        ("gelu_pytorch_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("relu", F.relu),
        ("selu", F.selu),
        ("silu", F.silu),
        ("swish", F.silu),
    ],
)
def test_activations_are_what_their_names_say(name, function):
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(activation(name)(x), function(x))


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="hidden_act='rleu' is not known; did you mean 'relu'"):
        activation("rleu")


def test_the_perceptron_is_two_products():
    mlp = Mlp(4, 9, "relu")
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(mlp(x), mlp.fc2(F.relu(mlp.fc1(x))))


@pytest.mark.parametrize("bias", [True, False])
def test_the_gated_perceptron_multiplies_the_activated_first_half_with_the_second(bias):
    mlp = GatedMlp(4, 9, "relu", bias)
    x = torch.randn(2, 3, 4)
    gate, value = mlp.fc_in(x).split(9, dim=-1)
    torch.testing.assert_close(mlp(x), mlp.fc_out(F.relu(gate) * value))
    assert len([*mlp.parameters()]) == (4 if bias else 2)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_at_their_own_size_are_unchanged(antialias):
    table = torch.randn(1, 16, 5)
    assert torch.equal(resize_positions(table, (4, 4), antialias=antialias), table)


@pytest.mark.parametrize("grid", [(7, 9), (3, 5), (14, 9), (2, 20), (1, 1), (40, 31)])
def test_the_weights_that_an_exported_program_resizes_with_are_those_of_the_interpolation(grid):
    table = torch.randn(1, 7 * 9, 5)
    image = table.unflatten(1, (7, 9)).permute(0, 3, 1, 2)
    rows, columns = (smooth_weights(n, m, table.device) for n, m in zip(grid, (7, 9), strict=True))
    resized = (rows @ image @ columns.T).flatten(2).mT
    torch.testing.assert_close(resized, resize_positions(table, grid, (7, 9), antialias=True), atol=1e-5, rtol=1e-5)
    assert grid != (7, 9) or torch.equal(resized, table)


def test_antialiased_positions_are_those_of_pillow():
    Image = pytest.importorskip("PIL.Image")
    table = torch.rand(1, 7 * 9, 1)
    image = Image.fromarray(table.view(7, 9).numpy())
    for rows, columns in ((3, 5), (14, 9), (2, 20)):
        resized = resize_positions(table, (rows, columns), (7, 9), antialias=True).view(rows, columns)
        expected = torch.from_numpy(numpy.array(image.resize((columns, rows), Image.Resampling.BICUBIC)))
        torch.testing.assert_close(resized, expected, atol=1e-5, rtol=1e-5)


def test_positions_keep_height_and_width_apart():
    """A table that depends on the row alone still does, at any height and width."""
    rows = torch.arange(4.0)[:, None].expand(4, 4).reshape(1, 16, 1)
    wide = resize_positions(rows, (3, 7)).view(3, 7)
    torch.testing.assert_close(wide, wide[:, :1].expand(3, 7))
    assert (wide.diff(dim=0) > 0).all()


def test_half_precision_tables_are_resized_in_full_precision():
    table = torch.randn(1, 16, 5)
    exact = resize_positions(table.bfloat16().float(), (7, 5))
    rough = resize_positions(table.bfloat16(), (7, 5))
    assert rough.dtype == torch.bfloat16
    assert torch.equal(rough, exact.bfloat16())
