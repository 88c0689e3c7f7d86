"""Which settings may be paths. Plain data: commands that only list runs need it, and neither the schema nor pydantic."""

PATHS = (
    "model.id",
    "model.from_run",
    "model.config",
    "model.tokenizer",
    "data.train",
    "data.eval",
    "data.root",
    "evaluation.sample_prompts",
    "training.checkpoint.base_dir",
)
"""Dotted paths of the settings that may hold a place on this machine."""
