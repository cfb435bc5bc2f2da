"""What the tests in Node and in a browser need of the machine; where it lacks, they skip.

Under CI they fail instead: there these tests must run.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import ROOT

NODE_MODULES = ROOT / "export" / "node_modules"


def require_node(*packages: str) -> Path:
    """Node, with these npm packages in export/node_modules."""
    node = shutil.which("node")
    if node is None:
        missing("node", "apt-get install nodejs npm")
    for package in packages:
        if not (NODE_MODULES / package / "package.json").is_file():
            missing(f"the npm package {package}", "npm ci --prefix export")
    return Path(node)


def require_chromium() -> Path:
    """Chromium, with what drives it from Node."""
    require_node("playwright-core", "onnxruntime-web")
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium", "apt-get install chromium")
    return Path(chromium)


def missing(what: str, command: str) -> NoReturn:
    """Skip the test, or fail it under CI, naming what it lacks and the command that gets it."""
    reason = f"{what} is missing; get it by `{command}`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
