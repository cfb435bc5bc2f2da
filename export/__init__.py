"""The export stage: a trained run as ONNX graphs that need neither PyTorch nor vaekit."""
