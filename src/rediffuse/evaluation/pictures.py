"""Same prompts, same seeds, no learning: pictures that can be compared along a run."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.evaluation import lengths
from rediffuse.evaluation.fixed_samples import FixedSamples
from rediffuse.evaluation.previews import View
from rediffuse.faults import count_of_broken, told
from rediffuse.images import grid, input_image, picture
from rediffuse.learning.average import PREFIX
from rediffuse.lookup import fingerprint
from rediffuse.lookup.build import build
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect, sampled
from rediffuse.runs import checkpoint, files, folder
from rediffuse.runs.folder import RunFolder
from rediffuse.types import (
    Batch,
    CleanSamples,
    Denoiser,
    Guided,
    Prompt,
    PromptSet,
    Rollout,
    SamplerFamily,
    TransitionsWithMeans,
)

INPUT_SIDE = 128
"""Pixels of an input image beside the samples."""


class Pictures:
    """Of a few prompts of the run's set; neither they nor their noise ever change."""

    def __init__(
        self,
        policy: DiffusionPolicy,
        prompts: PromptSet,
        config: Config,
        world: World,
        limits: RowLimits,
    ) -> None:
        options = config.evaluation
        drawn = distinct(prompts, options.num_prompts, config.seed)
        self.prompts = [prompt for prompt in drawn for _ in range(options.images_per_prompt)]
        self.columns = len(self.prompts) // options.images_per_prompt
        self.view = View(policy.denoiser.modality, prompts)
        self._policy, self._config, self._world, self._limits = policy, config, world, limits

    @property
    def draws(self) -> Draws:
        """The samples of an evaluation, which are the same in all of them."""
        return Draws(range(len(self.prompts)), self.prompts, (self._config.seed, "pictures"))

    @property
    def keep(self) -> type[Batch]:
        """What sampling keeps: trajectories with means if the KL is measured along them."""
        evaluation = self._config.evaluation
        with_steps = evaluation.kl and evaluation.is_as_in_training
        return TransitionsWithMeans if with_steps else CleanSamples

    def awaited(self) -> FixedSamples:
        """Returns the samples of an evaluation before any of them has arrived."""
        return FixedSamples(len(self.prompts), self._config.evaluation.images_per_prompt)

    def sample(self) -> FixedSamples:
        """Draws the samples of an evaluation."""
        made = self.awaited()
        for part in collect(self._policy, self.draws, self._limits, self._world, self.keep):
            made.receive(part)
        return made

    def save(self, folder: Path, made: Rollout) -> None:
        """Writes grid.png, a column per prompt, and every image by itself, with the sample beside
        it where that is another; beside the folder, the columns' prompts.
        """
        files.make_folder(folder.parent)
        with files.staged_folder(folder) as new:
            shown = self.view.preview(made.samples, made.prompts)
            for number, (sample, preview) in enumerate(zip(made.samples, shown, strict=True)):
                self._save(sample, preview, new / f"{number:03d}")
            grid(shown, self.columns).save(new / "grid.png")
        files.write_json(folder.parent / "prompts.json", self._columns())
        self._save_inputs(folder.parent / "inputs")

    def _save_inputs(self, folder: Path) -> None:
        """Writes thumbnails of the input images of each column's prompt as NNN.png."""
        step = len(self.prompts) // self.columns
        shown = {i: _input_images(prompt) for i, prompt in enumerate(self.prompts[::step])}
        if folder.exists() or not any(shown.values()):
            return
        with files.staged_folder(folder) as new:
            for i, images in shown.items():
                if images:
                    picture(torch.cat(images, dim=2)).save(new / f"{i:03d}.png")

    def _save(self, sample: Tensor, preview: Tensor, stem: Path) -> None:
        modality = self.view.modality
        if self.view.is_sample:
            modality.save(sample, stem)
            return
        picture(preview).save(stem.with_suffix(".png"))
        beside = stem.with_name(f"sample-{stem.name}") if modality.suffix == ".png" else stem
        modality.save(sample, beside)

    def refuse_others(self, samples: Path) -> None:
        """Raises ConfigError if a run that goes on would make other pictures than it did."""
        place, first = samples / "prompts.json", samples / "epoch-00000"
        if not place.exists() or not first.exists():
            return
        images = len(list(first.glob("[0-9]*.png")))
        if files.read_json(place) != self._columns() or images != len(self.prompts):
            raise ConfigError(
                "evaluation.num_prompts, evaluation.images_per_prompt, or the prompts: changed"
                f" since the run began, so its images ({images} in {first}) could not be compared"
                " with new ones. Undo the change, or start a new run."
            )

    def _columns(self) -> list[str]:
        return [prompt.shown for prompt in self.prompts[:: len(self.prompts) // self.columns]]


def tuned(run: RunFolder, name: str = "newest") -> DiffusionPolicy:
    """A checkpoint of a run, as pictures show it: its average where it has one. name: newest, best,
    or a number of epochs.
    """
    config = run.config()
    family, sampler = build("model", config.model), build("sampler", config.evaluation_sampler)
    before = files.read_json(run.path / "environment.json").get("files", {})
    for each in fingerprint.changes(before, config, "model."):
        warnings.warn(
            f"{each} changed since the run began: the images are not those of the model that was"
            " trained.",
            stacklevel=3,
        )
    saved = checkpoint.load(run.checkpoints, name)
    denoiser = family.load("cuda" if torch.cuda.is_available() else "cpu", config.seed)
    shown = {
        name: saved.weights.get(PREFIX + name, value)
        for name, value in saved.weights.items()
        if not name.startswith(PREFIX)
    }
    checkpoint.put_back(shown, denoiser.parameters())
    return evaluated_policy(denoiser, sampler, config)


def evaluated_policy(denoiser: Denoiser, sampler: SamplerFamily, config: Config) -> DiffusionPolicy:
    """Returns the policy with the sampler and the guidance of evaluations.

    Raises:
        ConfigError: If the model knows no guidance, but the configuration asks for some.
    """
    scale = config.evaluation.guidance_scale
    if scale is not None and not isinstance(denoiser, Guided):
        raise ConfigError(
            f"evaluation.guidance_scale: {config.model['name']} has no classifier-free guidance."
            " Leave it out."
        )
    return DiffusionPolicy(denoiser, sampler.bind(denoiser.schedule), scale)


def pictured(policy: DiffusionPolicy, draws: Draws) -> tuple[Tensor, list[str]]:
    """Samples on the host, and the faults of those that are not finite."""
    made = sampled(policy, draws)
    return made.samples, [fault for fault in made.faults if fault]


@torch.no_grad()
def before_and_after(
    run_dir: Path,
    prompt: str | Prompt,
    seed: int,
    out: Path | None = None,
    name: str = "newest",
    scene: PromptSet | None = None,
) -> Path:
    """The pretrained model's picture on the left, the tuned model's on the right, from the same
    noise. scene: a prompt set that may draw them.

    Warns of those that are not finite, and of a prompt that the text encoder reads only the begin
    of.
    """
    run = folder.existing(run_dir)
    policy = tuned(run, name)
    asked = Prompt(prompt) if isinstance(prompt, str) else prompt
    lengths.warn(policy.denoiser, [asked.text])
    draws = Draws([0], [asked], (seed, "sample"))
    with policy.using("start"):
        before, faults_before = pictured(policy, draws)
    after, faults_after = pictured(policy, draws)
    if faults := [*faults_before, *faults_after]:
        warnings.warn(f"{count_of_broken(len(faults), 2)} {told(faults)}", stacklevel=2)
    which = "" if name == "newest" else f"-{name}"
    path = out or run.samples / f"{_file_name(asked.shown)}-{seed}{which}.png"
    files.make_folder(path.parent)
    view = View(policy.denoiser.modality, scene)
    shown = view.preview(torch.cat([before, after]).cpu(), list(draws.prompts) * 2)
    save(grid(shown, columns=2), path)
    return path


def distinct(prompts: PromptSet, n: int, seed: int) -> Sequence[Prompt]:
    """Up to n different prompts: the first of many draws."""
    drawn = prompts.draw(20 * n, noise.generator(seed, "pictures"))
    return list({prompt.key: prompt for prompt in drawn}.values())[:n]


def save(image: Image.Image, path: Path) -> None:
    """Writes an image as a PNG file."""
    with files.staged(path) as new:
        image.save(new, format="PNG")


def _input_images(prompt: Prompt) -> list[Tensor]:
    """Returns the inputs of a prompt that are images, sorted by name. Other files are skipped."""
    found = []
    for _, value in sorted(prompt.inputs.items()):
        with suppress(ConfigError):
            found.append(input_image(value, INPUT_SIDE))
    return found


def _file_name(prompt: str) -> str:
    kept = "".join(letter if letter.isalnum() else "-" for letter in prompt.lower())
    return kept.strip("-")[:60] or "prompt"
