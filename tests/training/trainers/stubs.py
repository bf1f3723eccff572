"""Stands in for packages that a reader's configuration imports and does not use."""

from __future__ import annotations

import importlib
import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest


class _Name(type):
    """A class for any name: what is asked of it is there."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(name)

    def __contains__(cls, item: object) -> bool:
        return True


def _named(name: str) -> Any:
    # Called as a decorator with arguments it gives one that changes nothing.
    methods = {"__init__": lambda self, *a, **k: None, "__call__": lambda self, *a, **k: self}
    return _Name(name, (), methods)


class _Module(ModuleType):
    __path__: list[str] = []
    __version__ = "0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, roots: tuple[str, ...]) -> None:
        self._roots = roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if any(name == root or name.startswith(f"{root}.") for root in self._roots):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def import_beside(monkeypatch: pytest.MonkeyPatch, module: str, *stubs: str) -> Any:
    """Import a module with stubs in place of others; skip the test if it is not here."""
    pytest.importorskip("transformers.tokenization_utils_base")  # looks for optional packages
    before = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [_Finder(stubs), *sys.meta_path])
    try:
        return pytest.importorskip(module, reason=f"no {module} here")
    finally:
        root = module.partition(".")[0]
        for name in set(sys.modules) - before:  # what was made of stubs is for this test alone
            if name.partition(".")[0] == root or isinstance(sys.modules[name], _Module):
                monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
