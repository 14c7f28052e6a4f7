"""Keyword arguments that transformers' functions take: what asks for nothing here, and what to type for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANY = object()
_LATER = "ask for it when you call the network: net(images, {}=...)"
# an argument: the values that change nothing here, and what to do instead of any other
LOADING: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "trust_remote_code": ((ANY,), ""),  # no code is ever fetched
    "low_cpu_mem_usage": ((ANY,), ""),  # a weight is never drawn before it is loaded
    "resume_download": ((ANY,), ""),
    "weights_only": ((True, None), "nothing else is ever unpickled; leave it out"),
    "use_safetensors": ((None,), "safetensors are taken wherever the checkpoint has them; leave it out"),
    "output_loading_info": ((False, None), "read net.load_report"),
    "device_map": ((None, "cpu", {"": "cpu"}), "move the network: net.to('cuda')"),
    "max_memory": ((None,), "move the network: net.to('cuda')"),
    "tp_plan": ((None,), "leave it out"),
    "proxies": ((None, {}), "set the environment variable HTTPS_PROXY"),
    "force_download": ((False, None), "give another cache_dir, or a revision"),
    "ignore_mismatched_sizes": (
        (False, None),
        "every tensor is accounted for; give the fields that fit",
    ),
    "subfolder": ((None, ""), "give the folder itself, downloaded"),
    "variant": ((None,), "give the path of that weights file"),
    "quantization_config": ((None,), "quantise the network that you get"),
    "use_auth_token": ((None, False), "give token=..."),
    "from_tf": ((False, None), "convert the checkpoint to PyTorch first"),
    "from_flax": ((False, None), "convert the checkpoint to PyTorch first"),
    "output_hidden_states": ((False, None), _LATER.format("output_hidden_states")),
    "output_attentions": ((False, None), _LATER.format("output_attentions")),
    "return_dict": ((True, None), _LATER.format("return_dict")),
    "num_labels": ((None,), "a backbone has no labels; leave it out"),
    "id2label": ((None,), "a backbone has no labels; leave it out"),
    "label2id": ((None,), "a backbone has no labels; leave it out"),
    "generation_config": ((None,), "leave it out"),
}
SAVING: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "safe_serialization": ((True, None), "weights are written as safetensors; torch.save(net.state_dict(), ...)"),
    "max_shard_size": ((ANY,), ""),  # one file holds all, however large
    "is_main_process": ((True, None), "call it in the first process alone"),
    "state_dict": ((None,), "load it first: net.load_state_dict(...)"),
    "push_to_hub": ((False, None), "upload the folder: huggingface_hub.upload_folder(repo_id=..., folder_path=...)"),
    "variant": ((None,), "rename the file that is written"),
    "token": ((ANY,), ""),
}


def without_foreign(
    what: str, given: Mapping[str, Any], known: Mapping[str, tuple[tuple[Any, ...], str]] = LOADING
) -> dict[str, Any]:
    """The arguments that are not transformers' alone.

    Raises ValueError, after `what`, for one that asks for something that is not done here, and says what to type.
    """
    kept = {}
    for name, value in given.items():
        if name not in known:
            kept[name] = value
            continue
        neutral, instead = known[name]
        if not any(value is one or one is ANY or value == one for one in neutral):
            raise ValueError(f"{what}: {name}={value!r:.60} cannot be honoured; {instead}")
    return kept
