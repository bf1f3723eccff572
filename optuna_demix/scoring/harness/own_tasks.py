"""``OwnTasks``: single entries of lm-eval's index of its own tasks.

The index is made of 14,000 YAML files, which takes seven seconds. What it says of one name follows
from the few files in which that name stands, or that include one in which it does.
"""

from __future__ import annotations

import re
from pathlib import Path

from lm_eval.tasks._index import Entry, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

_INCLUDE = re.compile(rb"^[\"']?include[\"']?[ \t]*:[ \t]*([^ \t\r\n]*)[ \t\r]*(.?)", re.MULTILINE)
_FILE_NAME = re.compile(r"[\w./-]+")


class OwnTasks:
    """The tasks of a folder, by name: files are read as text, and as YAML where that tells.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._texts = {path: path.read_bytes() for path in TaskIndex._iter_yaml_files(root)}
        self._indexed = frozenset(self._texts)
        self._includers: dict[Path, list[Path]] = {}
        waiting = list(self._texts.items())
        while waiting:
            path, text = waiting.pop()
            for included in _included(path, text):
                self._includers.setdefault(included, []).append(path)
                if included not in self._texts:
                    self._texts[included] = included.read_bytes() if included.is_file() else b""
                    waiting.append((included, self._texts[included]))

    def entry(self, name: str) -> Entry | None:
        """What the folder's index has under a name; ``None`` for nothing."""
        found: dict[str, Entry] = {}
        for path in self._candidates(name):
            try:
                TaskIndex.process_cfg(load_yaml(path, resolve_func=False), path, found)
            except Exception:  # the index passes over it, too
                continue
        return found.get(name)

    def _candidates(self, name: str) -> list[Path]:
        """Files that may define a name, or tag a task with it, in the index's order."""
        word = name.encode()
        scalar = re.compile(rb"(?:^|[\s\"',\[{])" + re.escape(word) + rb"(?:$|[\s\"',\]}])")
        found = {
            path for path, text in self._texts.items() if word in text and scalar.search(text)
        }
        waiting = list(found)
        while waiting:
            new = set(self._includers.get(waiting.pop(), ())) - found
            found |= new
            waiting += new
        return sorted(found & self._indexed, key=Path.as_posix)


def _included(path: Path, text: bytes) -> list[Path]:
    """The files that a YAML file includes."""
    match = _INCLUDE.search(text) if b"include" in text else None
    if match is None:
        return []
    name = match[1].decode().strip("\"'")
    if _FILE_NAME.fullmatch(name) and not match[2]:
        return [path.parent / name]
    try:  # several, or with a comment
        names = load_yaml(path, resolve_func=False, recursive=False)["include"]
    except Exception:
        return []
    return [path.parent / name for name in ([names] if isinstance(names, str) else names)]
