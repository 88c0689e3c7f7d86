"""The one schema of every setting: its type, default, range, environment name, flag and meaning.

Settings live in small groups; a group's attribute path is the YAML path (``lora.rank`` is ``lora: {rank: 8}``).
``configs.load`` merges the sources into this schema, ``.env.example`` and the command-line flags are generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

from pitstop.configs.secrets import Secret


class Limits(TypedDict, total=False):
    """What a value must keep: bounds of a number (``ge`` and ``le`` are inclusive), the least length of a text or a list."""

    ge: float
    gt: float
    le: float
    lt: float
    min_length: int


def setting(default: Any, help: str, *, env: str, flag: str, documented: bool = False, **limits: Unpack[Limits]) -> Any:
    """Declare one setting.

    ``env`` is its environment name. A name from the customer's documents (``documented=True``) is read bare and with
    the ``PITSTOP_`` prefix; any other only with the prefix, so that an unrelated ``SEED`` or ``MODE`` in the
    environment stays none of our business. ``flag`` is the long option.
    """
    metadata = {"help": help, "env": env, "flag": flag, "documented": documented, "limits": limits}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    """The base model."""

    id: str | None = setting(
        None, "Hub id or local directory of the base model.", env="MODEL_ID", flag="--model-id", documented=True
    )
    revision: str | None = setting(
        None,
        "Commit hash, tag or branch of the base model on the Hub; the commit it resolves to is recorded.",
        env="MODEL_REVISION",
        flag="--model-revision",
    )
    from_run: str | None = setting(
        None,
        "Base training to start from instead of model.id: base_training/1@best, a run's name or a path; best unless it picks another.",
        env="FROM_RUN",
        flag="--from",
    )
    from_scratch: bool = setting(
        False,
        "Train a new model with random weights, drawn from the seed, as model.config describes it; method full only.",
        env="FROM_SCRATCH",
        flag="--from-scratch",
    )
    config: str | None = setting(
        None,
        "config.json of transformers that a model from scratch is made after; for diffusion the name of a size, or the config.json of a base training.",
        env="MODEL_CONFIG",
        flag="--model-config",
    )
    tokenizer: str | None = setting(
        None,
        "Hub id or local directory of the tokenizer of a model from scratch; unset, that of model.id.",
        env="TOKENIZER",
        flag="--tokenizer",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations in the backward pass: less memory, about 30 % more time.",
        env="GRADIENT_CHECKPOINTING",
        flag="--gradient-checkpointing",
    )
    use_flash_attention: bool = setting(
        False,
        "Use FlashAttention 2 where it is installed; otherwise PyTorch's SDPA, with a message.",
        env="USE_FLASH_ATTENTION",
        flag="--use-flash-attention",
        documented=True,
    )
    use_fp16: bool = setting(
        False,
        "Compute in float16 with loss scaling instead of bfloat16 (GPUs before Ampere choose it by themselves).",
        env="USE_FP16",
        flag="--use-fp16",
        documented=True,
    )


@dataclass(frozen=True)
class DataSettings:
    """Training and evaluation records."""

    train: list[str] = setting(
        [],
        "Training data: JSONL, JSON, CSV or Parquet file, a directory of them, or a Hub data set id; for diffusion CIFAR10, CIFAR100, or images; FILE:0.7 gives it a weight among several. Repeatable; comma-separated in the environment.",
        env="DATASET_PATH",
        flag="--dataset",
        documented=True,
    )
    classes: list[str] = setting(
        [],
        "Classes of images that are trained on, by name or number; unset, all.",
        env="DATA_CLASSES",
        flag="--classes",
    )
    label: str | None = setting(
        None,
        "What the data is called in lists; with classes chosen their number follows, as in Trees (5).",
        env="DATA_LABEL",
        flag="--data-label",
    )
    root: str = setting(
        "data",
        "Directory in which CIFAR10, CIFAR100 and FashionMNIST are looked for before they are fetched.",
        env="DATA_ROOT",
        flag="--data-root",
        min_length=1,
    )
    eval: list[str] = setting(
        [],
        "Evaluation data, in the same forms.",
        env="EVAL_DATASET_PATH",
        flag="--eval-dataset",
    )
    eval_fraction: float = setting(
        0.0,
        "Share of the training records held out for evaluation when no evaluation data is given.",
        env="EVAL_FRACTION",
        flag="--eval-fraction",
        ge=0.0,
        le=0.5,
    )
    max_length: int = setting(
        2048,
        "Longest sequence in tokens; a longer record is left out and counted, never cut (rank leaves out the oldest titles, counted too).",
        env="MAX_LENGTH",
        flag="--max-length",
        documented=True,
        ge=8,
        le=1_048_576,
    )
    packing: bool = setting(
        True,
        "Pack several records into one sequence of max_length; attention never crosses a record.",
        env="PACKING",
        flag="--packing",
    )
    skip_bad_rows: bool = setting(
        False,
        "Go on past malformed rows and count them instead of stopping at the first.",
        env="SKIP_BAD_ROWS",
        flag="--skip-bad-rows",
    )
    cache: bool = setting(
        True,
        "Keep large data tokenised on disk, so that it is trained on in little memory and not tokenised again.",
        env="DATA_CACHE",
        flag="--data-cache",
    )
    cache_gb: float = setting(
        50.0,
        "Gigabytes (10^9 bytes) that tokenised data may take on disk; what was used longest ago goes first.",
        env="DATA_CACHE_GB",
        flag="--data-cache-gb",
        ge=0.0,
        le=1_000_000.0,
    )


@dataclass(frozen=True)
class LoraSettings:
    """The low-rank adapter (Hu et al. 2021)."""

    rank: int = setting(32, "LoRA rank.", env="LORA_RANK", flag="--lora-rank", documented=True, ge=1, le=4096)
    alpha: int = setting(
        64,
        "LoRA alpha; the update is scaled by alpha / rank.",
        env="LORA_ALPHA",
        flag="--lora-alpha",
        documented=True,
        ge=1,
        le=65536,
    )
    dropout: float = setting(
        0.1, "Dropout on the adapter's input.", env="LORA_DROPOUT", flag="--lora-dropout", documented=True, ge=0.0, lt=1.0
    )
    target_modules: list[str] = setting(
        ["all-linear"],
        "Modules that get an adapter: comma-separated names, 'all-linear', or 'default' for the model family's usual ones.",
        env="LORA_TARGET_MODULES",
        flag="--lora-target-modules",
        documented=True,
        min_length=1,
    )
    stage_ranks: list[str] = setting(
        [],
        "LoRA ranks by resolution, the finest first, instead of one rank (task diffusion); alpha keeps its proportion to the rank.",
        env="LORA_STAGE_RANKS",
        flag="--lora-stage-ranks",
    )


@dataclass(frozen=True)
class QuantizationSettings:
    """4-bit storage of the frozen base (QLoRA, Dettmers et al. 2023)."""

    load_in_4bit: bool | None = setting(
        None,
        "Store the frozen base in 4 bits; unset, it follows the method (true for qlora, the default).",
        env="LOAD_IN_4BIT",
        flag="--load-in-4bit",
        documented=True,
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto",
        "Type that 4-bit weights are expanded to for matrix products; auto chooses by device.",
        env="BNB_4BIT_COMPUTE_DTYPE",
        flag="--bnb-4bit-compute-dtype",
        documented=True,
    )
    quant_type: Literal["nf4", "fp4"] = setting(
        "nf4",
        "4-bit data type.",
        env="BNB_4BIT_QUANT_TYPE",
        flag="--bnb-4bit-quant-type",
        documented=True,
    )
    use_double_quant: bool = setting(
        True,
        "Quantise the quantisation constants too.",
        env="BNB_4BIT_USE_DOUBLE_QUANT",
        flag="--bnb-4bit-use-double-quant",
        documented=True,
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """Where runs live, when they are saved and what is kept."""

    base_dir: str = setting(
        "checkpoints",
        "Directory that holds the runs; made if missing.",
        env="OUTPUT_DIR",
        flag="--base-dir",
        documented=True,
        min_length=1,
    )
    run_number: int | None = setting(
        None, "Number of the run; unset, the next free one.", env="RUN_NUMBER", flag="--run-number", ge=1, le=999_999
    )
    strategy: Literal["epoch", "steps", "no"] = setting(
        "epoch",
        "Save each epoch, every save_steps steps, or only at the end and on a signal.",
        env="SAVE_STRATEGY",
        flag="--save-strategy",
        documented=True,
    )
    save_steps: int = setting(
        500, "Optimizer steps between saves with strategy 'steps'.", env="SAVE_STEPS", flag="--save-steps", ge=1
    )
    save_every_n_epochs: int = setting(
        1, "Epochs between saves with strategy 'epoch'.", env="SAVE_EVERY_N_EPOCHS", flag="--save-every-n-epochs", ge=1
    )
    keep_last_n: int | None = setting(
        5,
        "Checkpoints kept beside the best one; 'none' keeps all.",
        env="SAVE_TOTAL_LIMIT",
        flag="--keep-last-n",
        documented=True,
        ge=1,
    )
    monitor: str = setting(
        "val_loss",
        "Metric that decides the best checkpoint; train_loss where there is no evaluation.",
        env="MONITOR",
        flag="--monitor",
    )
    mode: Literal["min", "max"] = setting("min", "Whether a smaller or a larger metric is better.", env="MODE", flag="--mode")
    save_base_model: bool = setting(
        True,
        "Save the frozen base once for all runs that share it; false keeps a reference to its source.",
        env="SAVE_BASE_MODEL",
        flag="--save-base-model",
    )
    shard_size_gb: float = setting(
        5.0,
        "Largest weights file of a whole model in GB (10^9 bytes); a larger model is cut into several, with an index.",
        env="SHARD_SIZE_GB",
        flag="--shard-size-gb",
        gt=0.0,
        le=1000.0,
    )
    sync_save: bool = setting(
        False,
        "Wait for each save instead of writing it beside the training.",
        env="SYNC_SAVE",
        flag="--sync-save",
    )
    resume_from_run: int | None = setting(
        None, "Resume this run instead of starting a new one.", env="RESUME_FROM_RUN", flag="--resume-from-run", ge=1
    )


@dataclass(frozen=True)
class TrainingSettings:
    """Task, method, optimisation and schedule."""

    task: Literal["sft", "ner", "rank", "diffusion"] = setting(
        "sft",
        "Training task: instruction tuning, entity extraction, recommendation, or image generation.",
        env="TASK",
        flag="--task",
    )
    method: Literal["qlora", "lora", "full"] | None = setting(
        None,
        "qlora (adapter on a 4-bit base, the default), lora (adapter on a 16-bit base) or full (all weights: base training). Diffusion: lora on a base training, else full.",
        env="METHOD",
        flag="--method",
    )
    epochs: int = setting(
        5,
        "Passes over the training data; 3 with method full, unless set.",
        env="NUM_TRAIN_EPOCHS",
        flag="--epochs",
        documented=True,
        ge=1,
        le=100_000,
    )
    max_steps: int | None = setting(
        None, "Stop after this many optimizer steps, whatever the epochs.", env="MAX_STEPS", flag="--max-steps", ge=1
    )
    batch_size: int = setting(
        2, "Sequences per device and micro-batch.", env="TRAIN_BATCH_SIZE", flag="--batch-size", documented=True, ge=1, le=65536
    )
    gradient_accumulation_steps: int = setting(
        2,
        "Micro-batches per optimizer step.",
        env="GRADIENT_ACCUMULATION_STEPS",
        flag="--gradient-accumulation-steps",
        documented=True,
        ge=1,
        le=65536,
    )
    auto_batch_size: bool = setting(
        False,
        "When memory runs out, halve batch_size, double the accumulation and repeat the step.",
        env="AUTO_BATCH_SIZE",
        flag="--auto-batch-size",
    )
    learning_rate: float = setting(
        5e-5, "Peak learning rate.", env="LEARNING_RATE", flag="--learning-rate", documented=True, gt=0.0, le=10.0
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = setting(
        "cosine",
        "Shape of the learning rate after warm-up.",
        env="LR_SCHEDULER",
        flag="--lr-scheduler",
    )
    warmup_ratio: float = setting(
        0.1, "Share of all steps spent warming up.", env="WARMUP_RATIO", flag="--warmup-ratio", documented=True, ge=0.0, lt=1.0
    )
    weight_decay: float = setting(
        0.01, "Decoupled weight decay.", env="WEIGHT_DECAY", flag="--weight-decay", documented=True, ge=0.0, le=10.0
    )
    max_grad_norm: float = setting(
        1.0, "Gradients are clipped to this norm; 0 turns clipping off.", env="MAX_GRAD_NORM", flag="--max-grad-norm", ge=0.0
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = setting(
        "adamw",
        "AdamW by PyTorch, or by bitsandbytes in 8 bits or paged.",
        env="OPTIMIZER",
        flag="--optimizer",
    )
    ema_decay: float | None = setting(
        None,
        "Keep an exponential moving average of the trained weights with this decay a step, and evaluate it; unset, none.",
        env="EMA_DECAY",
        flag="--ema-decay",
        gt=0.0,
        lt=1.0,
    )
    seed: int = setting(42, "Seed of initial values, dropout and data order.", env="SEED", flag="--seed", ge=0, le=2**32 - 1)
    num_processes: int = setting(
        1,
        "Processes on this machine, one per device (DistributedDataParallel).",
        env="NUM_PROCESSES",
        flag="--num-processes",
        ge=1,
        le=1024,
    )
    logging_steps: int = setting(
        5, "Optimizer steps between logged rows.", env="LOGGING_STEPS", flag="--logging-steps", documented=True, ge=1
    )
    eval_steps: int | None = setting(
        None, "Optimizer steps between evaluations; unset, once an epoch.", env="EVAL_STEPS", flag="--eval-steps", ge=1
    )
    early_stopping_patience: int | None = setting(
        None,
        "Stop after this many evaluations in a row without a better monitored metric.",
        env="EARLY_STOPPING_PATIENCE",
        flag="--early-stopping-patience",
        ge=1,
    )
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    @property
    def all_weights(self) -> bool:
        """Whether all weights are trained (base training) and not an adapter."""
        return self.method == "full"

    @property
    def makes_images(self) -> bool:
        """Whether the task is one of images, whose models have neither a tokenizer nor a class in transformers."""
        return self.task == "diffusion"


@dataclass(frozen=True)
class EvaluationSettings:
    """How answers are generated and scored at evaluations."""

    sample_prompts: str | None = setting(
        None,
        "File of prompts (one a line, or JSONL with 'prompt') that are answered at each evaluation, into logs/samples.jsonl.",
        env="SAMPLE_PROMPTS",
        flag="--sample-prompts",
    )

    score_examples: int | None = setting(
        100,
        "Evaluation examples whose answers are scored at each evaluation, the first ones; 'none' scores all, 0 none.",
        env="EVAL_SCORE_EXAMPLES",
        flag="--eval-score-examples",
        ge=0,
    )
    max_new_tokens: int = setting(
        128, "Longest generated answer in tokens.", env="EVAL_MAX_NEW_TOKENS", flag="--eval-max-new-tokens", ge=1, le=65536
    )
    generation_batch_size: int = setting(
        16,
        "Answers generated or scored at the same time.",
        env="EVAL_GENERATION_BATCH_SIZE",
        flag="--eval-generation-batch-size",
        ge=1,
        le=65536,
    )


@dataclass(frozen=True)
class NerSettings:
    """Entity extraction (task ner)."""

    entity_types: list[str] = setting(
        [],
        "Entity types that are asked for; unset, all types in the training data.",
        env="NER_ENTITY_TYPES",
        flag="--ner-entity-types",
    )
    prompt: str | None = setting(
        None,
        "Question in front of each text, with {text} and {type} or {description}; unset, the one of the entity extraction guide.",
        env="NER_PROMPT",
        flag="--ner-prompt",
    )


@dataclass(frozen=True)
class RankSettings:
    """Sequential recommendation: what the retriever finds and how the model is asked (task rank)."""

    candidates: int = setting(
        20, "Candidates that the model ranks.", env="RANK_CANDIDATES", flag="--rank-candidates", ge=2, le=26
    )
    history: int = setting(
        20, "Titles of a user's history in a prompt, the newest.", env="RANK_HISTORY", flag="--rank-history", ge=1, le=1000
    )
    title_tokens: int = setting(
        32, "Tokens of a title in a prompt, the first.", env="RANK_TITLE_TOKENS", flag="--rank-title-tokens", ge=1, le=1024
    )
    min_interactions: int = setting(
        5,
        "Ratings that every user and every item must have; others are left out, again and again until all have them.",
        env="RANK_MIN_INTERACTIONS",
        flag="--rank-min-interactions",
        ge=3,
    )
    max_train_rows: int | None = setting(
        None,
        "Training rows at most, a random choice by the seed; unset, all.",
        env="RANK_MAX_TRAIN_ROWS",
        flag="--rank-max-train-rows",
        ge=1,
    )
    eval_users: int | None = setting(
        None,
        "Users to evaluate at most, a random choice by the seed; unset, all.",
        env="RANK_EVAL_USERS",
        flag="--rank-eval-users",
        ge=1,
    )
    retriever: Literal["gru", "itemknn", "popularity"] = setting(
        "gru",
        "What finds the candidates: a small recurrent network, item neighbours, or what is taken most.",
        env="RANK_RETRIEVER",
        flag="--rank-retriever",
    )
    retriever_epochs: int = setting(
        50,
        "Passes of the network gru over its training data at most; it stops when it no longer improves.",
        env="RANK_RETRIEVER_EPOCHS",
        flag="--rank-retriever-epochs",
        ge=1,
    )


@dataclass(frozen=True)
class DiffusionSettings:
    """Image generation by a denoiser (task diffusion)."""

    conditional_classes: int = setting(
        0,
        "Classes that a model from scratch is told of, so that it makes images of a class that is asked for; 0 tells it none.",
        env="CONDITIONAL_CLASSES",
        flag="--conditional-classes",
        ge=0,
        le=4096,
    )
    flip: bool = setting(
        False,
        "Mirror half of the training images, chosen anew each time; not for digits, letters or shoes.",
        env="FLIP_IMAGES",
        flag="--flip-images",
    )
    sample_images: int = setting(
        16,
        "Images made at each evaluation, as a grid in logs/samples; 0 makes none.",
        env="SAMPLE_IMAGES",
        flag="--sample-images",
        ge=0,
        le=1024,
    )
    sampling_steps: int = setting(
        18,
        "Steps of the sampler, two evaluations of the model each but the last.",
        env="SAMPLING_STEPS",
        flag="--sampling-steps",
        ge=2,
        le=1000,
    )
    fid_images: int = setting(
        0,
        "Images made at each evaluation for the Fréchet inception distance (FID); 0 does without. Needs pitstop[fid].",
        env="FID_IMAGES",
        flag="--fid-images",
        ge=0,
        le=1_000_000,
    )


@dataclass(frozen=True)
class NamingSettings:
    """How runs are named; see the naming guide for the schemes."""

    scheme: Literal["derived", "timestamped"] = setting(
        "derived",
        "derived: {model}-{task}-r{rank}-a{alpha}-e{epochs}-{timestamp}; timestamped: {prefix}-{timestamp}.",
        env="NAME_SCHEME",
        flag="--name-scheme",
    )
    prefix: str = setting(
        "{model}-{task}-lora",
        "Prefix of the timestamped scheme; {model}, {task} and the template's other fields may stand in it.",
        env="NAME_PREFIX",
        flag="--name-prefix",
    )
    template: str | None = setting(
        None,
        "A scheme of your own with {model} {task} {rank} {alpha} {epochs} {lr} {method} {experiment} {prefix} {timestamp} {hash}.",
        env="NAME_TEMPLATE",
        flag="--name-template",
    )
    experiment_name: str | None = setting(
        None,
        "Name of the experiment; part of timestamped names.",
        env="EXPERIMENT_NAME",
        flag="--experiment-name",
        documented=True,
    )
    custom_id: str | None = setting(
        None, "Replaces the timestamp in names.", env="CUSTOM_ID", flag="--custom-id", documented=True
    )
    timestamp: bool = setting(True, "End names with the time of the start.", env="NAME_TIMESTAMP", flag="--timestamp")
    short: bool = setting(False, "Short timestamp: MMDD_HHMM.", env="NAME_SHORT", flag="--short")
    with_hash: bool = setting(False, "Add a short hash of the settings to names.", env="NAME_HASH", flag="--with-hash")


@dataclass(frozen=True)
class HubSettings:
    """The Hugging Face account, and what of a run goes there."""

    username: str | None = setting(
        None, "User or organisation that Hub ids start with.", env="HF_USERNAME", flag="--hf-username", documented=True
    )
    token: Secret | None = setting(
        None,
        "Access token for pushing and for gated or private base models; never written anywhere.",
        env="HF_TOKEN",
        flag="",
        documented=True,
    )
    push: bool = setting(
        False,
        "Push every checkpoint to the Hub beside the training.",
        env="PUSH_TO_HUB",
        flag="--push-to-hub",
    )
    repo: str | None = setting(
        None,
        "Repository to push to, as owner/name; unset, HF_USERNAME or the account, and the run's name.",
        env="HUB_REPO",
        flag="--hub-repo",
    )
    private: bool = setting(True, "Make the repository private.", env="HUB_PRIVATE", flag="--hub-private")
    keep_last_n: int | None = setting(
        None,
        "Checkpoints kept on the Hub beside the best one; unset, all.",
        env="HUB_KEEP_LAST_N",
        flag="--hub-keep-last-n",
        ge=1,
    )
    push_base: bool = setting(
        False,
        "Push the frozen base too, for a base that others cannot fetch.",
        env="PUSH_BASE",
        flag="--push-base",
    )
    push_timeout: float = setting(
        600.0,
        "Seconds to wait at the end for what is not on the Hub yet.",
        env="PUSH_TIMEOUT",
        flag="--push-timeout",
        ge=0.0,
        le=86_400.0,
    )
    push_required: bool = setting(
        False,
        "Do not train where the token may not push.",
        env="PUSH_REQUIRED",
        flag="--push-required",
    )
    commits_per_hour: int = setting(
        100,
        "Most commits an hour; when saves come faster, checkpoints share one. The Hub allows 128.",
        env="HUB_COMMITS_PER_HOUR",
        flag="--hub-commits-per-hour",
        ge=1,
        le=10_000,
    )
    retry_s: float = setting(
        2.0,
        "Seconds before a failed push is tried again; doubled up to 300.",
        env="HUB_RETRY_S",
        flag="--hub-retry-s",
        gt=0.0,
        le=300.0,
    )

    @property
    def token_value(self) -> str | None:
        """The access token itself, for a library that authenticates with it; None where there is none."""
        return self.token.reveal() if self.token else None


TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""What ``tracking.report_to`` may hold."""


@dataclass(frozen=True)
class TrackingSettings:
    """Trackers that show a run while it trains."""

    report_to: list[str] = setting(
        ["tensorboard"],
        "Trackers: tensorboard, wandb, mlflow, trackio, comma-separated; none turns all off.",
        env="REPORT_TO",
        flag="--report-to",
    )
    project: str = setting(
        "pitstop",
        "Project (W&B, Trackio) or experiment (MLflow) that runs are tracked in.",
        env="TRACKING_PROJECT",
        flag="--tracking-project",
        min_length=1,
    )


@dataclass(frozen=True)
class Settings:
    """All settings of one run, resolved."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    ner: NerSettings = field(default_factory=NerSettings)
    rank: RankSettings = field(default_factory=RankSettings)
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    naming: NamingSettings = field(default_factory=NamingSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
