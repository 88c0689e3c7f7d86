"""The one schema of every setting: its type, default, range, environment name, flag and meaning.

Settings live in small groups; a group's attribute path is the YAML path (``lora.rank`` is ``lora: {rank: 8}``).
``configs.load`` merges the sources into this schema, ``.env.example`` and the command-line flags are generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.secrets import Secret
from pitstop.configs.setting import setting


@dataclass(frozen=True)
class ModelSettings:
    """The base model."""

    id: str | None = setting(None, "Hub id or local directory of the base model.", flag="--model-id", documented=True)
    revision: str | None = setting(
        None,
        "Commit, tag or branch of the base model on the Hub. The commit that it resolves to is recorded.",
        flag="--model-revision",
    )
    from_run: str | None = setting(
        None,
        "Base training to start from, in place of model.id: base_training/1@best, a run's name or a path. Without @CHECKPOINT, the best checkpoint.",
        env="FROM_RUN",
        flag="--from",
    )
    from_scratch: bool = setting(
        False,
        "Train a new model as model.config describes it, with random weights drawn by the seed. Method full only.",
        flag="--from-scratch",
    )
    config: str | None = setting(
        None,
        "config.json (transformers) of a model from scratch. For diffusion: the name of a size, or the config.json of a base training.",
        flag="--model-config",
    )
    tokenizer: str | None = setting(
        None,
        "Hub id or local directory of the tokenizer of a model from scratch. Default: the tokenizer of model.id.",
        flag="--tokenizer",
    )
    gradient_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, about 30 % more time.", flag="--gradient-checkpointing"
    )
    use_flash_attention: bool = setting(
        False,
        "Use FlashAttention 2. Where it is not installed, PyTorch's SDPA is used and a message says so.",
        flag="--use-flash-attention",
        documented=True,
    )
    use_fp16: bool = setting(
        False,
        "Compute in float16 with loss scaling instead of bfloat16. GPUs older than Ampere do so by default.",
        flag="--use-fp16",
        documented=True,
    )


@dataclass(frozen=True)
class LoraSettings:
    """The low-rank adapter (Hu et al. 2021)."""

    rank: int = setting(32, "LoRA rank.", flag="--lora-rank", documented=True, ge=1, le=4096)
    alpha: int = setting(
        64, "LoRA alpha. The update is scaled by alpha / rank.", flag="--lora-alpha", documented=True, ge=1, le=65536
    )
    dropout: float = setting(0.1, "Dropout on the adapter's input.", flag="--lora-dropout", documented=True, ge=0.0, lt=1.0)
    target_modules: list[str] = setting(
        ["all-linear"],
        "Modules that get an adapter: comma-separated names, 'all-linear', or 'default' for the model family's usual ones.",
        flag="--lora-target-modules",
        documented=True,
        min_length=1,
    )
    stage_ranks: list[str] = setting(
        [],
        "LoRA rank of each resolution, the finest first, in place of one rank. The ratio alpha / rank stays the same. Task diffusion only.",
        flag="--lora-stage-ranks",
    )


@dataclass(frozen=True)
class QuantizationSettings:
    """4-bit storage of the frozen base (QLoRA, Dettmers et al. 2023)."""

    load_in_4bit: bool | None = setting(
        None,
        "Store the frozen base in 4 bits. Default: true for method qlora, false for the others.",
        flag="--load-in-4bit",
        documented=True,
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto",
        "Data type of matrix products with 4-bit weights. auto chooses by device.",
        flag="--bnb-4bit-compute-dtype",
        documented=True,
    )
    quant_type: Literal["nf4", "fp4"] = setting("nf4", "4-bit data type.", flag="--bnb-4bit-quant-type", documented=True)
    use_double_quant: bool = setting(
        True, "Quantise the quantisation constants too.", flag="--bnb-4bit-use-double-quant", documented=True
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """Where runs live, when they are saved and what is kept."""

    base_dir: str = setting(
        "checkpoints",
        "Directory of the runs. It is created if it does not exist.",
        env="OUTPUT_DIR",
        flag="--base-dir",
        documented=True,
        min_length=1,
    )
    run_number: int | None = setting(
        None, "Number of the run. Default: the next free one.", flag="--run-number", ge=1, le=999_999
    )
    strategy: Literal["epoch", "steps", "no"] = setting(
        "epoch",
        "When to save: each epoch, every save_steps steps, or (no) only at the end and on a signal.",
        flag="--save-strategy",
        documented=True,
    )
    save_steps: int = setting(500, "Optimizer steps between saves with strategy 'steps'.", flag="--save-steps", ge=1)
    save_every_n_epochs: int = setting(1, "Epochs between saves with strategy 'epoch'.", flag="--save-every-n-epochs", ge=1)
    keep_last_n: int | None = setting(
        5,
        "Number of newest checkpoints to keep beside the best one; 'none' keeps all.",
        env="SAVE_TOTAL_LIMIT",
        flag="--keep-last-n",
        documented=True,
        ge=1,
    )
    monitor: str = setting(
        "val_loss", "Metric that selects the best checkpoint. Without evaluation data it is train_loss.", flag="--monitor"
    )
    mode: Literal["min", "max"] = setting("min", "Whether a lower (min) or a higher (max) metric is better.", flag="--mode")
    save_base_model: bool = setting(
        True,
        "Save one copy of the frozen base for all runs that share it. Otherwise only its source is recorded.",
        flag="--save-base-model",
    )
    shard_size_gb: float = setting(
        5.0,
        "Maximum size of a weights file of a whole model in GB (10^9 bytes). A larger model is saved in shards, with an index.",
        flag="--shard-size-gb",
        gt=0.0,
        le=1000.0,
    )
    sync_save: bool = setting(False, "Save synchronously: training waits until each checkpoint is written.", flag="--sync-save")
    resume_from_run: int | None = setting(
        None,
        "Resume the run of this number instead of starting a new one: an alias of 'pitstop resume'.",
        flag="--resume-from-run",
        ge=1,
    )


@dataclass(frozen=True)
class TrainingSettings:
    """Task, method, optimisation and schedule."""

    task: Literal["sft", "ner", "rank", "diffusion"] = setting(
        "sft",
        "Training task: instruction tuning (sft), entity extraction (ner), recommendation (rank) or image generation (diffusion).",
        flag="--task",
    )
    method: Literal["qlora", "lora", "full"] | None = setting(
        None,
        "qlora (adapter on a 4-bit base, the default), lora (adapter on a 16-bit base) or full (all weights: base training). Default for diffusion: lora where there is a base, otherwise full.",
        flag="--method",
    )
    epochs: int = setting(
        5,
        "Passes over the training data. Default with method full: 3.",
        env="NUM_TRAIN_EPOCHS",
        flag="--epochs",
        documented=True,
        ge=1,
        le=100_000,
    )
    max_steps: int | None = setting(
        None, "Stop after this many optimizer steps, regardless of the epochs.", flag="--max-steps", ge=1
    )
    batch_size: int = setting(
        2, "Sequences per device and micro-batch.", env="TRAIN_BATCH_SIZE", flag="--batch-size", documented=True, ge=1, le=65536
    )
    gradient_accumulation_steps: int = setting(
        2, "Micro-batches per optimizer step.", flag="--gradient-accumulation-steps", documented=True, ge=1, le=65536
    )
    auto_batch_size: bool = setting(
        False,
        "When memory runs out, halve batch_size, double gradient_accumulation_steps and repeat the step.",
        flag="--auto-batch-size",
    )
    learning_rate: float = setting(5e-5, "Peak learning rate.", flag="--learning-rate", documented=True, gt=0.0, le=10.0)
    lr_scheduler: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "Learning rate schedule after warm-up.", flag="--lr-scheduler"
    )
    warmup_ratio: float = setting(
        0.1, "Fraction of all steps used for warm-up.", flag="--warmup-ratio", documented=True, ge=0.0, lt=1.0
    )
    weight_decay: float = setting(0.01, "Decoupled weight decay.", flag="--weight-decay", documented=True, ge=0.0, le=10.0)
    max_grad_norm: float = setting(
        1.0, "Maximum norm of the gradients (clipping); 0 turns clipping off.", flag="--max-grad-norm", ge=0.0
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = setting(
        "adamw", "AdamW of PyTorch, or AdamW of bitsandbytes in 8 bits, paged, or both.", flag="--optimizer"
    )
    ema_decay: float | None = setting(
        None,
        "Decay per step of an exponential moving average of the trained weights. The average is what is evaluated. Default: no average.",
        flag="--ema-decay",
        gt=0.0,
        lt=1.0,
    )
    seed: int = setting(42, "Seed of initial weights, dropout and data order.", flag="--seed", ge=0, le=2**32 - 1)
    num_processes: int = setting(
        1, "Processes on this machine, one per device (DistributedDataParallel).", flag="--num-processes", ge=1, le=1024
    )
    logging_steps: int = setting(5, "Optimizer steps between logged rows.", flag="--logging-steps", documented=True, ge=1)
    eval_steps: int | None = setting(
        None, "Optimizer steps between evaluations. Default: one evaluation per epoch.", flag="--eval-steps", ge=1
    )
    early_stopping_patience: int | None = setting(
        None,
        "Stop after this many consecutive evaluations without a better monitored metric. Default: no early stopping.",
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
        "File of prompts (one per line, or JSONL with 'prompt'). They are answered at each evaluation, into logs/samples.jsonl.",
        flag="--sample-prompts",
    )

    score_examples: int | None = setting(
        100,
        "Number of evaluation examples, from the first on, whose answers are scored at each evaluation; 'none' scores all, 0 none.",
        flag="--eval-score-examples",
        ge=0,
    )
    max_new_tokens: int = setting(
        128, "Maximum length of a generated answer in tokens.", flag="--eval-max-new-tokens", ge=1, le=65536
    )
    generation_batch_size: int = setting(
        16, "Batch size for generating and scoring answers.", flag="--eval-generation-batch-size", ge=1, le=65536
    )


@dataclass(frozen=True)
class NerSettings:
    """Entity extraction (task ner)."""

    entity_types: list[str] = setting(
        [], "Entity types to ask for. Default: all types in the training data.", flag="--ner-entity-types"
    )
    prompt: str | None = setting(
        None,
        "Prompt for each text, with {text} and {type} or {description}. Default: the prompt of the entity extraction guide.",
        flag="--ner-prompt",
    )


@dataclass(frozen=True)
class RankSettings:
    """Sequential recommendation: what the retriever finds and how the model is asked (task rank)."""

    candidates: int = setting(20, "Number of candidates that the model ranks.", flag="--rank-candidates", ge=2, le=26)
    history: int = setting(
        20, "Number of titles of a user's history in a prompt, the newest ones.", flag="--rank-history", ge=1, le=1000
    )
    title_tokens: int = setting(
        32, "Maximum length of a title in a prompt in tokens; the rest is cut.", flag="--rank-title-tokens", ge=1, le=1024
    )
    min_interactions: int = setting(
        5,
        "Minimum number of ratings of every user and every item. The filter repeats until all that remain have them (k-core).",
        flag="--rank-min-interactions",
        ge=3,
    )
    max_train_rows: int | None = setting(
        None, "Maximum number of training rows, drawn at random by the seed. Default: all.", flag="--rank-max-train-rows", ge=1
    )
    eval_users: int | None = setting(
        None, "Maximum number of users to evaluate, drawn at random by the seed. Default: all.", flag="--rank-eval-users", ge=1
    )
    retriever: Literal["gru", "itemknn", "popularity"] = setting(
        "gru",
        "Retriever of the candidates: a small recurrent network (gru), item neighbours (itemknn), or popularity.",
        flag="--rank-retriever",
    )
    retriever_epochs: int = setting(
        50,
        "Maximum number of epochs of the gru retriever. Its training ends when it no longer improves.",
        flag="--rank-retriever-epochs",
        ge=1,
    )


@dataclass(frozen=True)
class DiffusionSettings:
    """Image generation by a denoiser (task diffusion)."""

    conditional_classes: int = setting(
        0,
        "Number of classes that a model from scratch is conditioned on, to generate images of a chosen class; 0 for an unconditional model.",
        flag="--conditional-classes",
        ge=0,
        le=4096,
    )
    flip: bool = setting(
        False, "Flip training images horizontally at random. Not for digits, letters or shoes.", flag="--flip-images"
    )
    sample_images: int = setting(
        16,
        "Number of images generated at each evaluation, as a grid in logs/samples; 0 generates none.",
        flag="--sample-images",
        ge=0,
        le=1024,
    )
    sampling_steps: int = setting(
        18, "Sampler steps: two evaluations of the model each, one in the last step.", flag="--sampling-steps", ge=2, le=1000
    )
    fid_images: int = setting(
        0,
        "Number of images generated at each evaluation for the Fréchet inception distance (FID); 0 turns it off. Needs pitstop[fid].",
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
        flag="--name-scheme",
    )
    prefix: str = setting(
        "{model}-{task}-lora",
        "Prefix of the timestamped scheme. It may hold {model}, {task} and the other fields of a template.",
        flag="--name-prefix",
    )
    template: str | None = setting(
        None,
        "Template of the name, with {model} {task} {rank} {alpha} {epochs} {lr} {method} {experiment} {prefix} {timestamp} {hash}.",
        flag="--name-template",
    )
    experiment_name: str | None = setting(
        None, "Name of the experiment, which timestamped names include.", flag="--experiment-name", documented=True
    )
    custom_id: str | None = setting(None, "Text in place of the timestamp in names.", flag="--custom-id", documented=True)
    timestamp: bool = setting(True, "End names with the start time.", env="NAME_TIMESTAMP", flag="--timestamp")
    short: bool = setting(False, "Short timestamp: MMDD_HHMM.", env="NAME_SHORT", flag="--short")
    with_hash: bool = setting(False, "Add a short hash of the settings to names.", env="NAME_HASH", flag="--with-hash")


@dataclass(frozen=True)
class HubSettings:
    """The Hugging Face account, and what of a run goes there."""

    username: str | None = setting(None, "User or organisation that Hub ids start with.", flag="--hf-username", documented=True)
    token: Secret | None = setting(
        None,
        "Access token for pushing and for gated or private base models. It is never written anywhere.",
        env="HF_TOKEN",
        flag="",
        documented=True,
    )
    push: bool = setting(False, "Push every checkpoint to the Hub, in the background.", flag="--push-to-hub")
    repo: str | None = setting(
        None,
        "Repository to push to, as owner/name. Default: HF_USERNAME or the account of the token, and the run's name.",
        flag="--hub-repo",
    )
    private: bool = setting(True, "Make the repository private.", flag="--hub-private")
    keep_last_n: int | None = setting(
        None, "Number of newest checkpoints kept on the Hub beside the best one. Default: all.", flag="--hub-keep-last-n", ge=1
    )
    push_base: bool = setting(False, "Push the frozen base too, for a base that others cannot download.", flag="--push-base")
    push_timeout: float = setting(
        600.0, "Seconds to wait at the end for pushes that are not finished.", flag="--push-timeout", ge=0.0, le=86_400.0
    )
    push_required: bool = setting(False, "Refuse to train if the token has no permission to push.", flag="--push-required")
    commits_per_hour: int = setting(
        100,
        "Maximum number of commits per hour; checkpoints that are saved faster share a commit. The Hub allows 128.",
        flag="--hub-commits-per-hour",
        ge=1,
        le=10_000,
    )
    retry_s: float = setting(
        2.0, "Seconds before a failed push is retried, doubled at each retry up to 300.", flag="--hub-retry-s", gt=0.0, le=300.0
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
        ["tensorboard"], "Trackers, comma-separated: tensorboard, wandb, mlflow, trackio; none turns all off.", flag="--report-to"
    )
    project: str = setting(
        "pitstop",
        "Project (W&B, Trackio) or experiment (MLflow) that runs are tracked in.",
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
