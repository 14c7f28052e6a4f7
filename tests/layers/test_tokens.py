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


def test_positions_may_be_absent():
    stem = PatchTokens(3, 5, 4, None, dropout=0.0)
    assert [name for name, _ in stem.named_parameters()] == ["cls_token", "patch.weight", "patch.bias"]
    assert stem(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 5)
