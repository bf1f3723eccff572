"""Names of folders become names that a study takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_demix.config._names import check_folders, check_name
from optuna_demix.starting.names import usable_names

# What a file system may hold: anything but slashes and NUL, bytes that are no UTF-8 as surrogates.
FOLDERS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0") | st.sampled_from("\udc80 .\n\\é"),
    min_size=1,
    max_size=80,
)


@settings(deadline=None)
@given(st.lists(FOLDERS, unique=True, min_size=1, max_size=6))
def test_every_folder_gets_a_name_of_its_own_that_a_study_takes(found: list[str]) -> None:
    names = usable_names(found)
    assert list(names) == found
    for name in names.values():
        check_name(name, "components")
    check_folders(names.values())


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["web text", "c++: 'old'", "2024", "Größe"], ["web text", "c++: 'old'", "2024", "Größe"]),
        (["base", "web"], ["base-2", "web"]),
        (["Web", "web"], ["Web", "web-2"]),
        ([" web ", "a\nb", "a\\b"], ["web", "a_b", "a_b-2"]),
        (["x" * 250], ["x" * 180]),
    ],
    ids=["kept", "reserved", "one folder without case", "cleaned", "shortened"],
)
def test_a_name_is_changed_only_where_it_must_be(found: list[str], names: list[str]) -> None:
    assert list(usable_names(found).values()) == names
