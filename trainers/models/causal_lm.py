"""Causal language models of transformers as a family: whatever ``AutoModelForCausalLM`` knows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, ModelError, first_line
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models import attention
from pitstop.trainers.models.adapter import AdapterForm
from pitstop.trainers.models.base import BaseRecipe, load_base, save_base
from pitstop.trainers.models.cost import Cost, of_causal_lm
from pitstop.trainers.models.fit import SAME_MODEL, Tell, UnfitWeights, check_weights
from pitstop.trainers.models.foreign_code import check_stored, forget_code
from pitstop.trainers.models.loss import TokenObjective, takes_logits_to_keep
from pitstop.trainers.models.scratch import BUILDING, read_model_config
from pitstop.trainers.models.source import KnownBase, ModelSource, find_model
from pitstop.trainers.models.tokenizer import load_tokenizer
from pitstop.trainers.models.trained import as_evaluated, check_size


class CausalLM:
    """See ``family.Family``."""

    def find(self, settings: Settings, recorded: KnownBase | None) -> ModelSource:
        """A directory, a model on the Hub, a checkpoint of a base training, or a configuration with a tokenizer."""
        return find_model(settings, recorded)

    def tokenizer(self, source: ModelSource) -> Any:
        """The tokenizer that lies beside the model."""
        return load_tokenizer(source.path)

    def check(self, source: ModelSource, tell: Tell) -> nn.Module:
        """By headers, and whether it is a decoder; the headers of a run's own copy, which is verified and may be in 4 bits, are left to loading."""
        model = self.without_weights(source)
        _refuse_encoder(model, source)
        if source.config is None and not source.is_copy:
            with as_evaluated(source.path) as directory:
                check_weights(directory, model, source.model_id, tell)
        return model

    def load(self, path: Path, recipe: BaseRecipe, device: torch.device, *, stored: bool, flash: bool, frozen: bool) -> nn.Module:
        """Load by ``from_pretrained``; of a checkpoint that another run starts from the average, if it has one."""
        if stored and not frozen:
            check_size(path, self._on_meta(path))
        try:
            with contextlib.nullcontext(path) if stored else as_evaluated(path) as directory:
                model = load_base(directory, recipe, device, stored=stored, flash=flash, frozen=frozen)
        except UnfitWeights as error:
            if not stored or frozen:
                raise
            raise CheckpointError(error.message, hint="Go on from another checkpoint of the run with --checkpoint.") from error
        if not frozen and getattr(model, "hf_quantizer", None) is not None:
            raise ModelError(f"{path} is quantised, so not all of its weights can be trained.", hint="Train with --method lora.")
        return model

    def initialise(self, source: ModelSource, seed: int, device: torch.device, *, flash: bool) -> nn.Module:
        """Build by ``from_config``. ``ModelError`` for a configuration that builds no model."""
        assert source.config is not None
        config = read_model_config(source.config)
        attention.register()
        torch.manual_seed(seed)
        model = _from_config(
            config, source.config, attn_implementation="flash_attention_2" if flash else attention.IMPLEMENTATION
        )
        return model.to(device)

    def without_weights(self, source: ModelSource) -> nn.Module:
        """Built from the configuration alone."""
        if source.config is None:
            return self._on_meta(source.path)
        with torch.device("meta"):
            return _from_config(read_model_config(source.config), source.config)

    def _on_meta(self, path: Path) -> nn.Module:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        with quiet_libraries(), torch.device("meta"):
            try:
                config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            except (StrictDataclassError, OSError, *BUILDING) as error:
                reason = first_line(error.__cause__ or error)
                raise ModelError(f"{path} has no usable config.json: {reason}", hint=SAME_MODEL) from error
            return _from_config(config, path)

    def adapter_form(self, model: nn.Module, settings: Settings) -> AdapterForm:
        """As PEFT knows it."""
        return AdapterForm()

    def objective(
        self,
        model: nn.Module,
        tokenizer: Any,
        settings: Settings,
        device: torch.device,
        *,
        flash: bool,
        warn: Callable[[str], None],
    ) -> TokenObjective:
        """Rows without padding, or padded ones for an architecture that cannot keep the documents of a row apart."""
        network: Any = model
        flat = flash or attention.keeps_documents_apart(network, device)
        if not flat:
            network.set_attn_implementation("sdpa" if getattr(network, "_supports_sdpa", False) else "eager")
            warn("This architecture cannot keep packed records apart: records are padded instead, and packing is off.")
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return TokenObjective(flat, flash, pad_id, keep_positions=takes_logits_to_keep(model))

    def cost(self, model: Any, settings: Settings, data: Sequences) -> Cost:
        """From widths and depths."""
        return of_causal_lm(model, settings, data)

    def save(self, model: nn.Module, tokenizer: Any, directory: Path) -> None:
        """As ``save_pretrained`` does."""
        save_base(model, tokenizer, directory)

    def tensors(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """As ``save_pretrained`` names them: what is tied once, under the name that loading looks for."""
        from transformers.core_model_loading import revert_weight_conversion

        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        first: dict[int, str] = {}
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        for name, tensor in sorted(named, key=lambda pair: pair[0] in tied):
            first.setdefault(id(tensor), name)
        saved_names = set(first.values()) - set(getattr(model, "_keys_to_ignore_on_save", None) or ())
        live = {name: tensor for name, tensor in model.state_dict().items() if name in saved_names}
        return dict(revert_weight_conversion(model, live))

    def descriptions(self, model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
        """The model's and the generation's config and the tokenizer's files, without a reference to code or to this machine."""
        network: Any = model
        for item in (network.config, getattr(network, "generation_config", None), tokenizer):
            forget_code(item)
        implementation = network.config._attn_implementation
        with tempfile.TemporaryDirectory(prefix="pitstop-") as scratch, quiet_libraries():
            directory = Path(scratch)
            network.set_attn_implementation("sdpa")  # ours means nothing to whoever loads these files
            try:
                network.save_pretrained(directory, state_dict={})
            finally:
                network.set_attn_implementation(implementation)
            tokenizer.save_pretrained(directory)
            check_stored(directory)
            weights = {file_sets.WEIGHTS, file_sets.WEIGHTS_INDEX}
            files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
            if unknown := sorted(name for name in files if not file_sets.is_model_file(name)):
                raise ModelError(
                    f"The tokenizer is saved with {', '.join(unknown)}, which no checkpoint of Pitstop holds.",
                    hint="Train with --method lora, which keeps the tokenizer beside the base.",
                )
            return {name: path.read_bytes() for name, path in files.items() if name not in weights}


def _refuse_encoder(model: Any, source: ModelSource) -> None:
    """``ModelError`` for one of BERT's kind: transformers builds it with a head for the next token, which each token sees by then."""
    config = model.config.get_text_config()
    is_encoder = getattr(config, "is_decoder", None) is False and any(
        getattr(module, "is_causal", None) is False for module in model.modules()
    )
    if is_encoder or getattr(config, "use_bidirectional_attention", None) is True:
        raise ModelError(
            f"{source.model_id} is an encoder ({config.model_type}): each token sees those behind it, so it cannot learn to write.",
            hint="Take a decoder, such as those of the families Llama, Qwen or Gemma.",
        )


def _from_config(config: Any, path: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with quiet_libraries():
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=torch.float32, **options)
        except (OSError, RuntimeError, *BUILDING) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if options.get("attn_implementation") == attention.IMPLEMENTATION and error.args == (attention.IMPLEMENTATION,):
                return _from_config(config, path)  # older architectures choose among attention classes of their own
            raise ModelError(
                f"{path} builds no causal language model: {first_line(error)}",
                hint="Take the config.json of a model whose architecture transformers has, and change its sizes.",
            ) from error
