"""The checkpoint store: committing, verifying and reading checkpoints, and what their files must be."""
