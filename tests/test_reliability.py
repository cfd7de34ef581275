"""The numbers of attacks in docs/reliability.md are those of the tests."""

import re
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT
from forks import run_code

PAGE = ROOT / "docs/reliability.md"
ROW = re.compile(r"\| (?P<kind>[^|]+) \| (?P<count>\d+) \| (?P<tests>[^|]+) \|")


def attack_rows() -> list[re.Match]:
    section = PAGE.read_text(encoding="utf-8").split("\n## Attacks\n")[1].split("\n## ")[0]
    return [row for line in section.splitlines() if (row := ROW.fullmatch(line))]


def named_tests(row: re.Match) -> list[tuple[str, str]]:
    """Return the file and the name of each test of a row."""
    named = []
    for group in row["tests"].split("; "):
        file, _, names = group.partition(": ")
        named += [(file.strip("`"), name) for name in re.findall(r"`(\w+)`", names)]
    return named


def collected_cases(files: list[str], folder: Path) -> Counter:
    """Count the cases of each test, which pytest collects without running them."""
    arguments = ["--collect-only", "-q", "-o", "addopts=", *files]
    code = f"import os, pytest; os.chdir({str(ROOT)!r}); pytest.main({arguments})"
    output = run_code(code, folder).stdout
    return Counter(re.findall(r"^(tests/\w+\.py)::(\w+)", output, re.MULTILINE))


def test_numbers_of_attacks_are_those_of_the_tests(tmp_path):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    rows = attack_rows()
    assert len(rows) >= 8
    cases = collected_cases(
        sorted({file for row in rows for file, _ in named_tests(row)}), tmp_path
    )
    counts = {row["kind"]: sum(cases[test] for test in named_tests(row)) for row in rows}
    assert {row["kind"]: int(row["count"]) for row in rows} == counts
    named = [test for row in rows for test in named_tests(row)]
    assert [test for test in named if not cases[test]] == []
    assert len(set(named)) == len(named)
    attacks = {test for test in cases if test[0] in ("tests/test_serve_attacks.py",)}
    assert attacks <= set(named)  # Each attack on the page is counted.
    total = re.search(r"(\d+) attacks", PAGE.read_text(encoding="utf-8"))
    assert int(total[1]) == sum(counts.values())
