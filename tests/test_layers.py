"""The direction of imports: a module may import from lower layers, or within its own folder."""

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "rediffuse"
LAYERS = [
    {"deferred"},
    {"errors", "faults", "maths", "terminal"},
    {"config", "english", "hub", "images", "processes"},
    {"costs"},
    {"types", "modalities"},
    {"models", "samplers", "prompts", "algorithms", "policy", "runs"},
    {"rollout", "learning", "scoring", "verdict"},
    {"rewards", "lookup", "report", "callbacks"},
    {"trainer", "evaluation", "planning"},
    {"start"},
    {"cli", "__init__"},
    {"__main__"},
]
ROOMS = {"models", "samplers", "prompts", "algorithms", "rewards"}
"""None of them imports another."""
LAYER = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
ONLY_HOME = {
    "accelerate": {"processes"},
    "diffusers": {"models"},
    "peft": {"models"},
    "transformers": {"models", "rewards"},
    "huggingface_hub": {"hub"},
}


def room(parts):
    return Path(parts[0]).stem


def imported(tree):
    found = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    found += [
        f"{n.module}.{a.name}"
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.module == "rediffuse"
        for a in n.names
    ]
    return found + [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]


def wrong_imports(here, tree):
    """Names imported from the same or a higher layer, or foreign ones that have their home elsewhere."""
    wrong = []
    for name in imported(tree):
        top, _, rest = name.partition(".")
        if top in ONLY_HOME and here not in ONLY_HOME[top]:
            wrong.append(name)
        if top == "rediffuse" and rest:
            there = room(rest.split("."))
            if there != here and (LAYER[there] >= LAYER[here] or {here, there} <= ROOMS):
                wrong.append(name)
    return wrong


def test_imports_point_down():
    files = list(SRC.rglob("*.py"))
    assert len(files) > 30
    for path in files:
        here = room(path.relative_to(SRC).parts)
        assert not wrong_imports(here, ast.parse(path.read_text())), path


def test_an_import_that_points_up_would_be_seen():
    assert wrong_imports("maths", ast.parse("from rediffuse.types import Prompt"))
    assert wrong_imports("rewards", ast.parse("import rediffuse.algorithms.ddpo_is"))
    assert wrong_imports("report", ast.parse("from rediffuse import trainer"))
    assert wrong_imports("trainer", ast.parse("import accelerate"))
    assert not wrong_imports("trainer", ast.parse("from rediffuse.maths import noise"))


def test_the_maths_knows_torch_and_the_standard_library_only():
    import sys

    for path in (SRC / "maths").glob("*.py"):
        for name in imported(ast.parse(path.read_text())):
            top = name.split(".")[0]
            assert top in {"torch", "rediffuse"} or top in sys.stdlib_module_names, (
                f"{path.name} imports {name}"
            )


def test_nothing_loads_what_could_run_code():
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    calls = {
        "eval",
        "exec",
        "torch.load",
        "yaml.load",
        "yaml.unsafe_load",
        "pickle.load",
        "pickle.loads",
    }
    for path in [*SRC.rglob("*.py"), *SRC.parents[1].glob("pretraining/*.py")]:
        tree = ast.parse(path.read_text())
        assert not forbidden & {name.split(".")[0] for name in imported(tree)}, path
        called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert not calls & called, path


def names_from(tree):
    """(module, name) of all that is imported from the package."""
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rediffuse")
        for alias in node.names
    ]


def missing(tree):
    import importlib

    found = [(importlib.import_module(module), name) for module, name in names_from(tree)]
    return [
        name
        for module, name in found
        if not hasattr(module, name)
        and not (Path(str(module.__file__)).parent / f"{name}.py").exists()
    ]


def test_scripts_beside_the_package_import_what_there_is():
    scripts = [*SRC.parents[1].glob("benchmarks/*.py"), *SRC.parents[1].glob("pretraining/*.py")]
    assert len(scripts) > 8
    for path in scripts:
        assert not missing(ast.parse(path.read_text())), path


def test_an_import_of_what_there_is_not_would_be_seen():
    assert missing(ast.parse("from rediffuse.evaluation.monitor import read_picture"))
