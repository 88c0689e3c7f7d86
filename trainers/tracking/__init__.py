"""Trackers beside the training: TensorBoard, Weights & Biases, MLflow, Trackio.

``tracking`` is what the training holds; ``channel`` keeps it apart from whatever a tracker does; each tracker is one file.
"""
