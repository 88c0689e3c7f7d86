"""The checkpoint store under other people's training loops: Lightning's ``Trainer``, and that of Transformers and TRL.

Importing this package imports neither; each name imports its library when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pitstop.checkpointing.callbacks.lightning import DistributedCheckpointCallback, ResumeFromCheckpointCallback
    from pitstop.checkpointing.callbacks.trainer import PitstopCallback, resume_from

__all__ = ["DistributedCheckpointCallback", "PitstopCallback", "ResumeFromCheckpointCallback", "resume_from"]


def __getattr__(name: str) -> Any:
    if name in ("PitstopCallback", "resume_from"):
        from pitstop.checkpointing.callbacks import trainer

        return getattr(trainer, name)
    if name in ("DistributedCheckpointCallback", "ResumeFromCheckpointCallback"):
        from pitstop.checkpointing.callbacks import lightning

        return getattr(lightning, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
