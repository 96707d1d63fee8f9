"""How a run begins, is resumed and ends: its folder, its lock, its models, its adapter and its
page.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rediffuse.callbacks.ending import Ending
from rediffuse.callbacks.keeper import Keeper
from rediffuse.callbacks.lifetime import lifetime, refuse_other_objects
from rediffuse.callbacks.progress import Display
from rediffuse.callbacks.protocol import Callback
from rediffuse.config.reading import uncollected
from rediffuse.config.recipes import config_from, recipe_names
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.evaluation import lengths
from rediffuse.evaluation.callback import Evaluator
from rediffuse.evaluation.monitor import Monitor
from rediffuse.evaluation.pictures import Pictures, evaluated_policy
from rediffuse.learning import precision
from rediffuse.learning.update import Learner
from rediffuse.lookup import fingerprint, trust
from rediffuse.lookup.parts import Parts, assemble, completed, given_in_python, modality_of
from rediffuse.planning.decide import decided
from rediffuse.planning.measure import measured
from rediffuse.planning.work import useful_rows
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.report import page
from rediffuse.runs import audit, checkpoint, creation, files, folder, log
from rediffuse.runs.creation import discarded_on_error
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import MetricsRow
from rediffuse.scoring.journal import Paid
from rediffuse.scoring.run_scorer import RunScorer
from rediffuse.scoring.terms import Term, load_all
from rediffuse.trainer import Run
from rediffuse.types import Reward

UNKNOWN = "known to the first process alone"


def train(
    config: Config | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    reward: Reward | str | Mapping[str, Any] | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    measure: bool = False,
    **options: Any,
) -> list[MetricsRow]:
    """Fine-tunes as `config` says, leaves everything in `run_dir`, and returns one row of metrics
    per epoch.

    Args:
        config: A Config; or a recipe, as its name, the path of a YAML file, or keys and values.
        run_dir: A folder that does not exist yet; by default a new one in runs/.
        reward: Any `(images (B, 3, H, W) in [0, 1], prompts [B]) -> (B,)`, in place of the one that
            config names; or a name, or `{"name": …, option: …}`.
        callbacks: Called along the run, after the run's own.
        measure: Find the rows of a forward pass by timing a few, instead of by a rule.
        options: Those of the run, over those of config: `epochs=4, algorithm="ddpo_is",
            sampler={"num_steps": 10}`.

    Raises:
        ConfigError: Also where a file asks for what only the command line or a Config may allow, as
            other people's code.
    """
    with begin(config, run_dir, reward, callbacks=callbacks, measure=measure, **options) as run:
        return run.train()


def resume(
    run_dir: str | Path,
    epochs: int | None = None,
    reward: Reward | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    drop_damaged_lines: bool = False,
    accept_changed_files: bool = False,
) -> list[MetricsRow]:
    """Resumes a run from its newest whole checkpoint; the result equals an uninterrupted run.

    Args:
        epochs: A new total, more or fewer than were planned, but not fewer than are done.
        accept_changed_files: Go on although a model or another file of this machine is not what it
            was when the run began.
        drop_damaged_lines: Go on without those lines of the run's logs that were changed or lost;
            by default RunError names them.
    """
    options = {
        "drop_damaged_lines": drop_damaged_lines,
        "accept_changed_files": accept_changed_files,
    }
    with reopen(run_dir, epochs, reward, callbacks=callbacks, **options) as run:
        return run.train()


@contextmanager
def begin(
    config: Config | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    reward: Reward | str | Mapping[str, Any] | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    measure: bool = False,
    **options: Any,
) -> Iterator[Run]:
    """Begins a run whose epochs are made by hand. It takes the arguments of `train`; the run ends
    where the block ends.

    with rediffuse.begin("demo/incompressibility") as run:
        while epoch := run.step():
            print(epoch.rewards, epoch.advantages, epoch.rollout.trajectory)
    """
    if isinstance(reward, str | Mapping):
        reward, options = None, {**options, "reward": reward}
    given, config = config, config_from(config, options)
    if isinstance(given, str | Path) and str(given) not in recipe_names():
        trust.refuse(given, config, options)
    refuse_other_objects(callbacks)
    if reward is not None:
        config = given_in_python(config, reward)
    parts = assemble(config, reward)
    config = completed(config, parts)
    with World.joined(config.num_samples, config.stall_seconds) as world:
        config = _planned(config, parts, world, measure=measure)
        place = RunFolder(Path(run_dir or UNKNOWN))
        if world.is_main:
            path = Path(run_dir) if run_dir else creation.fresh_path("run")
            place = creation.create(path, config, world.device)
        with place.locked() if world.is_main else nullcontext():
            with (
                discarded_on_error(place, world),
                world.heart.busy("loading the models"),
                uncollected(),
            ):
                loaded = load_run(config, parts, place, world, callbacks)
            if world.is_main:
                _describe(loaded.run, loaded.pinned)
            with discarded_on_error(place, world, unless_saved=True), loaded.under_way():
                yield loaded.run


@contextmanager
def reopen(
    run_dir: str | Path,
    epochs: int | None = None,
    reward: Reward | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    drop_damaged_lines: bool = False,
    accept_changed_files: bool = False,
) -> Iterator[Run]:
    """Resumes a run whose epochs are made by hand. It takes the arguments of `resume`; the run ends
    where the block ends.
    """
    place = folder.existing(Path(run_dir))
    config = place.config()
    done = max(checkpoint.epochs(place.checkpoints), default=0)
    if epochs is not None and epochs < max(1, done):
        raise ConfigError(
            f"--epochs: {epochs} requested, but {done} epochs of {place.path} are done. Request"
            f" {max(1, done)} or more."
        )
    refuse_other_objects(callbacks)
    if reward is not None:
        config = given_in_python(config, reward)
    parts = assemble(config, reward)
    with (
        World.joined(config.num_samples, config.stall_seconds) as world,
        place.locked() if world.is_main else nullcontext(),
    ):
        config = replace(config, epochs=epochs or config.epochs)
        with world.heart.busy("loading the models and the checkpoint"), uncollected():
            if world.is_main and not accept_changed_files:
                fingerprint.refuse_changed(
                    files.read_json(place.path / "environment.json").get("files", {}), config
                )
            loaded = load_run(config, parts, place, world, callbacks)
            if world.is_main and accept_changed_files:
                place.note("files", fingerprint.of(config))
            loaded.restore(drop_damaged_lines=drop_damaged_lines)
        if world.is_main:
            place.write_config(config)
        with loaded.under_way():
            yield loaded.run


@dataclass(frozen=True)
class Loaded:
    """A run with those of its callbacks that beginning and resuming it need.

    Attributes:
        pinned: The configuration with the options of its rewards that loading made exact; in the
            first process, of all rewards.
        terms: The rewards that this process loaded; their threads end with the run.
    """

    run: Run
    display: Display
    evaluation: Evaluator
    pinned: Config
    terms: Sequence[Term]

    def restore(self, *, drop_damaged_lines: bool = False) -> None:
        """Puts back the newest whole checkpoint, or leaves the run at its start if there is none.

        Args:
            drop_damaged_lines: Go on without damaged lines of the logs instead of raising RunError.
        """
        run, place = self.run, self.run.folder
        if any(place.checkpoints.glob("epoch-*")):
            saved = checkpoint.load_newest(place.checkpoints)
            run.learner.load(saved)
            run.epoch = saved.epoch
            self.display.start_at(saved.epoch)
        if run.world.is_main:
            self.evaluation.pictures.refuse_others(place.samples)
            if not drop_damaged_lines:
                audit.refuse_gaps(place, run.epoch)
        run.scorer.paid.load(place.all_paid(), drop_damaged=drop_damaged_lines)
        run.world.wait_for_all()
        if run.world.is_main:
            checkpoint.set_aside_newer(place.checkpoints, run.epoch)
            for path in (place.metrics, place.rewards, place.monitor):
                log.keep_before(path, run.epoch, drop_damaged=drop_damaged_lines)
            place.drop_samples_from(run.epoch)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Inside, epochs are made, with the display and the thread of the rewards."""
        with self.display, ExitStack() as threads:
            for term in self.terms:
                threads.callback(term.caller.close)
            self._warn()
            with lifetime(self.run, self.run.callbacks):
                yield

    def _warn(self) -> None:
        """Warns of prompts that are too long and of updates that are mostly rounding errors."""
        run, learner = self.run, self.run.learner
        if run.world.is_main and run.epoch < run.config.epochs:
            texts, denoiser = lengths.known_texts(run.prompts, run.draw()), learner.policy.denoiser
            warnings = (
                lengths.warning(denoiser, texts),
                precision.warning(run.config, learner.algorithm, denoiser),
            )
            for warning in filter(None, warnings):
                self.display.say(warning)


def load_run(
    config: Config, parts: Parts, place: RunFolder, world: World, callbacks: Sequence[Callback] = ()
) -> Loaded:
    """Loads the models of a run. Raises ConfigError where they do not fit the configuration."""
    display, caller = Display(config.epochs, shown=world.is_main), Caller()
    needed = [n for n, each in enumerate(parts.rewards) if world.is_main or each.use.scored_share]
    terms = load_all([parts.rewards[n] for n in needed], world.device, caller)
    policy = _load_policy(config, parts, world)
    limits = RowLimits.of(config.rows_for)
    learner = Learner(policy, parts.algorithm, config, world, limits)
    evaluated = evaluated_policy(policy.denoiser, parts.evaluation_sampler, config)
    pictures = Pictures(evaluated, parts.prompts, config, world, limits)
    monitor = Monitor(policy, terms, config, place, world, limits, display.say)
    evaluation = Evaluator(pictures, monitor, display)
    ending = Ending(lambda: evaluation.course, page.write, display.say)
    own = (Keeper(), evaluation, ending, display)
    exact = list(config.rewards)
    for number, term in zip(needed, terms, strict=True):
        exact[number] = {**exact[number], **term.pinned}
    scorer = RunScorer(
        terms,
        config,
        world,
        Paid(place.paid(world.rank), exact),
        caller,
        display.say,
    )
    run = Run(config, place, world, parts.prompts, learner, scorer, callbacks=(*own, *callbacks))
    return Loaded(run, display, evaluation, replace(config, rewards=exact), terms)


def _planned(config: Config, parts: Parts, world: World, *, measure: bool) -> Config:
    """Returns the configuration with the rows of passes and `one_pass` decided."""
    if not measure:
        return decided(config, parts, world)
    with world.heart.busy("timing passes of the model"):
        timings = measured(config, parts, world.device, useful_rows(config, parts, world.size))
    return decided(config, parts, world, timings.rows)


def _load_policy(config: Config, parts: Parts, world: World) -> DiffusionPolicy:
    denoiser = parts.family.load(world.device, config.seed)
    if denoiser.modality.name != modality_of(parts.family):
        raise ConfigError(
            f"model.name: {config.model['name']} makes {denoiser.modality.name} samples. Its"
            " class must declare that before it is loaded, so that rewards can be checked:"
            f" modality = {denoiser.modality.name!r}."
        )
    policy = DiffusionPolicy(denoiser, parts.sampler.bind(denoiser.schedule))
    if not any(policy.sampler.noisy):
        raise ConfigError(
            "sampler.eta: no step of this sampler draws noise, so there is no likelihood to"
            " train with; set it above 0."
        )
    return policy


def _describe(run: Run, loaded: Config) -> None:
    """Notes in the folder what loading made exact.

    Args:
        run: The run, with its models.
        loaded: Its configuration, with the options of its rewards as loading made them exact.
    """
    pinned = run.learner.policy.denoiser.pinned
    if pinned or loaded != run.config:
        run.folder.pin(pinned, loaded)
    with run.world.heart.busy("reading the files of the models"):
        run.folder.note("files", fingerprint.of(run.folder.config()))
    trust.remember(run.folder.path, run.folder.config())
