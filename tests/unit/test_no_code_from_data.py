"""The source itself: nothing in it can turn data into code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("cli", "trainers", "checkpointing", "naming", "configs", "examples")
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "pickle5", "runpy"}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "yaml.load", "yaml.load_all", "yaml.unsafe_load",
    "yaml.full_load", "np.load", "numpy.load", "pandas.read_pickle", "pd.read_pickle", "importlib.import_module",
    "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "dist.all_gather_object", "dist.gather_object",
    "dist.broadcast_object_list", "torch.distributed.broadcast_object_list", "os.system", "os.popen", "subprocess.getoutput",
}  # fmt: skip
ALLOWED = {
    ("cli/lazy.py", "importlib.import_module"),  # of the commands in COMMANDS
    ("trainers/tracking/tracker.py", "importlib.import_module"),  # of the packages that the trackers name
    ("trainers/tasks/registry.py", "importlib.import_module"),  # of TASKS and FAMILIES
    # The .ckpt file that a user asks for: tensors and plain values, written for others and never read here.
    ("trainers/using/exporting.py", "torch.save"),
}
LOADERS = {"from_pretrained", "from_config", "load_dataset"}


def problems(source: str, where: str) -> Iterator[str]:
    """Everything in a module's source that could turn data into code."""
    for node in ast.walk(ast.parse(source)):
        line = f"{where}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{line} imports {name}" for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from _call_problems(node, line)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader"):
            yield f"{line} names {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code" and isinstance(node.value, str):
            continue  # a word in a message or in a list of forbidden keys; a dictionary key is looked at below
        elif isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            yield from (f"{line} has {key} in a dictionary" for key in keys if key in ("trust_remote_code", "use_safetensors"))


def _call_problems(node: ast.Call, line: str) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in CALLS:
        yield f"{line} calls {called}"
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    for name, wanted in (("trust_remote_code", False), ("use_safetensors", True), ("allow_pickle", False), ("shell", False)):
        value = given.get(name)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is wanted):
            yield f"{line} gives {name}={ast.unparse(value)}"
    loads = [called, *(ast.unparse(argument) for argument in node.args)]  # functools.partial(Auto….from_pretrained, …)
    auto = next((name for name in loads if name.startswith("Auto") and name.rsplit(".", 1)[-1] in LOADERS), None)
    if auto is None:
        return
    if "trust_remote_code" not in given:
        yield f"{line} calls {auto} without trust_remote_code=False"
    if auto == "AutoModelForCausalLM.from_pretrained" and "use_safetensors" not in given and "gguf_file" not in given:
        yield f"{line} calls {auto} without use_safetensors=True"


def test_no_code_comes_from_data(repository: Path) -> None:
    files = [path for package in PACKAGES for path in sorted((repository / package).rglob("*.py"))]
    assert len(files) > 50
    found = [problem for path in files for problem in problems(path.read_text(), path.relative_to(repository).as_posix())]
    assert [each for each in found if (each.split(":")[0], each.rpartition(" ")[2]) not in ALLOWED] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load('x')",
        "torch.save(model, path)",
        "eval('1')",
        "exec(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path)",
        "read(path, allow_pickle=True)",
        "AutoConfig.from_pretrained(path)",
        "AutoConfig.from_pretrained(path, trust_remote_code=settings.trust)",
        "AutoConfig.from_pretrained(path, trust_remote_code=True)",
        "functools.partial(AutoModelForCausalLM.from_pretrained, path, trust_remote_code=False)",
        "AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False, use_safetensors=None)",
        "load(**{'trust_remote_code': True})",
        "import joblib.numpy_pickle",
        "subprocess.run(text, shell=True)",
    ],
)
def test_what_the_scan_looks_for_it_finds(source: str) -> None:
    assert list(problems(source, "there"))
