"""What ``pyproject.toml`` promises."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.packaging.interpreters import PROJECT, ROOT, VERSIONS

EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
NOT_FOR_USERS = {"all", "dev", "mergekit", "docs", "vllm"}
# Pinned in files of their own, or not at all.
OF_THEIR_OWN = {"mergekit", "vllm"}


def test_all_is_every_extra_that_users_may_want() -> None:
    (all_of,) = EXTRAS["all"]
    assert all_of.name == PROJECT["name"]
    assert all_of.extras == set(EXTRAS) - NOT_FOR_USERS


def test_what_is_claimed_is_what_may_be_installed() -> None:
    assert VERSIONS == ["3.11", "3.12", "3.13", "3.14"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert all(f"{version}.0" in allowed for version in VERSIONS)
    assert "3.10.18" not in allowed


def test_every_requirement_is_pinned_for_tests_at_a_version_that_it_allows() -> None:
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M))
    pins = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    required = [Requirement(line) for line in PROJECT["dependencies"]]
    required += [r for name, lines in EXTRAS.items() if name not in OF_THEIR_OWN for r in lines]
    wrong = [
        str(requirement)
        for requirement in required
        if requirement.name != PROJECT["name"]
        and not requirement.specifier.contains(
            pins.get(re.sub("[-_.]+", "-", requirement.name).lower(), "0"), prereleases=True
        )
    ]
    assert not wrong
