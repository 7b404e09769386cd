"""A package of many modules, and how often a server asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_executor import FarmExecutor

__all__ = ["Questions", "write_package"]


def write_package(folder: Path, name: str, levels: int, modules: int) -> None:
    """
    Write a package with packages in it, each of which imports its modules and the next package.

    Args:
        folder: Where to.
        name: Its name; ``count()`` in it returns how many modules were executed.
        levels: How many packages, one in the other.
        modules: How many modules, all in all, ``__init__.py`` included.
    """
    each = modules // levels
    place = folder
    for level in range(levels):
        place = place / (name if level == 0 else f"level{level}")
        place.mkdir()
        lines = [f"from . import part{number}" for number in range(each - 1)]
        lines += [f"from . import level{level + 1}"] * (level < levels - 1)
        lines += [f"from {name}_seen import SEEN", "SEEN.append(__name__)"]
        if level == 0:
            lines.append("def count():\n    return len(SEEN)")
        (place / "__init__.py").write_text("\n".join(lines) + "\n")
        for number in range(each - 1):
            near = f"from .part{number + 1} import VALUE as NEXT\n" * (number < each - 2)
            (place / f"part{number}.py").write_text(
                f"from {name}_seen import SEEN\n{near}VALUE = {number}\nSEEN.append(__name__)\n"
                f"# {'a comment, as there are in sources ' * 60}\n"
            )
    (folder / f"{name}_seen.py").write_text("SEEN = []\n")


class Questions:
    """Counts what servers ask an executor's client for; put in the place of what answers."""

    def __init__(self, executor: FarmExecutor) -> None:
        settings = executor._driver.settings
        self._modules = settings.modules
        self.count = 0
        settings.modules = self  # type: ignore[assignment]

    def answer(self, question: dict[str, Any]) -> Any:
        """Answer, and count."""
        self.count += 1
        return self._modules.answer(question)
