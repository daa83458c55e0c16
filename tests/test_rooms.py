"""docs/decisions/0023: no module imports itself by way of others.

An import for types only counts, and so does one inside a function.
"""

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules of which each imports each, by way of others or not (Tarjan)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for imported in imports[module]:
            if imported not in numbers:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], numbers[imported])
        if lowest[module] == numbers[module]:
            start = stack.index(module)
            group = set(stack[start:])
            del stack[start:]
            if len(group) > 1:
                groups.append(group)

    for module in imports:
        if module not in numbers:
            visit(module)
    return groups


def of_all_packages() -> list[set[str]]:
    graph = grimp.build_graph(*PACKAGES)
    return circles({module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)})


def test_a_circle_is_found_whole_and_what_leads_to_it_is_none() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}) == [{"b", "c"}]


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert [sorted(group) for group in of_all_packages()] == []
