"""The command line: train, resume, sample, evaluate, report, compare, export, serve, plan, list."""

import errno
import sys
from collections.abc import Sequence
from typing import NoReturn

from rediffuse.cli import commands
from rediffuse.cli.arguments import COMMANDS, parser
from rediffuse.cli.flags import flags
from rediffuse.cli.outcome import with_commands
from rediffuse.config.recipes import DEFAULT_RECIPE, read_recipe, recipe_names, resolved
from rediffuse.errors import ConfigError, RediffuseError, RewardError, did_you_mean, quoted
from rediffuse.lookup import trust
from rediffuse.terminal.output import say, show_traceback, warnings_shown

NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL)
"""Errors of files that depend on the name, so that a retry with the same name would fail too."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its exit code.

    Tracebacks are shown only for bugs and for exceptions in rewards.

    Args:
        arguments: The arguments; by default those of the process.
    """
    try:
        with warnings_shown():
            run(sys.argv[1:] if arguments is None else list(arguments))
    except RediffuseError as error:
        fail(
            str(error), error.exit_code, caused_by=error if isinstance(error, RewardError) else None
        )
    except PermissionError as error:
        fail(f"Cannot write to {error.filename}: {error.strerror}.", 2)
    except OSError as error:
        if error.errno in NO_SUCH_NAME:
            fail(f"{error.filename}: {error.strerror}. Choose another name.", 2)
        fail(f"{error}. What was saved before is intact; trying again may help.", 75)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)
    except Exception as error:
        show_traceback(error)
        fail("This is a bug of Rediffuse; please report it with the lines above.", 1)
    sys.exit(0)


def fail(message: str, exit_code: int, caused_by: BaseException | None = None) -> NoReturn:
    """Prints an error message and exits.

    Args:
        message: The message.
        exit_code: The exit code of the process.
        caused_by: An exception of a reward. A reward may be the user's code, so the traceback of
            its cause is shown.
    """
    if caused_by is not None and caused_by.__cause__ is not None:
        show_traceback(caused_by.__cause__)
    say(with_commands(message))
    sys.exit(exit_code)


def run(arguments: list[str]) -> None:
    """Runs one command; without arguments it prints the help. Raises RediffuseError if the command
    fails.
    """
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ConfigError(
            f"No command {quoted(arguments[0])}; there are"
            f" {', '.join(COMMANDS)}.{did_you_mean(arguments[0], COMMANDS)}"
        )
    whole = parser()
    if not arguments:
        whole.print_help()
        return
    args, rest = whole.parse_known_args(arguments)
    if rest and args.command not in (*commands.WITH_CONFIG, "serve"):
        raise ConfigError(
            f"{args.command}: no such option {quoted(rest[0])}. See: rediffuse {args.command}"
            " --help"
        )
    if args.command in commands.WITH_CONFIG:
        args.recipe = rest.pop(0) if rest and not rest[0].startswith("--") else DEFAULT_RECIPE
        recipe = read_recipe(args.recipe)
        given = flags(rest, recipe)
        config = resolved(recipe, given)
        if not args.trust_code and args.recipe not in recipe_names():
            trust.refuse(args.recipe, config, given)
        commands.WITH_CONFIG[args.command](config, args)
    elif args.command == "serve":
        commands.serve_reward(args, flags(["--reward.name", args.reward, *rest]))
    else:
        commands.OTHERS[args.command](args)
