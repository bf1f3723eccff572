"""``Catalog``: the tasks that local directories and lm-eval define, by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, is_higher_better
from lm_eval.config.group import GroupConfig
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from optuna_demix.errors import TaskError
from optuna_demix.scoring.harness.data_files import with_absolute_data
from optuna_demix.scoring.harness.quiet import quiet
from optuna_demix.scoring.harness.reasons import reason
from optuna_demix.scoring.harness.task_specs import Leaf, TaskSpec, configured_metrics


class Catalog:
    """Tasks by name: those of local directories first, then lm-eval's own.

    lm-eval's index of its own tasks takes seconds to read, so it is read only for a name that the
    local directories lack.

    Args:
        folders: Directories of local tasks.

    Raises:
        TaskError: If one of them is not a directory.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise TaskError(
                    f"include_path {folder} is not a directory; create it or correct it"
                )
        self.folders = [folder.resolve() for folder in folders]
        with quiet():
            self._manager = TaskManager(
                include_path=[str(folder) for folder in self.folders], include_defaults=False
            )
        self._local = dict(self._index)
        self._complete = False

    @property
    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = self._manager.task_index  # the very mapping that loading reads
        return index

    @property
    def names(self) -> list[str]:
        """Every name known so far."""
        return sorted(self._index)

    @property
    def local_tasks(self) -> list[str]:
        """Tasks of the local directories, without their groups and tags."""
        kinds = (Kind.TASK, Kind.PY_TASK)
        return sorted(name for name, entry in self._local.items() if entry.kind in kinds)

    def spec(self, name: str) -> TaskSpec | None:
        """What the configuration says about a name; ``None`` if nothing has it.

        Raises:
            TaskError: If the file that defines it cannot be read, or its group names a task that
                does not exist.
        """
        entry = self._find(name)
        if entry is None:
            return None
        config = entry.cfg or {}
        kind = {Kind.GROUP: "group", Kind.TAG: "tag"}.get(entry.kind, "task")
        aggregates = (
            {agg["metric"]: _filter_list(agg) for agg in _listed(config, "aggregate_metric_list")}
            if kind == "group"
            else {}
        )
        try:
            leaves = tuple(self._leaves(entry, {}))
        except (TypeError, KeyError, AttributeError) as error:
            raise TaskError(
                f"{entry.yaml_path}: task {name!r} cannot be read: {error!r}"
            ) from error
        return TaskSpec(name, kind, entry.yaml_path, leaves, aggregates)  # type: ignore[arg-type]

    def load(
        self, name: str, metadata: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load a task or group with its data.

        Args:
            name: The task or group.
            metadata: Goes over the metadata of each task.

        Returns:
            The tasks and the groups behind the name, by name.

        Raises:
            TaskError: If lm-eval or datasets cannot load it.
        """
        local = name in self._local
        path = (self._local if local else self._index)[name].yaml_path
        try:
            self._make_data_absolute(name)
            with quiet(count_downloads=not local):
                loaded = self._manager_with(metadata).load([name])
        except TaskError:
            raise
        except Exception as error:
            raise TaskError(f"{path}: task {name!r} cannot be loaded: {reason(error)}") from error
        return dict(loaded["tasks"]), dict(loaded["groups"])

    def _manager_with(self, metadata: Mapping[str, Any] | None) -> TaskManager:
        if not metadata:
            return self._manager
        manager = TaskManager(include_defaults=False, metadata=dict(metadata))
        manager.task_index.update(self._index)
        return manager

    def _find(self, name: str) -> Any | None:
        if name not in self._index and not self._complete:
            self._raise_if_broken(name)
            for known, entry in _own_index().items():
                self._index.setdefault(known, entry)
            self._complete = True
        return self._index.get(name)

    def _raise_if_broken(self, name: str) -> None:
        """Name the local file that would define a task if it could be read."""
        for folder in self.folders:
            for path in sorted(folder.rglob("*.yaml")):
                text = path.read_text("utf-8", errors="replace")
                if not any(
                    line.partition("#")[0].replace('"', "").replace("'", "").split()
                    in (["task:", name], ["group:", name])
                    for line in text.splitlines()
                ):
                    continue
                try:
                    load_yaml(path, resolve_func=False)
                except Exception as error:
                    raise TaskError(
                        f"{path}: task {name!r} cannot be read: {reason(error)}"
                    ) from error

    def _leaves(self, entry: Any, overrides: Mapping[str, Any]) -> Iterator[Leaf]:
        """The tasks behind an entry with their overrides, as lm-eval's factory builds them."""
        if entry.kind is Kind.TAG:
            for name in sorted(entry.tags):
                yield from self._leaves(self._member(entry, name), overrides)
        elif entry.kind is Kind.GROUP:
            yield from self._group_leaves(entry, entry.cfg, overrides)
        else:
            yield self._leaf(entry.name, {**(entry.cfg or {}), **overrides}, entry.yaml_path)

    def _group_leaves(
        self, entry: Any, config: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> Iterator[Leaf]:
        if entry.yaml_path is not None and self._is_local(entry.yaml_path):
            config = with_absolute_data(config, entry.yaml_path.parent)
        structural = {f.name for f in dataclass_fields(GroupConfig)}
        overrides = {**{k: v for k, v in config.items() if k not in structural}, **overrides}
        for member in _listed(config, "task"):
            if isinstance(member, str):
                yield from self._leaves(self._member(entry, member), overrides)
                continue
            merged = {**overrides, **member}
            name = member.get("group", member.get("task"))
            inline = "task" in member and ("group" in member or "dataset_path" in member)
            if inline and name not in self._index:
                if "group" in member:
                    yield from self._group_leaves(entry, member, overrides)
                else:
                    yield self._leaf(f"{entry.name}::{name}", merged, entry.yaml_path)
                continue
            merged.pop("group", None)
            yield from self._leaves(self._member(entry, name), merged)

    def _member(self, entry: Any, name: str) -> Any:
        found = self._find(name)
        if found is None:
            raise TaskError(
                f"{entry.yaml_path}: group {entry.name!r} names task {name!r}, which does not "
                "exist"
            )
        return found

    def _leaf(self, name: str, config: Mapping[str, Any], path: Path | None) -> Leaf:
        if path is not None and self._is_local(path):
            config = with_absolute_data(config, path.parent)
        metrics, is_open = configured_metrics(
            config, defaults=DEFAULT_METRIC_REGISTRY, direction=_direction
        )
        return Leaf(name, config, path, metrics, is_open)

    def _is_local(self, path: Path) -> bool:
        return any(folder in path.resolve().parents for folder in self.folders)

    def _make_data_absolute(self, name: str) -> None:
        """Give lm-eval absolute data paths for a local name and all that it refers to."""
        entry = self._index.get(name)
        if entry is None or entry.yaml_path is None or not self._is_local(entry.yaml_path):
            return
        folder = entry.yaml_path.parent
        if with_absolute_data(entry.cfg, folder) != entry.cfg:
            config = with_absolute_data(load_yaml(entry.yaml_path, resolve_func=True), folder)
            self._index[name] = replace(entry, yaml_path=None, cfg=config)
        if entry.kind is Kind.GROUP:
            for member in _listed(entry.cfg, "task"):
                is_name = isinstance(member, str)
                self._make_data_absolute(
                    member if is_name else member.get("group", member.get("task"))
                )


@functools.cache
def _own_index() -> dict[str, Entry]:
    with quiet():
        return dict(TaskManager().task_index)


def _listed(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config.get(key) or []
    return value if isinstance(value, list) else [value]


def _filter_list(aggregate: Mapping[str, Any]) -> list[str] | None:
    value = aggregate.get("filter_list")
    return [value] if isinstance(value, str) else value


def _direction(metric: str) -> bool | None:
    with quiet():
        found = is_higher_better(metric)
    return None if found is None else bool(found)
