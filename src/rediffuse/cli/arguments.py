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
WHICH = "newest, best, or a number of epochs"
TRUST = (
    "allow what the file asks for: code, other files, servers, keys, pickles; your own flags"
    " never need permission"
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
        help="go on although a model on this machine is not what it was",
    )
    command.add_argument(
        "--drop-damaged-lines",
        action="store_true",
        help="go on without log lines that were changed or lost",
    )


def _sample(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument("--prompt", metavar="TEXT", help="of a model that takes a text")
    command.add_argument(
        "--inputs",
        metavar="MAPPING",
        help='what the model sees besides, as YAML: "{label: 3}" or "{image: {file: photo.png}}"',
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
        help="own, prompt sets, or files of prompts; without it, own and all unseen ones",
    )
    command.add_argument(
        "--rewards",
        nargs="+",
        default=(),
        metavar="NAME",
        help="instead of the run's own and its held-out ones",
    )
    _add_checkpoint(command)
    command.add_argument("--num-prompts", type=int, default=40, help="of each set at most")
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
    command.add_argument("run", type=Path, metavar="RUN", help="or a folder of runs")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page to write, if the run's folder is to stay as it is or is read-only",
    )
    command.add_argument(
        "--follow",
        action="store_true",
        help="serve the page on this machine, anew as the run goes on",
    )
    command.add_argument("--port", type=int, default=8766)


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="runs that differ in their seed alone count as one method",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="where to; comparison/ without it",
    )
    command.add_argument(
        "--reach",
        type=float,
        metavar="REWARD",
        help="tell how many queries each method took to reach it",
    )


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "reward",
        metavar="REWARD",
        help="a name or my_file.py:my_function; its options: --reward.NAME VALUE",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="another than loopback asks for a token"
    )
    command.add_argument("--port", type=int, default=8765)
    command.add_argument("--device", default="cpu", help="of the reward's own model")
    command.add_argument(
        "--batch-size", type=int, default=32, help="images that the reward is given at a time"
    )
    command.add_argument(
        "--token-variable",
        metavar="NAME",
        help="the environment variable that holds the token to ask for",
    )


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", nargs="?", choices=LISTED, help="one of them; without it, all")


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("fine-tune as a recipe says", _with_recipe),
    "plan": ("samples and updates of a recipe, before anything is loaded", _with_recipe),
    "resume": ("go on with a run to the numbers it would have had", _resume),
    "sample": ("before and after, side by side, as a PNG", _sample),
    "evaluate": ("before and after on prompts it never trained on", _evaluate),
    "report": (
        "judge a run and write its page, from its folder alone; or an index of runs",
        _report,
    ),
    "compare": ("runs side by side: a chart, a table, the same pictures", _compare),
    "export": ("what was learned, as a file for other tools", _export),
    "serve": ("a reward behind HTTP, for runs elsewhere", _serve),
    "list": ("what there is to choose from", _list),
}
"""For each command its help and the function that adds its arguments."""
