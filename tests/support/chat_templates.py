"""A tokenizer of bytes, the chat templates of the oracles, and conversations for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from pitstop.trainers.data.chat.added_tokens import AddedTokens
from pitstop.trainers.data.chat.conversation import Conversation, RenderedExample
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.rendering import ConversationRenderer
from pitstop.trainers.data.chat.template import ChatTemplate

SPECIAL = [
    *("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|return|>", "<|observation|>", "<sop>", "[gMASK]"),
    *("<|im_start|>", "<|im_end|>", "<|start|>", "<|channel|>", "<|message|>", "<|call|>", "<|final|>", "<|python_tag|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<bos>", "<eos>", "<end_of_utterance>", "<image>"),
    *("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>", "<|SYSTEM_TOKEN|>"),
]
ADDED = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|channel>", "<channel|>"),
    *("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|tool>", "<tool|>", "<|think|>", '<|"|>'),
    *("<|tool_call_start|>", "<|tool_call_end|>", "<|tool_list_start|>", "<|tool_list_end|>"),
    *("<|tool_response_start|>", "<|tool_response_end|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    *("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
]


@cache
def byte_tokenizer() -> Any:
    """Bytes, no BOS of its own; marks of turns are special tokens, those of thoughts and tools ordinary added ones."""
    return tokenizer_of_bytes(SPECIAL, ADDED)


def tokenizer_of_bytes(special: Sequence[str], added: Sequence[str] = (), *, bos: bool = False) -> Any:
    """Bytes and these tokens, among them ``<s>`` and ``</s>``; ``bos``: it puts ``<s>`` in front by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


_TURNS = "{% for m in messages %}<|{{ m.role }}|>%s<|end|>{% endfor %}"
_CUE = "{% if add_generation_prompt %}<|assistant|>%s{% endif %}"
_ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% endfor %}"
)
_INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_MOVES = (
    "{% set last = namespace(user=0) %}"
    "{% for m in messages[1:] %}{% if m.role == 'user' %}{% set last.user = loop.index %}{% endif %}{% endfor %}"
    "{% for m in messages[1:] %}{% if m.role == 'user' %}[INST] {% if loop.index == last.user %}{{ messages[0].content }} {% endif %}"
    "{{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def _turns(content: str = "{{ m.content }}") -> str:
    return _TURNS.replace("%s", content)


def _cue(behind: str = "") -> str:
    return _CUE.replace("%s", behind)


def _answers(answer: str) -> str:
    """Turns of which those of the assistant are ``answer`` instead, their header included."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}" + answer + "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>"
        "{% endif %}{% endfor %}"
    )


_TAGGED = "<|assistant|>{{ m.reasoning_content }}{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
OWN = {
    "base": _turns() + _cue(),
    "nocue": _turns(),
    "strict": _ALTERNATE + _turns() + _cue(),
    "forgets": _turns(
        "{% if loop.last and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    )
    + _cue(),
    "opens": _answers("<|assistant|><think>\n{{ m.reasoning_content }}\n</think>\n\n{{ m.content }}<|end|>") + _cue("<think>\n"),
    "hides": _turns("{{ m.content.split('</think>')[-1] }}") + _cue("<think>\n"),
    "empties": _turns() + _cue("<think></think>"),
    "prefills": _turns() + _cue("Sure:"),
    "differs": "{% if add_generation_prompt %}Answer now.{% endif %}" + _turns() + _cue(),
    "eosend": _turns() + "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
    "lastend": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    )
    + _cue(),
    "noend": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}" + _cue(),
    "inst": _INST,
    "moves": _MOVES,
    "tagged": _answers(_TAGGED) + _cue(),
    "macro": "{% macro turn(m) %}" + _TAGGED + "{% endmacro %}" + _answers("{{ turn(m) }}") + _cue(),
    "widetag": _answers("{% generation %}<|assistant|>{{ m.content }}{% endgeneration %}<|end|>") + _cue(),
}


@cache
def wheel_templates() -> Mapping[str, str]:
    """The chat templates that the wheel of TRL ships, by name."""
    import trl

    directory = Path(trl.__file__).parent / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.jinja"))}


def renderer_of(
    tokenizer: Any,
    source: str,
    options: RenderingOptions,
    *,
    stops: frozenset[str] = frozenset(),
    day: date | None = None,
) -> ConversationRenderer:
    """A renderer of one template's source; ``day`` is what it takes for today."""
    template = ChatTemplate(tokenizer, day, source=source)
    return ConversationRenderer(template, AddedTokens.of(tokenizer), options, stops=stops)


def renderer(name: str, *, stops: frozenset[str] = frozenset(), **options: Any) -> ConversationRenderer:
    """A renderer of one of the templates, in the hands of the byte tokenizer."""
    source = OWN.get(name) or wheel_templates()[name]
    return renderer_of(byte_tokenizer(), source, RenderingOptions(**options), stops=stops)


def conversation(*messages: dict[str, Any], learnt: Sequence[bool] | None = None, **more: Any) -> Conversation:
    """Messages, of which every answer behind another message is learnt."""
    flags = learnt or [message["role"] == "assistant" and number > 0 for number, message in enumerate(messages)]
    return Conversation(messages=list(messages), learnt=flags, **more)


def user(text: str) -> dict[str, Any]:
    """A question."""
    return {"role": "user", "content": text}


def assistant(text: str, thought: str | None = None) -> dict[str, Any]:
    """An answer."""
    return {"role": "assistant", "content": text} | ({} if thought is None else {"reasoning_content": thought})


def system(text: str) -> dict[str, Any]:
    """A system message."""
    return {"role": "system", "content": text}


TWO = conversation(user("Q1"), assistant("A1"), user("Q2"), assistant("A2"))
THINK = conversation(user("Q1"), assistant("A1", "R1"), user("Q2"), assistant("A2", "R2"))
FIRST_THOUGHT = conversation(user("Q1"), assistant("A1", "R1"), user("Q2"), assistant("A2"))
SECOND_THOUGHT = conversation(user("Q1"), assistant("A1"), user("Q2"), assistant("A2", "R2"))
INLINE = conversation(user("Q1"), assistant("<think>\nR1\n</think>\n\nA1"))
LOOP = conversation(
    user("Q1"),
    {
        "role": "assistant",
        "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "name": "add", "tool_call_id": "call00001", "content": "3"},
    assistant("A2"),
)
SYSTEM_TWO = conversation(system("S"), user("Q1"), assistant("A1"), user("Q2"), assistant("A2"))
SYSTEM_FOUR = conversation(
    system("S"), *(message for number in range(1, 5) for message in (user(f"Q{number}"), assistant(f"A{number}")))
)
SEVEN = {
    "two": TWO,
    "think": THINK,
    "first thought": FIRST_THOUGHT,
    "inline": INLINE,
    "loop": LOOP,
    "system and two": SYSTEM_TWO,
    "system and four": SYSTEM_FOUR,
}


def shown(examples: Sequence[RenderedExample], eos: str = "</s>") -> str:
    """Examples in one line: ⟦learnt⟧, ↵ for a line break, ‖ between examples."""
    return " ‖ ".join(_shown(example, eos) for example in examples)


def _shown(example: RenderedExample, eos: str) -> str:
    pieces = [f"⟦{stretch.text}⟧" if stretch.learnt else stretch.text for stretch in example.stretches]
    if example.add_eos:
        pieces[-1] = pieces[-1].removesuffix("⟧") + eos + "⟧"
    return "".join(pieces).replace("⟧⟦", "").replace("\n", "↵")
