"""What a check found: as text on one screen, as JSON, and as Markdown."""

import dataclasses
import importlib.metadata
import json
import sys
from typing import Any

from dropout_contract.budget import RUN_FALSE_ALARM
from dropout_contract.run import CONVENTION, FRAGILE, TIERS, WRONG, Clause
from dropout_contract.subjects import Subject

PACKAGES = {
    "torch": ("torch", "keras", "numpy"),
    "jax": ("jax", "flax", "equinox", "dm-haiku", "keras", "numpy"),
    "numpy": ("numpy",),
}
MEANING = {
    WRONG: "the mathematics, the randomness or the gradient is not that of dropout",
    FRAGILE: "right in general, but it breaks at an edge",
    CONVENTION: "a matter of taste: error types, layout in memory, what is refused",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What one clause found.

    Attributes:
        clause: the clause.
        outcome: passed, deviates, not applicable, expected (a deviation that was announced) or
            unexpected (an announced deviation that did not come).
        fact: what was measured, or why it is not applicable, in one line.
        seconds: how long it took.
        error: the deviation, for tests.
    """

    clause: Clause
    outcome: str
    fact: str
    seconds: float
    error: Exception | None = None

    def fails(self, strict: bool) -> bool:
        """Return whether this result is a failure."""
        if self.outcome == "unexpected":
            return True
        return self.outcome == "deviates" and (strict or self.clause.tier != CONVENTION)


@dataclasses.dataclass
class Report:
    """All results of one subject."""

    subject: Subject
    version: str
    seed: int
    strict: bool = False
    results: list[Result] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing that counts deviates, and every expected deviation came."""
        return self.checked and not self.failures

    @property
    def checked(self) -> bool:
        """Whether any clause was applicable."""
        return any(result.outcome != "not applicable" for result in self.results)

    @property
    def failures(self) -> list[Result]:
        """The results that count as failures."""
        return [result for result in self.results if result.fails(self.strict)]

    def count(self, outcome: str, tier: str | None = None) -> int:
        """Return the number of results with an outcome, in one tier or in all."""
        return sum(r.outcome == outcome and tier in (None, r.clause.tier) for r in self.results)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        deviations = ", ".join(
            f"{self.count('deviates', tier)} {tier}"
            for tier in TIERS
            if self.count("deviates", tier)
        )
        parts = [f"{self.count('passed')} of {len(self.results)} clauses passed"]
        parts += [f"deviations: {deviations}"] if deviations else []
        for outcome in ("not applicable", "expected", "unexpected"):
            if self.count(outcome):
                parts.append(f"{self.count(outcome)} {outcome}")
        verdict = "OK" if self.ok else "NOT OK" if self.checked else "NOTHING CHECKED"
        return f"{verdict}: {'; '.join(parts)}"

    @property
    def limits(self) -> str:
        """What the verdict can miss, in two lines."""
        return (
            f"A right dropout is called wrong less than once in {1 / RUN_FALSE_ALARM:,.0f} runs."
            " A rate that is off by 2 % at p = 0.2,\nor a correlation of 0.1 between two units, is"
            " missed as rarely. What it cannot see: dropout-contract limits"
        )

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what was checked."""
        found = {}
        for package in PACKAGES[self.subject.framework]:
            if {"dm-haiku": "haiku"}.get(package, package) not in sys.modules:
                continue
            try:
                found[package] = importlib.metadata.version(package).split("+")[0]
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    @property
    def title(self) -> str:
        """What was checked, with what."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.subject.name} ({self.subject.kind}; {versions})\n"
            f"dropout-contract {self.version}, seed {self.seed}"
        )

    def __str__(self) -> str:
        lines = [line(result) for result in self.results if result.outcome != "not applicable"]
        return "\n".join([self.title, "", *lines, "", self.summary])

    @property
    def summary(self) -> str:
        """The end of the text: what was not applicable, the verdict, and what it is worth."""
        names: dict[str, list[str]] = {}
        for result in self.results:
            if result.outcome == "not applicable":
                names.setdefault(result.fact, []).append(result.clause.name)
        lines = [f"n/a, because {reason}: {', '.join(names[reason])}" for reason in names]
        lines += [""] if lines else []
        lines += [f"{self.headline} ({self.seconds:.0f} s)"]
        lines += [
            f"  {tier}: {MEANING[tier]}" + ("" if self.strict or tier != CONVENTION else
            ". Counts only with --strict")
            for tier in TIERS if self.count("deviates", tier)
        ]  # fmt: skip
        return "\n".join([*lines, self.limits])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "contract": self.version,
            "subject": self.subject.name,
            "kind": self.subject.kind,
            "framework": self.subject.framework,
            "versions": self.versions,
            "seed": self.seed,
            "strict": self.strict,
            "ok": self.ok,
            "headline": self.headline,
            "false_alarms_per_run": RUN_FALSE_ALARM,
            "seconds": round(self.seconds, 2),
            "clauses": [
                {
                    "name": result.clause.name,
                    "tier": result.clause.tier,
                    "says": result.clause.sentence,
                    "outcome": result.outcome,
                    "fact": result.fact,
                    "seconds": round(result.seconds, 3),
                }
                for result in self.results
            ],
        }

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [
            f"# {self.subject.name}",
            "",
            *(line + "  " for line in self.title.splitlines()),
            f"{self.headline}",
            "",
            "| tier | clause | outcome | says | measured |",
            "|---|---|---|---|---|",
        ]
        for result in self.results:
            fact = result.fact.replace("|", "\\|")
            clause = result.clause
            lines.append(
                f"| {clause.tier} | {clause.name} | {result.outcome} | {clause.sentence} | {fact} |"
            )
        return "\n".join([*lines, "", " ".join(self.limits.split())]) + "\n"


def line(result: Result) -> str:
    """Return one line for a result, and a second one if there is something to say."""
    clause = result.clause
    mark = {"passed": "passed", "not applicable": "n/a", "deviates": "DEVIATES",
            "expected": "expected", "unexpected": "UNEXPECTED"}[result.outcome]  # fmt: skip
    first = f"{mark:10} {clause.tier:10} {result.seconds:5.1f} s  {clause.name}: {clause.sentence}"
    if result.outcome in ("passed", "not applicable"):
        return first + (f" [{result.fact}]" if result.fact else "")
    return f"{first}\n{'':21} measured: {result.fact}"
