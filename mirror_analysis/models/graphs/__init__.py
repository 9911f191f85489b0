"""Computation graphs: ONNX, TorchScript, exported programs, TFLite."""
