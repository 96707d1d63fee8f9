"""The commands: train, resume, sample, evaluate, report, compare, export, serve, plan, list."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import rediffuse
from rediffuse.config.reading import MOST_DEPTH, flag_value
from rediffuse.config.schema import DEFAULT_RECIPE, Config, Evaluation, read_recipe, recipe_names, resolved
from rediffuse.errors import ConfigError, Interrupted, RediffuseError, RewardError, RunError, did_you_mean, quoted
from rediffuse.lookup import trust
from rediffuse.lookup.build import KEYS, assemble, build, check_names, first_line, names, text_options
from rediffuse.scoring import loopback
from rediffuse.terminal.commands import command as printed
from rediffuse.terminal.commands import pasteable
from rediffuse.terminal.output import console, say, show, show_traceback, warnings_shown

if TYPE_CHECKING:
    from rediffuse.runs.folder import RunFolder
    from rediffuse.verdict.verdict import Verdict

DESCRIPTION = "Fine-tune diffusion models with reinforcement learning."
OPTIONS = f"""\
RECIPE is a name from `rediffuse list recipes` or a YAML file.
Every option of it is a flag, nested ones with dots:
  --epochs 20 --seed 3 --learning-rate 1e-3 --algorithm.clip-range 0.1
  --reward NAME is short for --reward.name NAME; so are --model, --sampler,
  --algorithm and --prompts. NAME may be your own: --reward my_file.py:dark,
  any function (images, prompts) -> one number for each image.

examples:
  rediffuse train                  the default, {DEFAULT_RECIPE}: no download
  rediffuse train demo/compressibility --run-dir runs/mine
  rediffuse train --algorithm ddpo_is --seed 1
  rediffuse train --reward redness --epochs 5
  torchrun --nproc-per-node 2 -m rediffuse train --run-dir runs/two
"""
NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL)
"""Of files: another try with the same name would fail too."""
LISTED = (*KEYS.values(), "recipes")
WHICH = "newest, best, or a number of epochs"
TRUST = "allow what the file asks for: code, other files, servers, keys, pickles; your own flags never need permission"
COMMANDS = ("train", "plan", "resume", "sample", "evaluate", "report", "compare", "export", "serve", "list")


class Parser(argparse.ArgumentParser):
    """Mistakes become ConfigError; unknown commands say what is near."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.format_usage().strip()}")

    def _print_message(self, message: str, file: object = None) -> None:
        """Help, which argparse would write by itself."""
        show(message.rstrip("\n"))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    try:
        with warnings_shown():
            run(sys.argv[1:] if arguments is None else list(arguments))
    except RediffuseError as error:
        fail(str(error), error.exit_code, caused_by=error if isinstance(error, RewardError) else None)
    except PermissionError as error:
        fail(f"Cannot write to {error.filename}: {error.strerror}.", 2)
    except OSError as error:
        if error.errno in NO_SUCH_NAME:
            fail(f"{error.filename}: {error.strerror}. Choose another name.", 2)
        fail(f"{error}. What was saved before is whole; a retry may help.", 75)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)
    except Exception as error:
        show_traceback(error)
        fail("This is a bug of Rediffuse; please report it with the lines above.", 1)
    sys.exit(0)


def fail(message: str, exit_code: int, caused_by: BaseException | None = None) -> NoReturn:
    """A reward is the user's own code, so what went wrong in it is shown where it did."""
    if caused_by is not None and caused_by.__cause__ is not None:
        show_traceback(caused_by.__cause__)
    say(_completed(message))
    sys.exit(exit_code)


def _completed(message: object, run: Path | None = None) -> str:
    """With its commands as they can be pasted here."""
    return pasteable(str(message), run, _needs_trust)


def _needs_trust(run: Path) -> bool:
    from rediffuse.runs.folder import existing

    try:
        return bool(trust.unallowed(existing(run).config(), run=run))
    except (RediffuseError, OSError):  # it will say so itself when it is asked for
        return False


def run(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ConfigError(
            f"No command {quoted(arguments[0])}; there are {', '.join(COMMANDS)}.{did_you_mean(arguments[0], COMMANDS)}"
        )
    parser = _parser()
    if not arguments:
        parser.print_help()
        return
    args, rest = parser.parse_known_args(arguments)
    if rest and args.command not in ("train", "plan", "serve"):
        raise ConfigError(f"{args.command}: no such option {quoted(rest[0])}. See: rediffuse {args.command} --help")
    if args.command in ("train", "plan"):
        args.recipe = rest.pop(0) if rest and not rest[0].startswith("--") else DEFAULT_RECIPE
        recipe = read_recipe(args.recipe)
        given = flags(rest, recipe)
        config = resolved(recipe, given)
        if not args.trust_code and args.recipe not in recipe_names():
            trust.refuse(args.recipe, config, given)
        _train(config, args) if args.command == "train" else _plan(config)
    elif args.command == "serve":
        _serve(args, flags(["--reward.name", args.reward, *rest]))
    else:
        {
            "resume": _resume,
            "sample": _sample,
            "evaluate": _evaluate,
            "report": _report,
            "compare": _compare,
            "export": _export,
            "list": _list,
        }[args.command](args)


def flags(rest: Sequence[str], recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`--a.b value` and `--a-c=value` as nested mappings.

    A value is the text as it stands where its option is text or a path, and YAML elsewhere.

    recipe: what the flags go over, which names the components that they do not
    """
    words = list(_words(rest))
    named = {path[0]: value for path, _, value in words if path[1:] == ["name"]}
    nested: dict[str, Any] = {}
    for path, key, text in words:
        leaf = _value(path, f"--{key}", text, named, recipe or {})
        for part in reversed(path):
            leaf = {part: leaf}
        nested = _deep(nested, leaf)
    return nested


def _words(rest: Sequence[str]) -> Iterator[tuple[list[str], str, str]]:
    """(where it belongs, the flag as it was typed, its value)"""
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{quoted(word)}: expected a flag like --epochs 10; a recipe stands before all flags.")
        key, has_value, value = word[2:].partition("=")
        path = key.replace("-", "_").split(".")
        if len(path) > MOST_DEPTH:
            raise ConfigError(f"--{key[:60]}…: nested more than {MOST_DEPTH} deep.")
        if not has_value:
            if not words or words[0].startswith("--"):
                raise ConfigError(f"--{key[:200]}: expected a value after it; one that begins with -- goes behind a =.")
            value = words.pop(0)
        if path[-1] in KEYS and len(path) == 1:
            path.append("name")
        yield path, key[:200], value


def _value(path: Sequence[str], where: str, text: str, named: Mapping[str, str], recipe: Mapping[str, Any]) -> Any:
    key, option = path[0], path[-1]
    if key not in KEYS or len(path) != 2:
        return flag_value(text, where)
    if option == "name":
        return text
    texts = text_options(key, _name_of(key, named, recipe), import_it=key in named)
    if option not in texts or (texts[option] and text == "null"):
        return flag_value(text, where)
    return text


def _name_of(key: str, named: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    known = recipe.get(key)
    return named.get(key) or str(known.get("name") if isinstance(known, Mapping) else known)


def _train(config: Config, args: argparse.Namespace) -> None:
    from rediffuse.runs.folder import fresh_path

    assemble(config)  # what is wrong with it is said before anything heavy is imported
    from rediffuse.start import train as run_training

    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        with _resumable(args.run_dir):
            run_training(config, args.run_dir)
        return
    run_dir = args.run_dir or fresh_path(args.recipe)
    show(f"{config.reward['name']} by {config.algorithm['name']} on {config.model['name']}, into {run_dir}")
    with _resumable(run_dir):
        run_training(config, run_dir)
    _tell(run_dir)


def _resume(args: argparse.Namespace) -> None:
    assemble(_allowed(args).config())
    from rediffuse.start import resume as go_on

    with _resumable(args.run):
        go_on(args.run, args.epochs, drop_damaged_lines=args.drop_damaged_lines, accept_changed_files=args.accept_changed_files)
    if os.environ.get("RANK", "0") == "0":
        _tell(args.run)


def _plan(config: Config) -> None:
    from rediffuse.types import Selects

    parts = assemble(config)
    queries = config.num_samples * config.epochs
    updates = config.updates_per_epoch * parts.algorithm.passes.inner_epochs
    num_trained = parts.algorithm.num_trained(config) if isinstance(parts.algorithm, Selects) else config.num_samples
    sizes = f"{num_trained // config.updates_per_epoch}"
    if num_trained % config.updates_per_epoch:
        sizes += f" or {num_trained // config.updates_per_epoch + 1}"
    if isinstance(parts.algorithm, Selects):
        sizes = f"at most {sizes}"
    show(
        f"{config.reward['name']} by {config.algorithm['name']} on {config.model['name']}\n"
        f"each epoch   {config.prompts_per_epoch} prompts x {config.images_per_prompt} images = {config.num_samples} samples,"
        f" then {updates} updates of {sizes} samples\n"
        f"in all       {config.epochs} epochs: {queries:,} samples and reward queries, {updates * config.epochs:,} updates"
    )


def _allowed(args: argparse.Namespace, seen: Callable[[Config], Config] = lambda config: config) -> "RunFolder":
    """The run, once all that is asked for is allowed. seen: what the command uses of its configuration"""
    from rediffuse.runs.folder import existing

    run = existing(args.run)
    if not args.trust_code:
        trust.refuse(args.run, seen(run.config()), run=run.path)
    return run


def _without_rewards(config: Config) -> Config:
    return replace(config, reward={}, evaluation=Evaluation())


def _only_its_model(config: Config) -> Config:
    """As what draws pictures of a run sees it: no reward and no prompts of its own are asked for."""
    return replace(_without_rewards(config), prompts={})


def _sample(args: argparse.Namespace) -> None:
    _allowed(args, _only_its_model)
    from rediffuse.evaluation.pictures import before_and_after

    show(before_and_after(args.run, args.prompt, args.seed, args.out, args.checkpoint))


def _export(args: argparse.Namespace) -> None:
    run = _allowed(args, _only_its_model)
    from rediffuse.evaluation.pictures import tuned
    from rediffuse.runs.export import converted

    path = args.out or run.exported(args.to, args.checkpoint)
    show(converted(tuned(run, args.checkpoint).denoiser, args.to, path))


def _evaluate(args: argparse.Namespace) -> None:
    run = _allowed(args, _without_rewards if args.rewards else lambda config: config)
    for name, number in (("--num-prompts", args.num_prompts), ("--images-per-prompt", args.images_per_prompt)):
        if number < 1:
            raise ConfigError(f"{name}: {number} asked; 1 is the least.")
    from rediffuse.evaluation import suites
    from rediffuse.report import page

    sizes = {"num_prompts": args.num_prompts, "images_per_prompt": args.images_per_prompt, "seed": args.seed}
    question = suites.Question(args.prompts or suites.SUITES, args.rewards, args.checkpoint, **sizes)
    console().print(suites.table(suites.evaluate(args.run, question)))
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
        if args.run.is_dir() and not (args.run / "config.yaml").exists() and any(args.run.glob("*/config.yaml")):
            show(index.write(args.run, args.out))
            return
        run = existing(args.run)
        said = verdict.of_run(run) if args.out else verdict.write(run)
        _say(said, args.run)
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
    from rediffuse.report.compare import compared, write

    comparison = compared(args.runs, args.reach)
    console().print(comparison.table())
    show(write(comparison, args.out))


def _serve(args: argparse.Namespace, options: Mapping[str, Any]) -> None:
    unknown = [key for key in options if key != "reward"]
    if unknown:
        raise ConfigError(f"serve: no such option --{unknown[0]}; the reward's own are --reward.NAME VALUE.")
    token = os.environ.get(args.token_variable, "") if args.token_variable else ""
    if args.token_variable and not token:
        raise ConfigError(f"--token-variable: the environment has no {args.token_variable}.")
    if not token and args.host not in loopback.NAMES:
        raise ConfigError(
            f"--host: {args.host} can be reached by others, so a token is needed: put one in an environment variable and name"
            " that with --token-variable."
        )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size: {args.batch_size} asked; 1 is the least.")
    chosen = options["reward"]
    check_names("reward", chosen)
    reward = build("reward", chosen)
    from rediffuse.types import Combines

    if isinstance(reward, Combines):
        raise ConfigError(
            f"serve: {args.reward} is made of a whole epoch. Serve its terms, and name `remote` rewards in the sum."
        )
    try:
        from rediffuse.scoring import serve as service
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve: {error.name} is not installed: pip install 'rediffuse[serve]'") from error
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
        lines = {name: first_line(what, name) for name in names(what)}
    width = max(map(len, lines))
    for name, line in lines.items():
        show(f"{margin}{name:{width}}  {line}", indent=width + 2)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rediffuse", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"rediffuse {rediffuse.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, what in (
        ("train", "fine-tune as a recipe says"),
        ("plan", "samples and updates of a recipe, before anything is loaded"),
    ):
        command = commands.add_parser(
            name,
            help=what,
            description=what,
            usage=f"rediffuse {name} [RECIPE] [--run-dir DIR] [--epochs N] [--a.b VALUE …]",
            epilog=OPTIONS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument(
            "--run-dir", "--run_dir", type=Path, metavar="DIR", help="a new folder to train in; without it, runs/RECIPE-N"
        )
        command.add_argument("--trust-code", "--trust_code", action="store_true", help=TRUST)
    command = commands.add_parser("resume", help="go on with a run to the numbers it would have had", allow_abbrev=False)
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--trust-code", action="store_true", help=TRUST)
    command.add_argument("--epochs", type=int, help="a new total: to train for longer than was planned, or to finish earlier")
    command.add_argument(
        "--accept-changed-files", action="store_true", help="go on although a model on this machine is not what it was"
    )
    command.add_argument("--drop-damaged-lines", action="store_true", help="go on without log lines that were changed or lost")
    command = commands.add_parser("sample", help="before and after, side by side, as a PNG", allow_abbrev=False)
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--trust-code", action="store_true", help=TRUST)
    command.add_argument("--prompt", required=True)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, help="the PNG to write; without it, in the run's samples/")
    command.add_argument("--checkpoint", default="newest", metavar="NAME", help=WHICH)
    command = commands.add_parser("evaluate", help="before and after on prompts it never trained on", allow_abbrev=False)
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--trust-code", action="store_true", help=TRUST)
    command.add_argument(
        "--prompts", nargs="+", metavar="SET", help="own, prompt sets, or files of prompts; without it, own and all unseen ones"
    )
    command.add_argument(
        "--rewards", nargs="+", default=(), metavar="NAME", help="instead of the run's own and its held-out ones"
    )
    command.add_argument("--checkpoint", default="newest", metavar="NAME", help=WHICH)
    command.add_argument("--num-prompts", type=int, default=40, help="of each set at most")
    command.add_argument("--images-per-prompt", type=int, default=4)
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("export", help="what was learned, as a file for other tools", allow_abbrev=False)
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--trust-code", action="store_true", help=TRUST)
    command.add_argument("--to", required=True, choices=("kohya",), help="kohya: the LoRA file of ComfyUI and the A1111 web UI")
    command.add_argument("--checkpoint", default="newest", metavar="NAME", help=WHICH)
    command.add_argument("--out", type=Path, metavar="FILE", help="the file to write; without it, in the run's exported/")
    command = commands.add_parser(
        "report", help="judge a run and write its page, from its folder alone; or an index of runs", allow_abbrev=False
    )
    command.add_argument("run", type=Path, metavar="RUN", help="or a folder of runs")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="the page to write, if the run's folder is to stay as it is or is read-only"
    )
    command.add_argument("--follow", action="store_true", help="serve the page on this machine, anew as the run goes on")
    command.add_argument("--port", type=int, default=8766)
    command = commands.add_parser("compare", help="runs side by side: a chart, a table, the same pictures", allow_abbrev=False)
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="runs that differ in their seed alone count as one method"
    )
    command.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="where to; comparison/ without it")
    command.add_argument("--reach", type=float, metavar="REWARD", help="tell how many queries each method took to reach it")
    command = commands.add_parser("serve", help="a reward behind HTTP, for runs elsewhere", allow_abbrev=False)
    command.add_argument("reward", metavar="REWARD", help="a name or my_file.py:my_function; its options: --reward.NAME VALUE")
    command.add_argument("--host", default="127.0.0.1", help="another than loopback asks for a token")
    command.add_argument("--port", type=int, default=8765)
    command.add_argument("--device", default="cpu", help="of the reward's own model")
    command.add_argument("--batch-size", type=int, default=32, help="images that the reward is given at a time")
    command.add_argument("--token-variable", metavar="NAME", help="the environment variable that holds the token to ask for")
    command = commands.add_parser("list", help="what there is to choose from", allow_abbrev=False)
    command.add_argument("what", nargs="?", choices=LISTED, help="one of them; without it, all")
    return parser


def _deep(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Flags only add to one another, so a component's name keeps the options given beside it."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _deep(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


@contextmanager
def _resumable(run: Path | None) -> Iterator[None]:
    try:
        yield
    except RewardError as error:
        if error.__cause__ is not None:
            show_traceback(error.__cause__)
        say(_completed(error, run))
        os._exit(error.exit_code)  # at once: requests under way may last for minutes
    except Interrupted as stop:
        say(_completed(f"Interrupted ({stop}). Every whole epoch is saved; go on with: rediffuse resume RUN", run))
        os._exit(stop.exit_code)  # at once: a reward still being computed may take minutes


def _tell(run: Path) -> None:
    """The run itself has written verdict and page."""
    from rediffuse.runs.folder import existing
    from rediffuse.verdict import verdict

    folder = existing(run)
    _say(verdict.of_run(folder), run)
    show(f"done: {folder.report} is the page, {folder.adapter} what was learned")


def _say(verdict: "Verdict | None", run: Path) -> None:
    if verdict is not None:
        show(f"{verdict.headline}\n{_completed(verdict.suggestion, run)}")
