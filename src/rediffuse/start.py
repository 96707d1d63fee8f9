"""How a run begins, is resumed and ends: its folder, its lock, its models, its adapter and its
page.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rediffuse.callbacks.keeper import Keeper
from rediffuse.callbacks.progress import Display
from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.config.schema import Config, config_from, recipe_names
from rediffuse.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    LostProcessError,
    RediffuseError,
    RewardError,
    quoted,
)
from rediffuse.evaluation import lengths
from rediffuse.evaluation.callback import Evaluator
from rediffuse.evaluation.monitor import Monitor
from rediffuse.evaluation.pictures import Pictures, evaluated_policy
from rediffuse.learning.update import Learner
from rediffuse.lookup import fingerprint, trust
from rediffuse.lookup.build import Parts, assemble, completed, given_in_python, modality_of
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.report import page
from rediffuse.runs import audit, checkpoint, export, files, folder, log
from rediffuse.runs.folder import RunFolder
from rediffuse.scoring.journal import Paid
from rediffuse.scoring.run_scorer import RunScorer
from rediffuse.scoring.terms import Combination, load_all
from rediffuse.trainer import Run
from rediffuse.types import Metrics, Reward
from rediffuse.verdict import verdict

UNKNOWN = "known to the first process alone"


def train(
    config: Config | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    reward: Reward | str | Mapping[str, Any] | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> list[Metrics]:
    """Fine-tunes as `config` says, leaves everything in `run_dir`, and returns one row of metrics
    per epoch.

    Args:
        config: A Config; or a recipe, as its name, the path of a YAML file, or keys and values.
        run_dir: A folder that does not exist yet; by default a new one in runs/.
        reward: Any `(images (B, 3, H, W) in [0, 1], prompts [B]) -> (B,)`, in place of the one that
            config names; or a name, or `{"name": …, option: …}`.
        callbacks: Called along the run, after the run's own.
        options: Those of the run, over those of config: `epochs=4, algorithm="ddpo_is",
            sampler={"num_steps": 10}`.

    Raises:
        ConfigError: Also where a file asks for what only the command line or a Config may allow, as
            other people's code.
    """
    with begin(config, run_dir, reward, callbacks=callbacks, **options) as run:
        return run.train()


def resume(
    run_dir: str | Path,
    epochs: int | None = None,
    reward: Reward | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    drop_damaged_lines: bool = False,
    accept_changed_files: bool = False,
) -> list[Metrics]:
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
    _refuse_other_objects(callbacks)
    if reward is not None:
        config = given_in_python(config, reward)
    parts = assemble(config, reward)
    config = completed(config, parts)
    with World.joined(config.num_samples, config.stall_seconds) as world:
        place = (
            _new_folder(run_dir, config, world)
            if world.is_main
            else RunFolder(Path(run_dir or UNKNOWN))
        )
        with place.locked() if world.is_main else nullcontext():
            with _discarded_on_error(place, world), world.heart.busy("loading the models"):
                loaded = load_run(config, parts, place, world, callbacks)
            if world.is_main:
                _describe(loaded.run, loaded.pinned)
            with _discarded_on_error(place, world, unless_saved=True), loaded.under_way():
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
            f"--epochs: {epochs} asked, but {done} epochs of {place.path} are done. Ask for"
            f" {max(1, done)} or more."
        )
    _refuse_other_objects(callbacks)
    if reward is not None:
        config = given_in_python(config, reward)
    parts = assemble(config, reward)
    with (
        World.joined(config.num_samples, config.stall_seconds) as world,
        place.locked() if world.is_main else nullcontext(),
    ):
        config = replace(config, epochs=epochs or config.epochs)
        with world.heart.busy("loading the models and the checkpoint"):
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
    """A run with those of its callbacks that beginning and resuming it need."""

    run: Run
    display: Display
    evaluation: Evaluator
    pinned: Config
    """With the options of its rewards that loading made exact; in the first process, of all."""

    def restore(self, *, drop_damaged_lines: bool = False) -> None:
        """Puts back the newest whole checkpoint, or leaves the run at its start if none was
        reached.

        drop_damaged_lines: of the logs, instead of refusing to go on.
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

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Inside, epochs are made. Every callback that has seen the run begin sees it end, also
        where it fails.
        """
        with self.display, closing(self.run.scorer.caller):
            self._warn_of_long_prompts()
            begun: list[Callback] = []
            try:
                for callback in self.run.callbacks:
                    callback.run_begins(self.run)
                    begun.append(callback)
                yield
            except BaseException as error:
                _end(self.run, begun, error)
            else:
                _end(self.run, begun, None)

    def _warn_of_long_prompts(self) -> None:
        run = self.run
        if run.world.is_main and run.epoch < run.config.epochs:
            texts = lengths.known_texts(run.prompts, run.draw())
            if warning := lengths.warning(run.learner.policy.denoiser, texts):
                self.display.say(warning)


def load_run(
    config: Config, parts: Parts, place: RunFolder, world: World, callbacks: Sequence[Callback] = ()
) -> Loaded:
    """Loads the models of a run. Raises ConfigError where they do not fit the configuration."""
    display, caller = Display(config.epochs, shown=world.is_main), Caller()
    terms = load_all(
        [term for term in parts.rewards if world.is_main or term.use.scored_share],
        world.device,
        caller,
    )
    denoiser = parts.family.load(world.device, config.seed)
    if denoiser.modality.name != modality_of(parts.family):
        raise ConfigError(
            f"model.name: {config.model['name']} makes {denoiser.modality.name} samples. Its class"
            " must say so before it is loaded, so that rewards are checked: modality ="
            f" {denoiser.modality.name!r}."
        )
    policy = DiffusionPolicy(denoiser, parts.sampler.bind(denoiser.schedule))
    if not any(policy.sampler.noisy):
        raise ConfigError(
            "sampler.eta: no step of this sampler draws anything, so there is nothing to learn;"
            " set it above 0."
        )
    learner = Learner(policy, parts.algorithm, config, world)
    evaluated = evaluated_policy(denoiser, parts.evaluation_sampler, config)
    pictures = Pictures(evaluated, parts.prompts, config, world)
    monitor = Monitor(policy, terms, config, place, world, display.say, caller)
    evaluation = Evaluator(pictures, monitor, display)
    own = (Keeper(), evaluation, Ending(evaluation, display.say), display)
    exact = [{**entry, **term.pinned} for entry, term in zip(config.rewards, terms, strict=False)]
    scorer = RunScorer(
        Combination(terms, config.scoring),
        config,
        world,
        Paid(place.paid(world.rank), exact),
        caller,
        display.say,
    )
    run = Run(config, place, world, parts.prompts, learner, scorer, callbacks=(*own, *callbacks))
    return Loaded(run, display, evaluation, replace(config, rewards=exact))


class Ending(Callback):
    """Exports the adapter at the end, and writes the page then and every few epochs.

    Of a run that is stopped, or whose reward fails, both are those of the last whole epoch.
    """

    def __init__(self, evaluation: Evaluator, say: Callable[[str], None]) -> None:
        self._evaluation, self._say = evaluation, say

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        every = run.config.logging.report_every
        if run.world.is_main and every and run.epoch % every == 0 and run.epoch < run.config.epochs:
            self._report(run)

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        if error is None:
            run.world.together(lambda: self._finish(run) if run.world.is_main else None)
        elif run.world.is_main and isinstance(error, Interrupted | RewardError | LostProcessError):
            self._leave(run)

    def _finish(self, run: RunState) -> None:
        """Exports the newest checkpoint, or the best one of an over-optimised run, unless that is
        only to be warned of.
        """
        epochs, course = len(log.read(run.folder.metrics)), self._evaluation.course
        if course.fall and course.best and run.config.evaluation.on_overoptimisation != "warn":
            try:
                saved = checkpoint.load(run.folder.checkpoints, "best")
                run.learner.load_weights(saved)
                epochs = saved.epoch
            except CheckpointError as error:
                self._say(f"{error} The last checkpoint is exported instead.")
        self._export(run, epochs)

    def _leave(self, run: RunState) -> None:
        if run.epoch == 0:
            self._say("No epoch was finished, so there is no adapter yet.")
            return
        run.learner.load_weights(checkpoint.load(run.folder.checkpoints, str(run.epoch)))
        self._export(run, run.epoch)
        self._say(
            f"The adapter and the page are those of the last whole epoch: {run.epoch} of"
            f" {run.config.epochs} are done."
        )

    def _export(self, run: RunState, epochs: int) -> None:
        with run.world.heart.busy("writing the adapter"), run.learner.average.shown():
            export.adapter(run.learner.policy.denoiser, run.folder, epochs)
        self._report(run)

    def _report(self, run: RunState) -> None:
        """Writes the page. A failed page never stops a run: the error is printed, and `rediffuse
        report` can make it anew.
        """
        try:
            with run.world.heart.busy("writing the page"):
                verdict.write(run.folder)
                page.write(run.folder)
        except Exception as error:
            self._say(f"the page could not be written: {type(error).__name__}: {error}")


def _end(run: Run, callbacks: Sequence[Callback], error: BaseException | None) -> None:
    """Tells each callback of the end, also where one before it fails, and raises the last error if
    there is any.
    """
    for callback in callbacks:
        try:
            callback.run_ends(run, error)
        except BaseException as own:
            error = own
    if error is not None:
        raise error


def _refuse_other_objects(callbacks: Sequence[Callback]) -> None:
    for each in callbacks:
        if isinstance(each, type) or not isinstance(each, Callback):
            raise ConfigError(
                f"callbacks: {quoted(each)} is no callback. Derive a class from"
                " rediffuse.Callback, and pass an object of it."
            )


def _new_folder(run_dir: str | Path | None, config: Config, world: World) -> RunFolder:
    return folder.create(
        Path(run_dir) if run_dir else folder.fresh_path("run"), config, world.device
    )


def _describe(run: Run, loaded: Config) -> None:
    """Notes in the folder what loading made exact. loaded: the configuration with the rewards'
    options as they are by now.
    """
    pinned = run.learner.policy.denoiser.pinned
    if pinned or loaded != run.config:
        run.folder.pin(pinned, loaded)
    with run.world.heart.busy("reading the files of the models"):
        run.folder.note("files", fingerprint.of(run.folder.config()))
    trust.remember(run.folder.path, run.folder.config())


@contextmanager
def _discarded_on_error(
    place: RunFolder, world: World, *, unless_saved: bool = False
) -> Iterator[None]:
    """Removes the new folder where the run fails inside, so that it does not stand in the way of
    the next try.

    unless_saved: keeps it where an epoch is done, or the error is one after which the run can be
    resumed.
    """
    try:
        yield
    except Exception as error:
        resumable = isinstance(error, RediffuseError) and not isinstance(error, ConfigError)
        if world.is_main and not (unless_saved and (resumable or place.metrics.exists())):
            folder.discard(place)
        raise
