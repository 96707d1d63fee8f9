"""The callback that writes logs and checkpoints."""

from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.errors import Interrupted, LostProcessError, NonFiniteError, RewardError
from rediffuse.runs import checkpoint, files, log
from rediffuse.runs.checkpoint import Checkpoint
from rediffuse.scoring.scores import journal

SMALL_BYTES = 100_000_000
"""Checkpoints up to this size, such as those of adapters, are kept for every evaluation, so that an
earlier one can be exported.
"""


class Keeper(Callback):
    """Appends to the logs, saves checkpoints, and keeps a copy of the state after the last
    completed epoch until it is saved.
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
        rows = run.learner.limits.rows()
        if run.world.is_main and any(run.config.rows_for(each) != rows[each] for each in rows):
            run.folder.keep_rows(rows)
        if run.world.is_main:
            log.append(run.folder.rewards, journal(epoch.number, epoch.prompts, epoch.scores))
            log.append(run.folder.metrics, [epoch.metrics])
        if run.epoch % run.config.logging.checkpoint_every == 0 or run.epoch == run.config.epochs:
            run.world.together(lambda: self._save(run, run.learner.state(run.epoch)))
            run.scorer.paid.clear()
        elif run.world.is_main:
            self._unsaved = run.learner.state(run.epoch).copied()

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        """Saves the last completed epoch's state, unless the policy's samples were not finite, so
        that the state may be at fault.
        """
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
        """Saves the final state and deletes stored rewards of unfinished epochs, of all processes
        that the run ever had.
        """
        self._save(run, self._unsaved)
        run.scorer.paid.clear()
        for path in run.folder.all_paid() if run.world.is_main else ():
            files.remove(path)

    def _set_aside(self, run: RunState) -> str:
        """Renames the newest checkpoint if its policy's samples are not finite and an older
        checkpoint exists.

        If the run was resumed from that checkpoint, it is left in place, since the cause may lie
        elsewhere.

        Returns:
            A sentence for the error message; empty if there is nothing to report.
        """
        epoch, every = run.epoch, run.config.logging.checkpoint_every
        saved = checkpoint.epochs(run.folder.checkpoints) if run.world.is_main else []
        older = max((each for each in saved if each < epoch), default=0 if epoch <= every else None)
        if epoch not in saved or epoch == 0 or older is None:
            return ""
        if epoch == self._first_epoch:
            return (
                f" If epoch {older} was still healthy, move checkpoints/epoch-{epoch:05d} away:"
                " resume then continues from there."
            )
        checkpoint.set_aside_newer(run.folder.checkpoints, epoch - 1)
        return f" The state of epoch {epoch} is set aside: resume continues from epoch {older}."
