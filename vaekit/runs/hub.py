"""Runs that others have published, as files on this machine."""

from pathlib import Path

from vaekit.errors import UserError, say

# What a published run consists of; none of it can hold code.
FILES = ["*.safetensors", "*.yaml", "*.json", "*.jsonl", "*.onnx", "*.png", "*.md"]


def fetch(name: str, revision: str | None) -> Path:
    """The folder of a published run: `name` itself where it is one, else what the Hub has.

    Raises `UserError` where there is none, or it can't be had.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name}: no such folder, and the Hub does not give it ({why}); check the name, the "
            f"revision and the network, and log in with `hf auth login` where it is private"
        ) from error
    if revision != folder.name:
        say(f"{name} is at revision {folder.name} now; give that to get the same again")
    return folder
