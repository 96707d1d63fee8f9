"""A round of reward-weighted regression as large as the paper's, in the host memory of a laptop."""

import subprocess
import sys
from pathlib import Path

import pytest

ROUND = """
import sys
from pathlib import Path
import tiny
from rediffuse.lookup.parts import assemble
from rediffuse.runs.folder import RunFolder
from rediffuse.start import load_run
from rediffuse.processes.world import World

def peak_gibibytes():  # not getrusage's, which begins with that of whoever started this process
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20

plan = {"prompts_per_epoch": 10_240, "images_per_prompt": 1, "updates_per_epoch": 80, "micro_batch_size": 64}
algorithm = {"name": "rwr", "inner_epochs": 1, "learns_from": sys.argv[1]}
config = tiny.config(**plan, model={"name": f"{tiny.FILE}:Large"}, sampler={"num_steps": 2}, algorithm=algorithm)
run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World()).run
before = peak_gibibytes()
prompts = run.draw()
rollout, scores = run.sample(prompts)
assert rollout.trajectory.latents.shape == (10_240, 4, 64, 64)
run.learner.update(rollout, run.learner.advantages(scores.rewards, prompts), 0)
print(peak_gibibytes() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux says how much a process held at most"
)
@pytest.mark.parametrize(("learns_from", "least"), [("latents", 0.6), ("samples", 1.2)])
def test_10240_latents_of_stable_diffusion_stay_within_2_gigabytes(learns_from, least):
    """They are 0.63 GiB, and as much again is the law of images encoded again; with every state on their way there they
    would be three times that, and 52 times at 50 steps.
    """
    command = [sys.executable, "-c", ROUND, learns_from]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert least < float(done.stdout.splitlines()[-1]) < 2 * 1e9 / 2**30
