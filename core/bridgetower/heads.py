"""The task heads of a checkpoint, and the tasks that need one."""

from bridgetower.errors import ModelError
from bridgetower.records import Head


def require_heads(heads: frozenset[Head], *needed: Head, way_out: str = "") -> None:
    """Raise `ModelError`, naming a checkpoint that has all of `needed`, or a `way_out`, unless they are all there."""
    for head in needed:
        if head not in heads:
            published = "large-itm-mlm-itc" if Head.ITC in needed else "base-itm-mlm"
            raise ModelError(
                f"this checkpoint has no {head.name} head: use one that has, such as "
                f"BridgeTower/bridgetower-{published}{way_out}"
            )
