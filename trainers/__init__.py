"""Training: tasks, models, data order and packing, the loop."""
