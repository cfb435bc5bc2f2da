"""The export stage: a trained run as ONNX graphs that need neither PyTorch nor vaekit.

`bundle.export_run` makes a bundle of a run, `verify.verify` checks one anywhere, `explore.explore`
shows one in the browser.
"""

import os

# Or onnxruntime tells its makers of every session, and keeps a store of that in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
