"""What a run writes epoch by epoch: the rows of its logs, and the state from which it can be
resumed.
"""

from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.errors import Interrupted, LostProcessError, NonFiniteError, RewardError
from rediffuse.runs import checkpoint, files, log
from rediffuse.runs.checkpoint import Checkpoint
from rediffuse.scoring.scores import journal

SMALL_BYTES = 100_000_000
"""A checkpoint of this size or less, such as an adapter's, stays for every evaluation, so that an
earlier one can be exported.
"""


class Keeper(Callback):
    """Appends to the logs, writes checkpoints, and holds a copy of the last whole epoch's state
    until it is on disk.
    """

    def __init__(self) -> None:
        self._unsaved: Checkpoint | None = None
        self._first_epoch = 0

    def run_begins(self, run: RunState) -> None:
        self._first_epoch = run.epoch
        if run.world.is_main and run.epoch not in checkpoint.epochs(run.folder.checkpoints):
            self._unsaved = run.learner.state(run.epoch).copied()
        run.world.heart.rescue = lambda: self._save(run, self._unsaved)

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        if run.world.is_main:
            log.append(run.folder.rewards, journal(epoch.number, epoch.prompts, epoch.scores))
            log.append(run.folder.metrics, [epoch.metrics])
        if run.epoch % run.config.logging.checkpoint_every == 0 or run.epoch == run.config.epochs:
            run.world.together(lambda: self._save(run, run.learner.state(run.epoch)))
            run.scorer.paid.clear()
        elif run.world.is_main:
            self._unsaved = run.learner.state(run.epoch).copied()

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        """A state whose samples were not finite is in doubt, so that it is not saved."""
        if isinstance(error, NonFiniteError) and error.of_the_policy:
            raise NonFiniteError(f"{error}{self._set_aside(run)}", of_the_policy=True) from error
        if error is None:
            run.world.together(lambda: self._finish(run))
        elif isinstance(error, Interrupted | RewardError | LostProcessError | NonFiniteError):
            self._save(run, self._unsaved)

    def _save(self, run: RunState, state: Checkpoint | None) -> None:
        if run.world.is_main and state is not None:
            lasting = run.config.evaluation.is_due if state.num_bytes <= SMALL_BYTES else None
            with run.world.heart.saving, run.world.heart.busy("writing a checkpoint"):
                checkpoint.save(
                    run.folder.checkpoints, state, run.config.logging.keep_checkpoints, lasting
                )
                self._unsaved = None

    def _finish(self, run: RunState) -> None:
        """Also removes the rewards of an unfinished epoch that more processes left, if the run had
        more of them once.
        """
        self._save(run, self._unsaved)
        run.scorer.paid.clear()
        for path in run.folder.all_paid() if run.world.is_main else ():
            files.remove(path)

    def _set_aside(self, run: RunState) -> str:
        """Renames the newest checkpoint where its policy samples nothing finite and an older one is
        left. Returns what to report.

        A run that was resumed from that checkpoint leaves it, because something else may be at
        fault there.
        """
        epoch, every = run.epoch, run.config.logging.checkpoint_every
        saved = checkpoint.epochs(run.folder.checkpoints) if run.world.is_main else []
        older = max((each for each in saved if each < epoch), default=0 if epoch <= every else None)
        if epoch not in saved or epoch == 0 or older is None:
            return ""
        if epoch == self._first_epoch:
            return (
                f" If epoch {older} was still well, move checkpoints/epoch-{epoch:05d} away:"
                " resume then goes on from there."
            )
        checkpoint.set_aside_newer(run.folder.checkpoints, epoch - 1)
        return f" The state of epoch {epoch} is put aside: resume goes on from epoch {older}."
