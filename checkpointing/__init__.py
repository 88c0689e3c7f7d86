"""Run directories and the checkpoint store; only ``state`` needs torch."""
