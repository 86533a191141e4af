"""Where the outputs of several inputs go."""

from __future__ import annotations

from pathlib import Path

from normcli.arrays.paths import parse_path
from normcli.errors import UsageError


def output_names(inputs: list[str], folder: str) -> list[str]:
    """Return the output of each of several inputs: the same name, inside `folder`.

    Raises
    ------
    UsageError
        When two inputs would get the same output, or one is a stream.
    """
    names: list[str] = []
    containers: set[str] = set()
    for name in inputs:
        if name == "-":
            raise UsageError("Standard input cannot be one of several inputs.", "Apply it alone.")
        path = parse_path(name)
        container = str(Path(folder, path.container.name))
        if container in containers:
            raise UsageError(
                f"Several inputs would be written to {container}.",
                "Apply inputs of the same name, or of one container, one at a time.",
            )
        containers.add(container)
        names.append(str(Path(container, path.inner)))
    return names
