"""YAML in which no key of a mapping is given twice."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


def load_yaml(text: str) -> Any:
    """Read YAML into plain data; merge keys (``<<``) are followed.

    Raises:
        yaml.YAMLError: If it is no YAML, or a key is given twice, of which YAML keeps the last.
        ValueError: If a value, such as a date, cannot be.
        RecursionError: If it is nested too deeply.
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)


class _UniqueKeyLoader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here rather than where mappings are made: there the merged keys are among the others.
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain name", key_node.start_mark
                )
            is_merge = key_node.tag == _MERGE
            key = _MERGE if is_merge else self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key_node.value!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return node
