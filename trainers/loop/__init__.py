"""The loop: engine, step, hooks, progress, schedule. Knows losses and batches, no task."""
