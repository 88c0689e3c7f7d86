"""The parts of a model card that are code: how to load the adapter, and how to go on with the run."""

from __future__ import annotations

import json

from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.card.markdown import quoted
from pitstop.checkpointing.disk.dotted import at
from pitstop.checkpointing.runs.inventory import BASE_DIRECTORY

BASE_PLACEHOLDER = "path/to/the/base"
"""What stands in the code of a card where only its reader knows the base."""

_COPY = "path"
# Not subfolder="base": transformers finds the adapter at the top then, and takes the base that its config names.
_FETCH = f'{_COPY} = snapshot_download(repo, allow_patterns="{BASE_DIRECTORY}/*") + "/{BASE_DIRECTORY}"'
_LOADED_THERE = "what the lines above load from there are the weights as they were trained"
_COMPUTE = {"bfloat16", "float16", "float32"}
_BY_PRECISION = {"bf16": "bfloat16", "fp16": "float16"}


def loading(facts: CardFacts) -> list[str]:
    """The section on loading the adapter, and a checkpoint, with PEFT; of a whole model with transformers alone."""
    if facts.makes_images:
        return _making_images(facts)
    if facts.whole:
        return _loading_whole(facts)
    base_arguments, note = _base(facts)
    from_copy = base_arguments == [_COPY]
    in_4bit = facts.method == "qlora" and not from_copy  # the copy that was pushed is in 4 bits already
    imports = ["import torch"] if in_4bit else ["from huggingface_hub import snapshot_download"] if from_copy else []
    config_class = ", BitsAndBytesConfig" if in_4bit else ""
    weights = "quantization_config=in_4bit" if in_4bit else 'dtype="auto"'
    return [
        "## Load it",
        "",
        *note,
        "```python",
        *imports,
        "from peft import PeftModel",
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{config_class}",
        "",
        f"repo = {quoted(facts.repo)}",
        *(_quantization(facts) if in_4bit else [_FETCH] if from_copy else []),
        f"tokenizer = AutoTokenizer.from_pretrained({', '.join(base_arguments)})",
        *([] if from_copy else _template(facts)),
        "base = AutoModelForCausalLM.from_pretrained(",
        *(f"    {argument}," for argument in [*base_arguments, weights, 'device_map="auto"']),
        ")",
        "model = PeftModel.from_pretrained(base, repo)",
        "```",
        *_one_checkpoint(facts),
        *_about_average(facts),
    ]


def _making_images(facts: CardFacts) -> list[str]:
    """Pitstop's own network, for which no other library has a class."""
    repo, files = quoted(facts.repo), "snapshot_download(repo)"
    note: list[str] = []
    if facts.whole:
        source = files
    elif facts.base_pushed:
        source = f'{files} + "/{BASE_DIRECTORY}", adapter={files}'
    else:
        note = ["The base is not part of this repository: put the directory of its checkpoint or export in here.", ""]
        source = f"{quoted(BASE_PLACEHOLDER)}, adapter={files}"
    return [
        "## Make images",
        "",
        *note,
        "```python",
        "from huggingface_hub import snapshot_download",
        "from pitstop.trainers.tasks.diffusion.loading import load_sampler",
        "",
        f"repo = {repo}",
        f"images = load_sampler({source}).made(16, seed=0)  # uint8, (16, channels, height, width)",
        "```",
        *_about_average(facts),
    ]


def _loading_whole(facts: CardFacts) -> list[str]:
    return [
        "## Load it",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"repo = {quoted(facts.repo)}",
        "tokenizer = AutoTokenizer.from_pretrained(repo)",
        'model = AutoModelForCausalLM.from_pretrained(repo, dtype="auto", device_map="auto")',
        "```",
        *_one_checkpoint(facts),
        *_about_average(facts),
    ]


def _about_average(facts: CardFacts) -> list[str]:
    if not facts.averaged:
        return []
    advice = "`load_sampler` takes it there too" if facts.makes_images else _LOADED_THERE
    return [
        "",
        "At the top lies the moving average of the weights, which the metrics are those of. In the directory of a checkpoint it is "
        f"`ema.safetensors`; {advice}.",
    ]


def _base(facts: CardFacts) -> tuple[list[str], list[str]]:
    """The arguments that lead to the base, and what is to be said of them."""
    if facts.base_on_hub is not None:
        revision = [f"revision={quoted(facts.base_revision)}"] if facts.base_revision else []
        return [quoted(facts.base_on_hub), *revision], []
    if facts.base_pushed:
        return [_COPY], []
    note = "The base was a directory on the machine that trained it and is not part of this repository: put its path in here."
    return [quoted(BASE_PLACEHOLDER)], [note, ""]


def _template(facts: CardFacts) -> list[str]:
    """The line that gives the base's tokenizer the chat template of the run, where that is another one."""
    try:
        template = json.loads(str(at(facts.settings, "data.chat_template_text") or ""))
    except ValueError:
        return []
    if template is not None and not isinstance(template, str | dict):
        return []
    literal = repr(template) if template is None else json.dumps(template).replace("`", "\\u0060")  # which would end the code
    return [f"tokenizer.chat_template = {literal}"]


def _quantization(facts: CardFacts) -> list[str]:
    kind = at(facts.settings, "quantization.quant_type")
    double = at(facts.settings, "quantization.use_double_quant")
    requested = at(facts.settings, "quantization.compute_dtype")
    precision = facts.metadata.environment.precision  # with ``auto``: the one that the machine chose
    compute = requested if requested in _COMPUTE else _BY_PRECISION.get(precision or "", "float32")
    return [
        "in_4bit = BitsAndBytesConfig(",
        "    load_in_4bit=True,",
        f"    bnb_4bit_quant_type={quoted(kind if kind in ('nf4', 'fp4') else 'nf4')},",
        f"    bnb_4bit_use_double_quant={double is not False},",
        f"    bnb_4bit_compute_dtype=torch.{compute},",
        ")",
    ]


def _one_checkpoint(facts: CardFacts) -> list[str]:
    if facts.newest is None:
        return []
    return [
        "",
        f"One checkpoint instead of the {'model' if facts.whole else 'adapter'} at the top:",
        "",
        "```python",
        f"model = {'AutoModelForCausalLM.from_pretrained(' if facts.whole else 'PeftModel.from_pretrained(base, '}"
        f"repo, subfolder={quoted(_example(facts))})",
        "```",
    ]


def resuming(facts: CardFacts) -> list[str]:
    """The section on going on with the training, and on fetching the run."""
    if facts.newest is None:
        return []
    return [
        "## Resume it",
        "",
        "Every checkpoint holds the optimizer, the schedule, the random state and the place in the data, so that "
        "Pitstop goes on bit for bit:",
        "",
        "```bash",
        f"pitstop resume --from-hub {facts.repo}",
        f"pitstop resume --from-hub {facts.repo}@{_example(facts)}",
        f"pitstop pull {facts.repo}",
        "```",
    ]


def _example(facts: CardFacts) -> str:
    return facts.best or facts.newest or ""
