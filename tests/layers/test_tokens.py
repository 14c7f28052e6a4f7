"""The tokens of plain transformers."""

import torch

from bbframe.layers.tokens import PatchTokens


def test_tokens_are_the_class_token_and_the_patches_row_by_row_each_with_its_position():
    stem = PatchTokens(3, 5, 4, (2, 3), dropout=0.0)
    for table in (stem.cls_token, stem.positions):
        torch.nn.init.normal_(table)
    x = torch.randn(2, 3, 9, 12)  # a row of pixels too many
    tokens = stem(x)
    assert tokens.shape == (2, 1 + 6, 5)
    torch.testing.assert_close(tokens[0, 0], (stem.cls_token + stem.positions[:, :1])[0, 0])
    patch = (stem.patch.weight * x[1, None, :, 4:8, 8:12]).sum((1, 2, 3)) + stem.patch.bias
    torch.testing.assert_close(tokens[1, 1 + 5], patch + stem.positions[0, 1 + 5])


def test_registers_stand_between_class_tokens_and_patches_and_have_no_position():
    stem = PatchTokens(3, 5, 4, (2, 3), 0.0, num_class_tokens=2, num_registers=3)
    plain = PatchTokens(3, 5, 4, (2, 3), 0.0, num_class_tokens=2)
    for table in stem.parameters():
        torch.nn.init.normal_(table)
    plain.load_state_dict({name: x for name, x in stem.state_dict().items() if name != "registers"})
    x = torch.randn(2, 3, 8, 12)
    tokens = stem(x)
    assert (stem.num_prefix, plain.num_prefix) == (5, 2)
    assert torch.equal(tokens[:, 2:5], stem.registers.expand(2, -1, -1))
    assert torch.equal(torch.cat([tokens[:, :2], tokens[:, 5:]], dim=1), plain(x))
    assert torch.equal(tokens[0, :2], (stem.cls_token + stem.positions[:, :2])[0])


def test_no_registers_are_an_empty_table():
    stem = PatchTokens(3, 5, 4, None, 0.0, num_registers=0)
    assert stem.registers.shape == (1, 0, 5)
    stem(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert stem.registers.grad is not None


def test_positions_may_be_absent():
    stem = PatchTokens(3, 5, 4, None, dropout=0.0)
    assert [name for name, _ in stem.named_parameters()] == ["cls_token", "patch.weight", "patch.bias"]
    assert stem(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 5)
