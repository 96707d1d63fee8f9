"""What each command does."""

import argparse
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rediffuse.cli.arguments import LISTED
from rediffuse.cli.outcome import resumable, show_results, show_verdict
from rediffuse.config.declared import names, purpose
from rediffuse.config.reading import uncollected
from rediffuse.config.recipes import read_recipe, recipe_names
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError, RunError
from rediffuse.lookup import trust
from rediffuse.lookup.build import build, check_names
from rediffuse.lookup.parts import assemble
from rediffuse.scoring import loopback
from rediffuse.terminal.commands import command as printed
from rediffuse.terminal.output import console, show

if TYPE_CHECKING:
    from rediffuse.lookup.parts import Parts
    from rediffuse.runs.folder import RunFolder


def _train(config: Config, args: argparse.Namespace) -> None:
    from rediffuse.runs.creation import fresh_path

    with uncollected():
        assemble(config)  # what is wrong with it is said before anything heavy is imported
        from rediffuse.start import train as run_training

    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        with resumable(args.run_dir):
            run_training(config, args.run_dir, measure=args.measure)
        return
    run_dir = args.run_dir or fresh_path(args.recipe)
    show(f"{config.goal} by {config.algorithm['name']} on {config.model['name']}, into {run_dir}")
    with resumable(run_dir):
        run_training(config, run_dir, measure=args.measure)
    show_results(run_dir)


def _resume(args: argparse.Namespace) -> None:
    with uncollected():
        assemble(_allowed(args).config())
        from rediffuse.start import resume as go_on

    with resumable(args.run):
        go_on(
            args.run,
            args.epochs,
            drop_damaged_lines=args.drop_damaged_lines,
            accept_changed_files=args.accept_changed_files,
        )
    if os.environ.get("RANK", "0") == "0":
        show_results(args.run)


def _plan(config: Config, args: argparse.Namespace) -> None:
    from rediffuse.types import Selects

    parts = assemble(config)
    queries = config.num_samples * config.epochs
    updates = config.updates_per_epoch * parts.algorithm.passes.inner_epochs
    num_trained, about = config.num_samples, ""
    if isinstance(parts.algorithm, Selects):
        num_trained, about = parts.algorithm.num_trained(config), "about "
    sizes = f"{about}{num_trained // config.updates_per_epoch}"
    if num_trained % config.updates_per_epoch:
        sizes += f" or {num_trained // config.updates_per_epoch + 1}"
    show(
        f"{config.goal} by {config.algorithm['name']} on {config.model['name']}\n"
        f"each epoch   {config.prompts_per_epoch} prompts x {config.images_per_prompt} images ="
        f" {config.num_samples} samples,"
        f" then {updates} updates of {sizes} samples\n"
        f"in all       {config.epochs} epochs: {queries:,} samples and reward queries,"
        f" {updates * config.epochs:,} updates"
    )
    for line in _predicted(config, parts, args):
        show(line, indent=13)


def _predicted(config: Config, parts: "Parts", args: argparse.Namespace) -> list[str]:
    """Returns what the run is predicted to need; with --measure, by passes of the loaded model."""
    from rediffuse.costs import devices
    from rediffuse.planning import predicted

    if args.measure and args.device:
        raise ConfigError("--measure: it times passes on this machine. Leave out --device.")
    device = devices.named(args.device) if args.device else devices.found()
    timings = None
    if args.measure:
        from rediffuse.planning.measure import measured
        from rediffuse.planning.work import useful_rows

        place = "cpu" if device.kind == "cpu" else "cuda"
        timings = measured(config, parts, place, useful_rows(config, parts))
    costs = predicted.costs_of(config, parts, device, timings)
    return [predicted.UNKNOWN] if costs is None else predicted.lines(config, costs)


def _allowed(
    args: argparse.Namespace, seen: Callable[[Config], Config] = lambda config: config
) -> "RunFolder":
    """The run, once all that is asked for is allowed. seen: what the command uses of its
    configuration
    """
    from rediffuse.runs.folder import existing

    run = existing(args.run)
    if not args.trust_code:
        trust.refuse(args.run, seen(run.config()), run=run.path)
    return run


def _without_rewards(config: Config) -> Config:
    return replace(config, rewards=[])


def _only_its_model(config: Config) -> Config:
    """As what draws pictures of a run sees it: no reward and no prompts of its own are asked
    for.
    """
    return replace(_without_rewards(config), prompts={})


def _sample(args: argparse.Namespace) -> None:
    run = _allowed(args, _only_its_model)
    from rediffuse.cli.asked import asked_prompt
    from rediffuse.evaluation.pictures import before_and_after
    from rediffuse.evaluation.previews import scene_of

    prompt = asked_prompt(args.prompt, args.inputs, run.config())
    scene = scene_of(run, trusted=args.trust_code)
    show(before_and_after(args.run, prompt, args.seed, args.out, args.checkpoint, scene))


def _export(args: argparse.Namespace) -> None:
    run = _allowed(args, _only_its_model)
    from rediffuse.evaluation.pictures import tuned
    from rediffuse.runs.export import converted

    path = args.out or run.exported(args.to, args.checkpoint)
    show(converted(tuned(run, args.checkpoint).denoiser, args.to, path))


def _evaluate(args: argparse.Namespace) -> None:
    run = _allowed(args, _without_rewards if args.rewards else lambda config: config)
    for name, number in (
        ("--num-prompts", args.num_prompts),
        ("--images-per-prompt", args.images_per_prompt),
    ):
        if number < 1:
            raise ConfigError(f"{name}: {number} requested; it must be at least 1.")
    from rediffuse.evaluation import suites, table
    from rediffuse.report import page

    sizes = {
        "num_prompts": args.num_prompts,
        "images_per_prompt": args.images_per_prompt,
        "seed": args.seed,
    }
    question = suites.Question(
        args.prompts or suites.SUITES, args.rewards, args.checkpoint, **sizes
    )
    console().print(table.suite_table(suites.evaluate(args.run, question)))
    show(f"{run.evaluation / 'evaluation.json'}; {page.write(run)} shows it")


def _report(args: argparse.Namespace) -> None:
    from rediffuse.report import follow, index, page
    from rediffuse.runs.folder import RunFolder, existing
    from rediffuse.verdict import verdict

    if args.follow:
        if args.out:
            raise ConfigError("--out: --follow writes no file. Leave out one of the two.")
        if not (args.run / "config.yaml").is_file():
            raise ConfigError(f"--follow: {args.run} is not a run; it follows one run at a time.")
        follow.follow(RunFolder(args.run), args.port)
        return
    with _writable(args):
        if (
            args.run.is_dir()
            and not (args.run / "config.yaml").exists()
            and any(args.run.glob("*/config.yaml"))
        ):
            show(index.write(args.run, args.out))
            return
        run = existing(args.run)
        said = verdict.of_run(run) if args.out else verdict.write(run)
        show_verdict(said, args.run)
        show(page.write(run, args.out, asdict(said) if said else None))


@contextmanager
def _writable(args: argparse.Namespace) -> Iterator[None]:
    """Where nothing can be written, as on read-only media, the error says what can be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        where = error.filename or args.out or args.run
        raise RunError(
            f"Cannot write to {where}: {error.strerror}. Name a file elsewhere:"
            f" {printed('report', args.run, '--out', 'report.html')}"
        ) from error


def _compare(args: argparse.Namespace) -> None:
    from rediffuse.report.compare import compared
    from rediffuse.report.comparison_page import write

    comparison = compared(args.runs, args.reach)
    console().print(comparison.table())
    show(write(comparison, args.out))


def serve_reward(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    """Serves a reward until it is interrupted; a token is needed beyond this machine."""
    unknown = [key for key in options if key != "reward"]
    if unknown:
        raise ConfigError(
            f"serve: no such option --{unknown[0]}; options of the reward are --reward.NAME VALUE."
        )
    token = os.environ.get(args.token_variable, "") if args.token_variable else ""
    if args.token_variable and not token:
        raise ConfigError(f"--token-variable: the environment has no {args.token_variable}.")
    if not token and args.host not in loopback.NAMES:
        raise ConfigError(
            f"--host: {args.host} can be reached by others, so a token is needed: put one in an"
            " environment variable and name that with --token-variable."
        )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size: {args.batch_size} requested; it must be at least 1.")
    chosen = options["reward"]
    check_names("reward", chosen)
    reward = build("reward", chosen)
    try:
        from rediffuse.scoring import serve as service
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serve: {error.name} is not installed: pip install 'rediffuse[serve]'"
        ) from error
    limits = {"device": args.device, "batch_size": args.batch_size, "token": token or None}
    service.listen(args.reward, reward, host=args.host, port=args.port, **limits)


def _list(args: argparse.Namespace) -> None:
    if args.what:
        _show_room(args.what)
        return
    for number, what in enumerate(LISTED):
        show(f"{chr(10) if number else ''}{what}")
        _show_room(what, margin="  ")


def _show_room(what: str, margin: str = "") -> None:
    if what == "recipes":
        lines = {name: read_recipe(name)["claim"] for name in recipe_names()}
    else:
        lines = {name: purpose(what, name) for name in names(what)}
    width = max(map(len, lines))
    for name, line in lines.items():
        show(f"{margin}{name:{width}}  {line}", indent=width + 2)


WITH_CONFIG: dict[str, Callable[[Config, argparse.Namespace], None]] = {
    "train": _train,
    "plan": _plan,
}
OTHERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "resume": _resume,
    "sample": _sample,
    "evaluate": _evaluate,
    "report": _report,
    "compare": _compare,
    "export": _export,
    "list": _list,
}
