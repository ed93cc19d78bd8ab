"""`steer COMMAND ...`: finds the command, runs it, and turns a `SteerError` into one line on stderr.

Every command is a file of this package with a frozen dataclass of its arguments whose `run()` does the work. Only the chosen
file is imported, so that a robot without torch can use the commands meant for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import tyro

from steer.errors import MissingExtraError, SteerError

COMMANDS = {
    "collect": ("Collect", "record scripted, mixed-quality demonstrations in simulation"),
    "convert": ("Convert", "turn other people's episodes into an episode store"),
    "train": ("Train", "train a policy, a critic or a success classifier from an episode store"),
    "label": ("Label", "say which episodes succeeded, by hand or by a classifier"),
    "finetune": ("FineTune", "improve a policy and its critic while the robot works"),
    "curve": ("Curve", "measure what fine-tuning was worth, version by version"),
    "inspect": ("Inspect", "print what a checkpoint or an episode store says of itself"),
    "serve": ("Serve", "serve steered actions over gRPC"),
    "run": ("Run", "run a robot against a server at control rate"),
    "upload": ("Upload", "send recorded episodes to a server's store"),
    "eval": ("Eval", "compare a policy with its steered self on the same initial states"),
    "demo": ("Demo", "from nothing to a paired evaluation, in minutes"),
}

_MODULES = {"eval": "evaluate"}
"""Where the file cannot have the command's name."""

INTERRUPTED = 130
FAILED = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `steer` script; exits with 0, 2 (an error that was explained) or 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if words else FAILED)
    if words[0] not in COMMANDS:
        print(f"error: unknown command {words[0]!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(FAILED)
    try:
        _run(words[0], words[1:])
    except SteerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run(command: str, words: Sequence[str]) -> None:
    try:
        module = importlib.import_module(f"steer.cli.{_MODULES.get(command, command)}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("steer", "policies", "critics", "robots", "sim"):
            raise
        extra = "sim" if error.name in ("pybullet", "gymnasium", "jinja2", "matplotlib", "av") else "train"
        raise MissingExtraError(str(error.name), extra, f"steer {command}") from error
    name, summary = COMMANDS[command]
    # A command whose flags depend on its words brings a function that makes them.
    arguments = module.command(words) if hasattr(module, "command") else getattr(module, name)
    parsed = tyro.cli(arguments, prog=f"steer {command}", description=summary, args=words)
    parsed.run()


def _usage() -> str:
    lines = [f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "usage: steer COMMAND [arguments]\n\n" + "\n".join(lines) + "\n\nsteer COMMAND --help explains each."


if __name__ == "__main__":
    main()
