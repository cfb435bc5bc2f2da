"""What the tests of bundles share: one that was changed, with hashes that fit all the same."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from vaekit.storage.files import file_sha256

# A manifest that says the same in other bytes, as an editor or a copy in text mode leaves it.
REFORMATTED: dict[str, Callable[[str], str]] = {
    "without indentation": lambda text: json.dumps(json.loads(text)) + "\n",
    "with its sha256 first": lambda text: as_text(dict([*json.loads(text).items()][::-1])).decode(),
    "with the line ends of Windows": lambda text: text.replace("\n", "\r\n"),
    "without its last line end": lambda text: text.rstrip(),
}


def facts_of(bundle: Path) -> dict[str, Any]:
    """All that a bundle's manifest says."""
    facts: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return facts


def seal(bundle: Path, facts: dict[str, Any]) -> None:
    """Write a manifest with the sha256 that it should have."""
    facts = {key: value for key, value in facts.items() if key != "sha256"}
    facts["sha256"] = hashlib.sha256(as_text(facts)).hexdigest()
    (bundle / "manifest.json").write_bytes(as_text(facts))


def as_text(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def reformat(bundle: Path, change: Callable[[str], str]) -> None:
    """Write the manifest otherwise, with the sha256 that it had."""
    path = bundle / "manifest.json"
    path.write_bytes(change(path.read_bytes().decode()).encode())


def forge(bundle: Path, **changes: object) -> None:
    """Change the manifest and give it a hash that fits."""
    seal(bundle, {**facts_of(bundle), **changes})


def hash_anew(bundle: Path, **changes: object) -> None:
    """Make the manifest fit the files, as one who forges a bundle would."""
    files = {
        name: {"bytes": (bundle / name).stat().st_size, "sha256": file_sha256(bundle / name)}
        for name in facts_of(bundle)["files"]
    }
    forge(bundle, files=files, **changes)


def change_graph(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a graph of a bundle whose hashes fit."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    hash_anew(path.parent)
