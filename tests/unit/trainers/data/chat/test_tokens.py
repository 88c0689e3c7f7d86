"""Tokens of rendered examples: those of the whole text, cut where an answer begins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pitstop.trainers.data.chat import tokens as tokens_module
from pitstop.trainers.data.chat.conversation import RenderedExample, Stretch
from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.data.chat.tokens import Tokens
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import OWN, wheel_templates
from support.forms import form_of
from support.tokenizers_of_kinds import KINDS, tokenizer_of

PLAIN = (
    "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n\n{% else %}Assistant: {{ m.content }}{{ eos_token }}"
    "{{ '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
SHIPPED = ("qwen2_5", "llama3", "gemma", "phi3")
TEMPLATES = [*SHIPPED, "inst", "plain"]
CHAT = [
    {"role": "user", "content": "Was the patient given aspirin?"},
    {"role": "assistant", "content": "Yes, the patient was."},
    {"role": "user", "content": "Metformin?\nAnd the end?"},
    {"role": "assistant", "content": "- none\n  12, Ärger"},
]
MARKED = ("metaspace first", "metaspace always", "metaspace never", "legacy")
LOSSLESS = ("byte-level", *MARKED)
PIECES = ["Yes", " ", "\n", ".", "the", " aspirin", "12", "▁", ":", "  ", "\n\n", "\t", "e\u0301", "北", "<|end|>", "<|end", "|>"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


def _template(name: str) -> str:
    return wheel_templates()[name] if name in SHIPPED else {**OWN, "plain": PLAIN}[name]


def _example(tokens: Tokens, *stretches: str, add_eos: bool = False) -> Example:
    """An example of stretches that are context and learnt in turn."""
    rendered = RenderedExample([Stretch(text, bool(number % 2)) for number, text in enumerate(stretches)], add_eos)
    result = tokens.examples_of([rendered])[0]
    assert isinstance(result, Example), result
    return result


def _whole(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return list(ids) if ids[:1] == [tokenizer.bos_token_id] else [tokenizer.bos_token_id, *ids]


def _learnt(tokenizer: Any, example: Example) -> list[str]:
    """The learnt tokens, with ``|`` between parts that do not touch."""
    words: list[str] = []
    touching = True
    for token, learn in zip(tokenizer.convert_ids_to_tokens(example.input_ids.tolist()), example.supervised, strict=True):
        if learn:
            words += [token] if touching or not words else ["|", token]
        touching = bool(learn)
    return words


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers_where_no_token_crosses_a_joint(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, _template(template))
    chat = ChatRenderer(tokenizer)
    result = chat.encode(form_of(tokenizer, {"messages": CHAT}))
    rendered = str(tokenizer.apply_chat_template(CHAT, tokenize=False))
    whole, ids = _whole(tokenizer, rendered), result.input_ids.tolist()
    cues = [str(tokenizer.apply_chat_template(CHAT[:end], tokenize=False, add_generation_prompt=True)) for end in (1, 3)]
    prompts = [chat.conversation_ids(CHAT[:end]) for end in (1, 3)]
    assert prompts == [_whole(tokenizer, cue) for cue in cues]
    crossed = any(whole[: len(prompt)] != prompt for prompt in prompts)
    assert crossed == ((kind, template) in CROSSED)
    first = result.supervised.tolist().index(True)
    assert ids[:first] == prompts[0]
    if not crossed:
        assert ids == whole[: len(ids)]
        assert not tokenizer.decode(whole[len(ids) :], skip_special_tokens=True).strip()
        assert ids[: len(prompts[1])] == prompts[1]


CROSSED = {("joining lines", template) for template in SHIPPED} | {
    (kind, "llama3") for kind in KINDS if kind.startswith("byte-level")
}
"""Kinds and templates in which an answer melts into what is in front of it, or changes it: GPT-2's pattern parts two line breaks in front
of a word. (Llama 3's own pattern does not.)"""


@pytest.mark.parametrize(
    ("kind", "stretches", "expected"),
    [
        ("metaspace first", ("<|user|>Aspirin?<|assistant|>", "Yes.</s>"), ["Yes", ".", "</s>"]),
        ("metaspace always", ("<|user|>Aspirin?<|assistant|>\n", "Yes.</s>"), ["Yes", ".", "</s>"]),
        ("metaspace always", ("<|user|>Aspirin?<|assistant|>", "Yes.</s>"), ["▁Yes.", "</s>"]),
        ("metaspace never", ("Aspirin?", " Yes."), ["▁Yes."]),
        ("legacy", ("[INST] Aspirin? [/INST]", " Yes.</s>"), ["▁Yes.", "</s>"]),
        ("byte-level", ("Answer:", " Yes."), ["ĠYes", "."]),
        ("byte-level", ("Answer: ", "Yes."), ["Yes", "."]),
        ("legacy", ("Answer: ", "Yes."), ["Yes", "."]),
        ("byte-level", ("Was the patient given aspirin or metformin? Answer: ", "Yes."), ["Yes", "."]),
        ("byte-level", ("Was the patient given aspirin or metformin?\n\n", "Yes."), ["Yes", "."]),
        ("byte-level", ("Was the patient given aspirin or metformin?  ", "Yes."), ["Yes", "."]),
        *[("byte-level", (" " * count, "Yes."), ["Yes", "."]) for count in (40, 41, 42, 43, 44, 45)],
        ("byte-level with trimmed offsets", ("Was the patient given aspirin or metformin?  ", "Yes."), ["Yes", "."]),
        ("byte-level with trimmed offsets", (" " * 40, "Yes."), ["Yes", "."]),
        ("metaspace always", ("<|user|>Aspirin?<|assistant|>Answer: ", "Yes."), ["Yes", "."]),
        ("byte-level", ("Was the patient given <|assis", "tant|>."), ["t", "ant", "|", ">", "."]),
        ("metaspace first", ("Answer: ", "Yes."), ["Yes", "."]),
    ],
)
def test_the_tokens_of_an_answer(kind: str, stretches: tuple[str, str], expected: list[str]) -> None:
    tokenizer = tokenizer_of(kind)
    result = _example(Tokens(tokenizer), *stretches)
    assert _learnt(tokenizer, result) == expected
    assert result.input_ids.tolist()[: -len(expected)] == _whole(tokenizer, stretches[0])


def test_a_token_that_runs_beyond_an_answer_is_not_learnt() -> None:
    tokenizer = tokenizer_of("byte-level")
    stretches = ("User: Aspirin?\n\nAssistant:", " Yes, asp", "irin.\n\nUser: Metformin?\n\nAssistant:", " No.")
    result = _example(Tokens(tokenizer), *stretches, add_eos=True)
    assert result.input_ids.tolist() == [*_whole(tokenizer, "".join(stretches)), tokenizer.eos_token_id]
    assert _learnt(tokenizer, result) == ["ĠYes", ",", "|", "ĠNo", ".", "</s>"]
    assert "Ġaspirin" in tokenizer.convert_ids_to_tokens(result.input_ids.tolist())


def test_an_answer_that_melts_into_its_prompt_does_not_change_what_is_behind_it() -> None:
    tokenizer = tokenizer_of("byte-level")
    result = _example(Tokens(tokenizer), "Q: ", "Yes.</s>", "<|user|>Aspirin?<|assistant|>", "No: ", "A: ", "Yes")
    words = tokenizer.convert_ids_to_tokens(result.input_ids.tolist())
    assert words[words.index("Yes") - 1] == "Ġ"
    behind = tokenizer("</s><|user|>Aspirin?<|assistant|>No: A: ", add_special_tokens=False)["input_ids"]
    start = words.index("</s>")
    assert result.input_ids[start : start + len(behind)].tolist() == behind
    assert words[start + len(behind) :] == ["Yes"]


def test_an_answer_is_not_changed_by_a_later_one_that_melts_into_what_is_behind_it() -> None:
    """With the merges cd, bc, ab the whole is x ab cd, and what is in front of the second answer is x a bc by itself."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["</s>", *"xabcde", "cd", "bc", "ab"])}
    backend = Tokenizer(models.BPE(vocabulary, [("c", "d"), ("b", "c"), ("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert (tokenizer.tokenize("xabcd"), tokenizer.tokenize("xabc")) == (["x", "ab", "cd"], ["x", "a", "bc"])
    result = _example(Tokens(tokenizer), "x", "ab", "c", "de")
    assert tokenizer.convert_ids_to_tokens(result.input_ids.tolist()) == ["x", "ab", "cd", "e"]
    assert _learnt(tokenizer, result) == ["ab", "|", "e"]


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    prompt=TEXTS,
    answer=TEXTS.filter(bool),
    cue=st.sampled_from(["", "<|assistant|>", "<|assistant|>\n", "Answer:"]),
)
@example(kind="byte-level", prompt="a ", answer="\u0301b", cue="")
@example(kind="byte-level", prompt="two\n", answer="\nYes", cue="")
@example(kind="stripping", prompt="Yes \n", answer=" Yes", cue="")
def test_an_example_is_the_prompts_tokens_and_the_answers(kind: str, prompt: str, answer: str, cue: str) -> None:
    tokenizer = tokenizer_of(kind)
    tokens, prompt = Tokens(tokenizer), prompt + cue
    rendered = RenderedExample([Stretch(prompt, False), Stretch(answer, True)], add_eos=True)
    (result,) = tokens.examples_of([rendered])
    assert isinstance(result, Example)
    ids, whole, front = result.input_ids.tolist(), _whole(tokenizer, prompt + answer), tokens.prompt_ids(prompt)
    assert front == _whole(tokenizer, prompt)
    assert ids[: len(front)] == front and ids[-1] == tokenizer.eos_token_id
    assert result.supervised.tolist() == [number >= max(1, len(front)) for number in range(len(ids))]
    if whole[: len(front)] == front:
        assert ids[:-1] == whole
    elif kind in LOSSLESS and "▁" not in prompt + answer:
        decoded = [tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (front, ids[:-1])]
        assert decoded[1] == decoded[0] + answer


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(sorted(KINDS)), texts=st.lists(TEXTS.filter(bool), min_size=2, max_size=8))
def test_several_answers_each_stand_behind_their_prompt(kind: str, texts: list[str]) -> None:
    tokenizer = tokenizer_of(kind)
    tokens = Tokens(tokenizer)
    stretches = [Stretch(text, bool(number % 2)) for number, text in enumerate(texts[: len(texts) // 2 * 2])]
    (result,) = tokens.examples_of([RenderedExample(stretches)])
    if isinstance(result, BadRecord):
        assert str(result) == "it has no token to learn"
        return
    ids, text = result.input_ids.tolist(), "".join(stretch.text for stretch in stretches)
    fronts = [_whole(tokenizer, "".join(s.text for s in stretches[:end])) for end in range(1, len(stretches), 2)]
    whole = _whole(tokenizer, text)
    assert ids[: len(fronts[0])] == fronts[0]
    if all(whole[: len(front)] == front for front in fronts):
        assert ids == whole
    elif kind == "byte-level":
        assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    prompt=st.lists(TEXTS, min_size=6, max_size=12).map("".join),
    end=st.sampled_from(["\n\n", "\n", "  ", " ", "?", " the", ":"]),
    answer=st.tuples(st.sampled_from(["Yes", " Yes", "\n", " ", "12", "."]), TEXTS).map("".join),
)
def test_a_joint_is_judged_by_what_is_near_it_as_by_the_whole_prompt(kind: str, prompt: str, end: str, answer: str) -> None:
    tokens = Tokens(tokenizer_of(kind))
    rendered = [RenderedExample([Stretch(prompt + end, False), Stretch(answer, True)], add_eos=True)]
    near = tokens.examples_of(rendered)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "_NEAR", 10**6)
        far = tokens.examples_of(rendered)[0]
    assert isinstance(near, Example) and isinstance(far, Example)
    assert near.input_ids.tolist() == far.input_ids.tolist()


def test_a_cue_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, calls = tokenizer_of("legacy"), []
    tokens = Tokens(tokenizer)
    tokenise = tokens._tokenised
    monkeypatch.setattr(tokens, "_tokenised", lambda texts: calls.append(list(texts)) or tokenise(texts))
    for question in ("one", "two"):
        _example(tokens, f"<|user|>{question}<|assistant|>\n", "Yes.</s>")
    assert [text for texts in calls for text in texts if text.endswith("\n")] == ["<|assistant|>\n"]


def test_a_tokenizer_that_tells_no_places_gives_the_same_tokens() -> None:
    tokenizer = tokenizer_of("metaspace first")

    class Slow:
        """One that is written in Python: its tokens have no offsets."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, texts: Any, **options: Any) -> Any:
            from transformers import BatchEncoding

            return BatchEncoding(dict(tokenizer(texts, **options)))

    for stretches in (
        ("<|user|>Aspirin?<|assistant|>\n", "Yes.</s>", "\n<|user|>12<|assistant|>\n", "No.</s>"),
        ("Answer: ", "Yes."),
    ):
        slow, fast = _example(Tokens(Slow()), *stretches), _example(Tokens(tokenizer), *stretches)
        assert slow.input_ids.tolist() == fast.input_ids.tolist()
        assert slow.supervised.tolist() == fast.supervised.tolist()


def test_one_bad_text_among_others_is_named_alone() -> None:
    tokens = Tokens(tokenizer_of("byte-level"))
    rendered = [RenderedExample([Stretch("Q", False), Stretch(text, True)]) for text in ("Yes", "half \ud83d", "No")]
    first, second, third = tokens.examples_of(rendered)
    assert isinstance(first, Example) and isinstance(third, Example)
    assert isinstance(second, BadRecord) and "half of a surrogate pair" in str(second)
