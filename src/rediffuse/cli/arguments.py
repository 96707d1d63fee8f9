"""The arguments of each command, and their help."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import rediffuse
from rediffuse.config.declared import KEYS
from rediffuse.config.recipes import DEFAULT_RECIPE
from rediffuse.errors import ConfigError
from rediffuse.terminal.output import show

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

LISTED = (*KEYS.values(), "recipes")
WHICH = "the checkpoint to use: newest, best, or a number of epochs"
TRUST = (
    "allow what the recipe or run requests: running code, reading other files, reaching servers,"
    " sending a key, unpickling; your own flags never need permission"
)


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError for invalid arguments."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError; argparse itself would exit."""
        raise ConfigError(f"{message}\n{self.format_usage().strip()}")

    def _print_message(self, message: str, file: object = None) -> None:
        """Prints the help with `show`; argparse itself would write it to a file."""
        show(message.rstrip("\n"))


def parser() -> Parser:
    """Returns the parser of all commands."""
    whole = Parser(prog="rediffuse", description=DESCRIPTION)
    whole.add_argument("--version", action="version", version=f"rediffuse {rediffuse.__version__}")
    commands = whole.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for name, (said, describe) in COMMANDS.items():
        describe(commands.add_parser(name, help=said, description=said, allow_abbrev=False))
    return whole


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--trust-code", action="store_true", help=TRUST)


def _add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", default="newest", metavar="NAME", help=WHICH)


def _with_recipe(command: argparse.ArgumentParser) -> None:
    command.usage = f"{command.prog} [RECIPE] [--run-dir DIR] [--epochs N] [--a.b VALUE …]"
    command.epilog = OPTIONS
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "--run-dir",
        "--run_dir",
        type=Path,
        metavar="DIR",
        help="a new folder to train in; without it, runs/RECIPE-N",
    )
    command.add_argument("--trust-code", "--trust_code", action="store_true", help=TRUST)
    command.add_argument(
        "--measure",
        action="store_true",
        help="load the model and time passes of it for ten seconds, instead of choosing their rows"
        " by a rule",
    )


def _plan(command: argparse.ArgumentParser) -> None:
    _with_recipe(command)
    command.add_argument(
        "--device",
        metavar="NAME",
        help='the device to predict for, such as "H100", "RTX 4090" or "cpu"; without it, this'
        " machine's",
    )


def _resume(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument(
        "--epochs",
        type=int,
        help="a new total: to train for longer than was planned, or to finish earlier",
    )
    command.add_argument(
        "--accept-changed-files",
        action="store_true",
        help="resume although local files, such as a model, changed since the run began",
    )
    command.add_argument(
        "--drop-damaged-lines",
        action="store_true",
        help="resume without log lines that were changed or lost",
    )


def _sample(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument("--prompt", metavar="TEXT", help="the prompt, for a model that takes text")
    command.add_argument(
        "--inputs",
        metavar="MAPPING",
        help='other conditioning of the model, as YAML: "{label: 3}" or "{image: {file:'
        ' photo.png}}"',
    )
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--out", type=Path, help="the PNG to write; without it, in the run's samples/"
    )
    _add_checkpoint(command)


def _evaluate(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument(
        "--prompts",
        nargs="+",
        metavar="SET",
        help="own (the run's prompts), prompt sets, or files of prompts; without it, own and all"
        " unseen sets",
    )
    command.add_argument(
        "--rewards",
        nargs="+",
        default=(),
        metavar="NAME",
        help="the rewards to evaluate with; without it, the run's own and its held-out rewards",
    )
    _add_checkpoint(command)
    command.add_argument(
        "--num-prompts", type=int, default=40, help="the largest number of prompts of a set"
    )
    command.add_argument("--images-per-prompt", type=int, default=4)
    command.add_argument("--seed", type=int, default=0)


def _export(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument(
        "--to",
        required=True,
        choices=("kohya",),
        help="kohya: the LoRA file of ComfyUI and the A1111 web UI",
    )
    _add_checkpoint(command)
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the file to write; without it, in the run's exported/",
    )


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="a run, or a folder of runs")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page to write, e.g. if the run is read-only; without it, its report.html",
    )
    command.add_argument(
        "--follow",
        action="store_true",
        help="serve the page on this machine, and update it during training",
    )
    command.add_argument("--port", type=int, default=8766)


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="the runs; those that differ only in their seed count as one method",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="the folder to write to; without it, comparison/",
    )
    command.add_argument(
        "--reach",
        type=float,
        metavar="REWARD",
        help="also report how many reward queries each method needed to reach this reward",
    )


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "reward",
        metavar="REWARD",
        help="a name or my_file.py:my_function; its options: --reward.NAME VALUE",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; any other than loopback requires a token",
    )
    command.add_argument("--port", type=int, default=8765)
    command.add_argument("--device", default="cpu", help="the device of the reward's model")
    command.add_argument(
        "--batch-size", type=int, default=32, help="the number of images in a call of the reward"
    )
    command.add_argument(
        "--token-variable",
        metavar="NAME",
        help="the environment variable with the token that clients must send",
    )


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "what", nargs="?", choices=LISTED, help="what to list; without it, everything"
    )


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("fine-tune a model as a recipe says", _with_recipe),
    "plan": (
        "print the samples, updates, memory and time of a recipe, without loading anything",
        _plan,
    ),
    "resume": ("resume a run; the result equals that of an uninterrupted run", _resume),
    "sample": ("sample a prompt before and after training, side by side, as a PNG", _sample),
    "evaluate": (
        "evaluate a run before and after training, on its own and on unseen prompts",
        _evaluate,
    ),
    "report": (
        "write the verdict and the report of a run, from its folder; or an index of runs",
        _report,
    ),
    "compare": ("compare runs: a chart, a table, images of the same prompts and seeds", _compare),
    "export": ("convert the trained adapter to a file for other tools", _export),
    "serve": ("serve a reward over HTTP, for runs on other machines", _serve),
    "list": ("list the available components and recipes", _list),
}
"""For each command its help and the function that adds its arguments."""
