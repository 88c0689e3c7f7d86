"""Run directories and the checkpoint store, and the Python API to them: ``CheckpointManager`` and ``list_all_runs``.

Importing this package imports nothing else; the first use of ``CheckpointManager`` imports torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pitstop.checkpointing.manager import CheckpointManager
    from pitstop.checkpointing.runs.listing import list_all_runs, unfinished_run

__all__ = ["CheckpointManager", "list_all_runs", "unfinished_run"]


def __getattr__(name: str) -> Any:
    if name == "CheckpointManager":
        from pitstop.checkpointing.manager import CheckpointManager

        return CheckpointManager
    if name in ("list_all_runs", "unfinished_run"):
        from pitstop.checkpointing.runs import listing

        return getattr(listing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
