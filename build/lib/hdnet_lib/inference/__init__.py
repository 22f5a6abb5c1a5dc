"""Networks at work: on photos, on folders, as ONNX, and against the clock."""
