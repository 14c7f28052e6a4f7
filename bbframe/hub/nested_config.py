"""A backbone's config inside the `config.json` of a bigger model, under the key `backbone_config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bbframe.config import BackboneConfigMixin

# what transformers writes of every model, for text alone, where it writes a config inside another in full
_OF_EVERY_MODEL = frozenset(
    "add_cross_attention bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward "
    "cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty forced_bos_token_id "
    "forced_eos_token_id is_decoder is_encoder_decoder length_penalty max_length min_length no_repeat_ngram_size "
    "num_beam_groups num_beams num_return_sequences output_scores pad_token_id prefix pruned_heads "
    "remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k "
    "top_p typical_p use_bfloat16".split()
)


def nested_config(
    config_class: type[BackboneConfigMixin], free: Iterable[str] = ()
) -> Callable[[Mapping[str, Any]], dict[str, Any] | None]:
    """The function that a `Host` reads such a `config.json` with: all fields of the backbone, defaults included.

    It leaves out the `free` fields, which no weight depends on, and returns None for another backbone.
    """

    def read(data: Mapping[str, Any]) -> dict[str, Any] | None:
        inner = data.get("backbone_config")
        if not isinstance(inner, Mapping) or inner.get("model_type") != config_class.model_type:
            return None
        inner = {key: value for key, value in inner.items() if key not in _OF_EVERY_MODEL}
        left_out = {*free, *config_class.foreign_keys(inner)}
        config = config_class.from_dict({key: value for key, value in inner.items() if key not in left_out})
        return {**inner, **{key: value for key, value in config.to_dict().items() if key not in left_out}}

    return read
