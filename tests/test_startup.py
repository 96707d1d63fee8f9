"""What commands import: each of these libraries takes up to seconds, which people wait for."""

import subprocess
import sys

import pytest

from rediffuse.config.recipes import recipe_names

HEAVY = {"accelerate", "diffusers", "inflect", "matplotlib", "peft", "torch", "transformers"}
SHOW = f"import sys\ndef show(): print('imported', *sorted({HEAVY} & sys.modules.keys()), flush=True)\n"
COMMANDS = "from rediffuse.cli import run\nfor command in {}:\n    run(command)"


def imports(program):
    """What of HEAVY a new process had imported whenever it called `show`, and at its end."""
    program = f"{SHOW}\nimport atexit; atexit.register(show)\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith("imported")]
    return [set(names) for _, *names in shown]


def test_planning_any_recipe_imports_nothing_heavy():
    assert imports(COMMANDS.format([["plan", name] for name in recipe_names()])) == [set()]


@pytest.mark.parametrize(
    "command", [["list"], ["train", "--help"], ["plan", "--algorithm", "ddpo_is"]]
)
def test_short_commands_import_nothing_heavy(command):
    assert imports(COMMANDS.format([command])) == [set()]


def test_torch_is_imported_at_its_first_use():
    program = "from rediffuse.deferred import torch; show(); torch.zeros(1)"
    assert imports(program) == [set(), {"torch"}]


FIRST_SAMPLES = """
import os, rediffuse

class First(rediffuse.Callback):
    def sampled(self, run, batch):
        show()
        from rediffuse import english
        from rediffuse.report.charts import Chart, Line, svg
        english.plural("axolotl")
        svg(Chart([Line([0, 1], [0, 1])]), "a")
        show()
        os._exit(0)

rediffuse.train("demo/counting", {folder!r}, callbacks=[First()], **{options})
"""
SMALL = {
    "prompts_per_epoch": 4, "images_per_prompt": 1, "micro_batch_size": 4,
    "sampler": {"num_steps": 2}, "evaluation": {"every": 0},
}  # fmt: skip


def test_the_demo_samples_without_inflect_and_matplotlib(tmp_path):
    """The control is what the process imports then, for a word beyond the table and for a chart."""
    before, after = imports(FIRST_SAMPLES.format(folder=str(tmp_path / "run"), options=SMALL))
    assert before == HEAVY - {"inflect", "matplotlib"}
    assert after == HEAVY
