"""Two chat templates that Pitstop ships, for models that bring none: one of plain words, one in ChatML."""

from __future__ import annotations

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n\n"
    "{% elif message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
    "{% else %}{{ raise_exception('only system, user and assistant are known') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The system text and a blank line, ``User: …``, ``Assistant: …`` and the end of sequence: all that the tokenizer needs."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Turns between ``<|im_start|>`` and ``<|im_end|>``, which the vocabulary has to hold: no token is ever added."""

SHIPPED = {"plain": PLAIN, "chatml": CHATML}
"""By the name that ``--chat-template`` takes."""

TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>")}
"""What each needs in the vocabulary besides the end of sequence."""
