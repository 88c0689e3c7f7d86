"""The settings of data: which records, what is made of them, and how they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pitstop.configs.datasets import DataSource, sources_with_settings
from pitstop.configs.setting import recorded, setting


@dataclass(frozen=True)
class DataSettings:
    """Training and evaluation records."""

    train: list[str] = setting(
        [],
        "Training data: a JSONL, JSON, CSV, TSV, Parquet, Arrow or text file, a directory or pattern of them, or a Hub data set id. For diffusion: CIFAR10, CIFAR100 or a folder of images. FILE:0.7 gives a data set a weight among several. Repeatable; comma-separated in the environment.",
        env="DATASET_PATH",
        flag="--dataset",
        documented=True,
    )
    classes: list[str] = setting(
        [], "Image classes to train on, by name or number. Default: all.", env="DATA_CLASSES", flag="--classes"
    )
    label: str | None = setting(
        None, "Label of the data in lists. The number of chosen classes follows it, as in Trees (5).", flag="--data-label"
    )
    root: str = setting(
        "data",
        "Directory that is searched for CIFAR10, CIFAR100 and FashionMNIST before they are downloaded.",
        flag="--data-root",
        min_length=1,
    )
    eval: list[str] = setting([], "Evaluation data, in the same formats.", env="EVAL_DATASET_PATH", flag="--eval-dataset")
    eval_fraction: float = setting(
        0.0,
        "Fraction of the training records held out for evaluation where there is no evaluation data.",
        flag="--eval-fraction",
        ge=0.0,
        le=0.5,
    )
    columns: list[str] = setting(
        [],
        "Read a field of the records by another name, as NAME=FIELD, where FIELD is a name, a.b or a[0]; NAME= leaves NAME out. Repeatable; in YAML a mapping.",
        flag="--column",
    )
    shape: Literal["auto", "messages", "prompt", "text", "preference"] = setting(
        "auto", "Shape of the records, where they can be read in several ways.", env="DATA_SHAPE", flag="--shape"
    )
    roles: list[str] = setting(
        [],
        "Read messages of a role as those of another, as FROM=TO, such as critic=assistant. Repeatable; in YAML a mapping.",
        env="DATA_ROLE",
        flag="--role",
    )
    prompt_template: str | None = setting(
        None,
        "Question of each record, with {field}, or {field?} where it may be absent; {{ and }} are braces. @FILE reads it from a file.",
        flag="--prompt-template",
    )
    system_prompt: str | None = setting(
        None, "System message of conversations that have none. @FILE reads it from a file.", flag="--system-prompt"
    )
    learn: Literal["all", "last", "everything"] = setting(
        "all",
        "Answers of a conversation that are learnt: all, the last, or everything, that is all that the chat template writes, questions too.",
        env="DATA_LEARN",
        flag="--learn",
    )
    rewritten_turns: Literal["unroll", "skip"] = setting(
        "unroll",
        "Answers that the chat template writes differently once another message follows have an example each (unroll), or all but the last are not learnt (skip).",
        flag="--rewritten-turns",
    )
    thinking: Literal["auto", "on", "off"] = setting(
        "auto",
        "Whether the chat template is asked for a thought in front of each answer; auto follows the answer, off leaves thoughts out.",
        env="DATA_THINKING",
        flag="--thinking",
    )
    reasoning: Literal["auto", "inline", "drop"] = setting(
        "auto",
        "Thoughts that the chat template does not write: auto refuses the record, inline puts them between think tags in front of the answer, drop leaves them out.",
        env="DATA_REASONING",
        flag="--reasoning",
    )
    system_role: Literal["auto", "keep", "fold"] = setting(
        "auto",
        "System messages: fold puts them in front of the first question, keep gives them to the chat template, auto folds where it takes none.",
        flag="--system-role",
    )
    merge_turns: bool = setting(
        False, "Make one message of neighbours of one role, a blank line between their texts.", flag="--merge-turns"
    )
    chat_template: str = setting(
        "tokenizer",
        "Chat template: the tokenizer's, or in its place a .jinja file, plain, chatml, none, a Hub id or the directory of another tokenizer. The run keeps its text.",
        flag="--chat-template",
        min_length=1,
    )
    template_options: list[str] = setting(
        [],
        "Option of the chat template, as NAME=VALUE, such as reasoning_effort=low; VALUE is JSON, or else text. Repeatable; in YAML a mapping.",
        flag="--template-option",
    )
    group_by: str | None = setting(
        None, "Field of records: those with the same value are held out together by eval_fraction.", flag="--group-by"
    )
    split: str = setting(
        "train",
        "Split of the training data: of Hub data sets, and of directories whose file names mark splits.",
        flag="--split",
        min_length=1,
    )
    max_records: int | None = setting(
        None, "Maximum number of records read from each data set, from the first on. Default: all.", flag="--max-records", ge=1
    )
    max_length: int = setting(
        2048,
        "Maximum sequence length in tokens. too_long says what becomes of longer records; task rank leaves out their oldest titles and counts them.",
        flag="--max-length",
        documented=True,
        ge=8,
        le=1_048_576,
    )
    too_long: Literal["auto", "drop", "split", "left", "right", "refuse"] = setting(
        "auto",
        "What becomes of records longer than max_length: documents are split and others dropped (auto); all are dropped, split, shortened from the left or the right by whole exchanges, or the first one stops.",
        flag="--too-long",
        before="drop",
    )
    overlap: int = setting(
        0, "Tokens of a piece of a split document that come again in the next as context, not learnt.", flag="--overlap", ge=0
    )
    duplicates: Literal["keep", "drop"] = setting(
        "keep",
        "Examples with the same tokens as an earlier one of their data set are counted and kept, or left out (drop).",
        flag="--duplicates",
    )
    packing: bool = setting(
        True, "Pack several records into one sequence of max_length tokens. Attention does not cross records.", flag="--packing"
    )
    skip_bad_rows: bool = setting(
        False, "Skip and count malformed rows instead of stopping at the first.", flag="--skip-bad-rows"
    )
    cache: bool = setting(
        True, "Cache large tokenised data on disk: it takes little memory and is not tokenised again.", flag="--data-cache"
    )
    cache_gb: float = setting(
        50.0,
        "Maximum size of the cache of tokenised data in GB (10^9 bytes). The least recently used data is deleted first.",
        flag="--data-cache-gb",
        ge=0.0,
        le=1_000_000.0,
    )
    template_date: str | None = setting(
        None,
        "Day that a chat template which writes the date is told, as YYYY-MM-DD. Default: the day of the start. The run keeps it.",
        flag="--template-date",
        day=True,
    )
    rendering: int = recorded(
        2, "Version of how records become text and tokens; a run keeps the one that it was started with.", before=1, ge=1, le=2
    )
    chat_template_text: str = recorded(
        "", "The chat template in place of the tokenizer's, as JSON: a text, several by name, or null for none.", before=""
    )
    train_settings: list[str] = recorded([], "Settings that each training data set has of its own, as JSON.", before=[])
    eval_settings: list[str] = recorded([], "Settings that each evaluation data set has of its own, as JSON.", before=[])

    @property
    def training_sources(self) -> tuple[DataSource, ...]:
        """The data sets to train on."""
        return sources_with_settings(self.train, self.train_settings)

    @property
    def evaluation_sources(self) -> tuple[DataSource, ...]:
        """The data sets to evaluate on: those to train on where there are no others."""
        return sources_with_settings(self.eval, self.eval_settings) if self.eval else self.training_sources
