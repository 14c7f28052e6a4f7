"""Attention, and the recording of its probabilities."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bbframe.layers.attention import (
    Attention,
    DotProductAttention,
    QkvLinear,
    recorded_attentions,
    recording,
    split_heads,
)

attend = DotProductAttention()


def qkv():
    return torch.randn(3, 2, 4, 5, 8).unbind(0)


@pytest.mark.parametrize("biased", [False, True])
def test_recorded_or_not_the_result_is_the_same(biased):
    q, k, v = qkv()
    bias = torch.randn(4, 5, 5) if biased else None
    plain = attend(q, k, v, bias)
    with recorded_attentions() as recorded:
        asked = attend(q, k, v, bias)
    torch.testing.assert_close(asked, plain)
    torch.testing.assert_close(plain, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    (probabilities,) = recorded
    assert probabilities.shape == (2, 4, 5, 5)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 4, 5))
    torch.testing.assert_close(probabilities @ v, plain)


def test_recording_ends_with_its_block_and_can_be_nested():
    with recorded_attentions() as outer:
        attend(*qkv())
        with recorded_attentions() as inner:
            attend(*qkv())
        assert recording()
        attend(*qkv())
    assert (len(outer), len(inner)) == (2, 1)
    with pytest.raises(KeyError), recorded_attentions():
        raise KeyError
    assert not recording()


def test_each_thread_records_its_own():
    counts = {}
    both = threading.Barrier(2)

    def work(name, asked):
        both.wait()
        if not asked:
            attend(*qkv())
            both.wait()
            counts[name] = recording()
            return
        with recorded_attentions() as recorded:
            both.wait()
            attend(*qkv())
        counts[name] = len(recorded)

    threads = [threading.Thread(target=work, args=(name, name == "asked")) for name in ("asked", "plain")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {"asked": 1, "plain": False}


def test_attention_is_a_linear_mix_of_values_for_every_head():
    attn = Attention(nn.Linear(12, 36), num_heads=3, attention_dropout=0.0, dropout=0.0)
    x = torch.randn(2, 5, 12)
    q, k, v = attn.qkv(x).chunk(3, dim=-1)
    heads = [
        F.scaled_dot_product_attention(a, b, c)
        for a, b, c in zip(q.split(4, -1), k.split(4, -1), v.split(4, -1), strict=True)
    ]
    torch.testing.assert_close(attn(x), attn.proj(torch.cat(heads, -1)))


def test_dropout_acts_in_training_alone():
    attn = Attention(nn.Linear(8, 24, bias=False), num_heads=2, attention_dropout=0.5, dropout=0.0)
    x = torch.randn(2, 5, 8)
    assert not torch.equal(attn.train()(x), attn(x))
    assert torch.equal(attn.eval()(x), attn(x))


@pytest.mark.parametrize("shape", [None, (4, 5, 5), (1, 4, 5, 5), (3, 4, 5, 5), (3, 1, 5, 5)])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_each_window_attends_with_its_own_bias(shape, scale):
    """(B, windows, heads, N, D), whichever dimensions the fused kernel sees."""
    q, k, v = torch.randn(3, 2, 3, 4, 5, 8).unbind(0)
    bias = None if shape is None else torch.randn(shape)
    x = attend(q, k, v, bias, scale=scale)
    full = torch.zeros(3, 4, 5, 5) if bias is None else bias.expand(3, 4, 5, 5)
    for i in range(3):
        alone = F.scaled_dot_product_attention(q[:, i], k[:, i], v[:, i], attn_mask=full[i], scale=scale)
        torch.testing.assert_close(x[:, i], alone)
    with recorded_attentions() as recorded:
        torch.testing.assert_close(attend(q, k, v, bias, scale=scale), x)
    assert recorded[0].shape == (2, 3, 4, 5, 5)


@pytest.mark.parametrize("biases", ["", "q", "qv", "kv", "qkv"])
def test_query_key_and_value_are_three_products_in_one_each_with_its_own_bias_or_none(biases):
    qkv = QkvLinear(6, biases)
    assert [name for name, _ in qkv.named_parameters()] == ["weight", *(f"{part}_bias" for part in biases)]
    for part in biases:
        nn.init.normal_(getattr(qkv, f"{part}_bias"))
    x = torch.randn(2, 5, 6)
    q, k, v = split_heads(qkv(x), 1)
    for part, weight, bias in zip((q, k, v), qkv.weight.chunk(3), (qkv.q_bias, qkv.k_bias, qkv.v_bias), strict=True):
        torch.testing.assert_close(part[:, 0], F.linear(x, weight, bias))
    assert {id(p) for p in qkv.parameters()} == {id(qkv.weight), *(id(getattr(qkv, f"{p}_bias")) for p in biases)}
