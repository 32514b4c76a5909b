"""The command `dropout-contract`: check a dropout, list the clauses, test the contract itself."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import scipy.stats

from dropout_contract.backends import FRAMEWORKS, installed
from dropout_contract.checking import check
from dropout_contract.clauses import ORDERED, VERSION
from dropout_contract.report import Result, line
from dropout_contract.selftest import alarms, selftest
from dropout_contract.signatures import CannotCheck


def main(words: Sequence[str] | None = None) -> int:
    """Run the command. Exit status: 0 in order, 1 something deviates, 2 it cannot be run."""
    parser = argparse.ArgumentParser(
        prog="dropout-contract", description="What any inverted dropout must do, checked on yours."
    )
    parser.add_argument("--version", action="version", version=f"contract {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check", help="put one dropout to every clause")
    one.add_argument("subject", help="package.module:name or file.py:name, of a function or layer")
    one.add_argument("--framework", choices=FRAMEWORKS, help="guessed if it can be")
    one.add_argument("--p", type=float, help="the rate of a layer that is made already")
    seeds = one.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    seeds.add_argument("--fresh-seed", action="store_true", help="draw a seed, and print it")
    one.add_argument("--only", metavar="CLAUSE", action="append", help="may be given several times")
    one.add_argument("--strict", action="store_true", help="count deviations from conventions, too")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the report there as JSON")
    one.add_argument("--markdown", type=Path, metavar="FILE", help="and as Markdown")
    commands.add_parser("list", help="print all clauses")
    commands.add_parser("limits", help="say what the contract cannot see")
    itself = commands.add_parser("selftest", help="check that wrong dropouts are found")
    itself.add_argument(
        "--framework", choices=FRAMEWORKS, action="append", help="default: all here"
    )
    itself.add_argument(
        "--right", action="store_true", help="and that right ones pass (half an hour)"
    )
    itself.add_argument(
        "--alarms", type=int, metavar="RUNS", help="instead, count the false alarms of so many runs"
    )
    flags = parser.parse_args(words)
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that has no such letters gets escapes
            stream.reconfigure(errors="backslashreplace")
    run = {"check": _check, "list": _list, "limits": _limits, "selftest": _selftest}[flags.command]
    try:
        status = run(flags)
        sys.stdout.flush()
        return status
    except CannotCheck as error:
        print(f"dropout-contract: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has read enough
        _discard_output()
        return 2
    except OSError as error:  # a full disk
        _discard_output()
        print(f"dropout-contract: cannot write the output: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dropout-contract: interrupted", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Let what is still to be written end nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(flags: argparse.Namespace) -> int:
    for file in (flags.json, flags.markdown):
        if file is not None and not file.parent.is_dir():
            raise CannotCheck(f"there is no folder {str(file.parent)!r} for {file.name}")
        if file is not None and file.is_dir():
            raise CannotCheck(f"{str(file)!r} is a folder: name a file in it")
    report = check(
        flags.subject,
        flags.framework,
        p=flags.p,
        only=flags.only,
        seed=None if flags.fresh_seed else flags.seed,
        strict=flags.strict,
        started=lambda report: print(f"{report.title}\n", flush=True),
        progress=_show,
    )
    print(f"\n{report.summary}")
    for file, text in ((flags.json, report.to_json), (flags.markdown, report.to_markdown)):
        if file is not None:
            try:
                file.write_text(text())
            except OSError as error:
                raise CannotCheck(f"cannot write {str(file)!r}: {error.strerror}") from error
    return 0 if report.ok else 1 if report.checked else 2


def _show(result: Result) -> None:
    if result.outcome != "not applicable":  # those stand together in the summary
        print(line(result), flush=True)


def _list(flags: argparse.Namespace) -> int:
    for statistical, title in ((False, "decided exactly:"), (True, "decided by counting:")):
        print(title)
        for clause in ORDERED:
            if clause.statistical == statistical:
                print(f"{clause.tier:10}  {clause.name}: {clause.sentence}")
    return 0


def _limits(flags: argparse.Namespace) -> int:
    print(files("dropout_contract").joinpath("limits.md").read_text(), end="")
    return 0


def _selftest(flags: argparse.Namespace) -> int:
    if flags.alarms is not None:
        if flags.alarms < 1:
            raise CannotCheck("--alarms needs at least one run")
        found, bound = alarms(flags.alarms)
        print(f"{found} of {flags.alarms} runs raised a false alarm; promised are at most"
              f" {bound:.3f} per run")  # fmt: skip
        return 0 if found <= scipy.stats.binom.isf(1e-6, flags.alarms, bound) else 1
    frameworks = flags.framework or [name for name in FRAMEWORKS if installed(name)]
    for framework in frameworks:
        if not installed(framework):
            raise CannotCheck(f"{framework} is not installed here: pip install {framework}")
    ok = True
    for framework in frameworks:
        ok &= selftest(framework, right=flags.right, say=lambda text: print(text, flush=True))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
