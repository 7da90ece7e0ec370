"""The command line: the only place that reads argv."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from sslfast._outside import import_module
from sslfast._version import __version__
from sslfast._words import nearest
from sslfast.cli.parse import UsageError

USAGE = """usage: sslfast COMMAND [OPTIONS]

Fast self-supervised learning in PyTorch.

commands:
  pretrain NAME   train a network by a method or a recipe
  evaluate RUN    judge what a run has learned: linear probe, kNN, few-shot, fine-tuning, its pretext task
  embed RUN       write the features of every example, with its path, to a file
  report RUN      write the run's page, RUN/report.html
  compare RUN …   one table and one picture of several runs' results
  calibrate NAME  train at several strengths of the augmentation, and show which suits
  show-views      draw views of images by a preset, and what was done to each
  recipes         list the recipes
  new-method NAME write a method of your own to begin with, and its test
  info            versions, devices, and what serves each op

options:
  --import MODULE import a module first, which registers methods of your own
  -h, --help      show this message; sslfast COMMAND --help explains a command
  --version       show the version
"""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # the disk is to blame, not the path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; sys.argv's if None) and return its exit code.

    0: done. 1: the training broke down, or memory or disk is full. 2: wrong usage, or a path that cannot be used. 130:
    interrupted. Whatever went wrong is one line on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has ASCII only shows "?" for what it has not
            stream.reconfigure(errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] in ([], ["-h"], ["--help"]):
            print(USAGE, end="")
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(f"sslfast {__version__}")
            return 0
        modules, arguments = _imports(arguments)
        command = _command(arguments[0])
        for module in modules:
            import_module(module)
        status = command(arguments[1:])
        sys.stdout.flush()  # whoever does not listen any more shows here, and not when Python ends
        return status
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except (UsageError, ValueError, TypeError, ImportError) as error:
        return _fail(error, 2)
    except BrokenPipeError:  # as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        named = error.strerror and error.filename  # else its words are ours
        return _fail(f"{error.strerror}: {error.filename}" if named else error, 1 if error.errno in NO_ROOM else 2)
    except FloatingPointError as error:
        return _fail(error, 1)
    except MemoryError as error:
        return _fail(error if str(error) else "out of memory", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _fail(error: Exception | str, code: int) -> int:
    print(f"sslfast: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


# Imported when they are asked for: torch alone takes seconds.
COMMANDS = {
    "pretrain": "pretrain:pretrain",
    "evaluate": "evaluate:evaluate",
    "embed": "embed:embed",
    "report": "evaluate:report",
    "compare": "compare:compare",
    "calibrate": "calibrate:calibrate",
    "show-views": "show_views:show_views",
    "new-method": "new_method:new_method",
    "recipes": "lists:recipes",
    "info": "lists:info",
}


def _imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules that `--import` names, anywhere, and the other arguments."""
    modules, others = [], []
    words = iter(arguments)
    for word in words:
        if word == "--import" or word.startswith("--import="):
            module = word.partition("=")[2] or next(words, "")
            if not module or module.startswith("-"):
                raise UsageError("--import wants the name of a module")
            modules.append(module)
        else:
            others.append(word)
    if not others:
        raise UsageError("--import wants a command besides")
    return modules, others


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}{nearest(name, COMMANDS)}; there are {', '.join(COMMANDS)}")
    if sys.stderr.isatty():
        print(f"sslfast {__version__}: {name}", file=sys.stderr, flush=True)
    module, function = COMMANDS[name].split(":")
    return getattr(importlib.import_module(f"sslfast.cli.{module}"), function)
