"""Finds which modules of a network are its blocks, and which stand beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from torch import nn

# Of a module's weights, how much has to lie in the row inside it for the module to be a stage.
_STAGE = 0.6
_NUMBERED = re.compile(r"\d+[a-z]?$")

_Named = tuple[str, nn.Module]


@dataclass(frozen=True, eq=False)
class Stack:
    """Blocks that stand in one row, or in stages of such rows.

    Attributes:
        place: path of what the row belongs to, such as "vision_model.encoder".
        holder: path of the row itself, such as "vision_model.encoder.layers".
        blocks: path of a block -> its name within the stack, such as "stage2.block1".
        modules: path of a block -> the block.
        around: paths that are neither blocks nor whole layers, because blocks lie inside.
        stages: path of a stage -> its name within the stack.
    """

    place: str
    holder: str
    blocks: dict[str, str] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    around: set[str] = field(default_factory=set)
    stages: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, name: str, block: nn.Module) -> None:
        """Takes a block in."""
        self.blocks[path], self.modules[path] = name, block


def stacks(network: nn.Module) -> list[Stack]:
    """Every stack of blocks, in the order of the modules; none inside the block of another.

    A row is two or more modules of one class, each with two or more matrices of weights: the items
    of a `ModuleList` (one will do) or `Sequential`, and attributes named alike up to a number, such
    as layer1 to layer4 or inception3a to inception5b. Where rows make up most of every module of a
    row, those modules are stages.

    Example:
        >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), num_layers=3)
        >>> list(stacks(encoder)[0].blocks.values())
        ['block0', 'block1', 'block2']
    """
    return list(_stacks(network, ""))


def beside(network: nn.Module, found: Iterable[Stack]) -> dict[str, nn.Module]:
    """The largest modules with weights that are no blocks and hold none: path -> module.

    Where there are no blocks at all, sequences are opened, so that each of their modules counts,
    and so is a single module that is all there is.
    """
    found = list(found)
    blocks = {path for stack in found for path in stack.blocks}
    opened = {path for stack in found for path in stack.around}
    modules = dict(_outside(network, "", blocks, opened, sequences=not found))
    while len(modules) == 1 and not found:
        path, module = next(iter(modules.items()))
        inner = dict(_outside(module, path, blocks, opened, sequences=True))
        if not inner:
            break
        modules = inner
    return modules


def join(*parts: str) -> str:
    """A dotted path of parts, the empty ones left out."""
    return ".".join(part for part in parts if part)


def _outside(
    module: nn.Module, path: str, blocks: set[str], opened: set[str], *, sequences: bool
) -> Iterator[_Named]:
    for name, child in module.named_children():
        where = join(path, name)
        if where in blocks or next(child.parameters(), None) is None:
            continue
        never_called = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if where in opened or never_called or (sequences and _is_list(child)):
            yield from _outside(child, where, blocks, opened, sequences=sequences)
        else:
            yield where, child


def _stacks(module: nn.Module, path: str) -> Iterator[Stack]:
    rows = _rows(module)
    inside = {name for row in rows for name, _ in row}
    for row in rows:
        yield _stack(module, path, row)
    for name, child in module.named_children():
        if name not in inside:
            for stack in _stacks(child, join(path, name)):
                stack.around.add(join(path, name))
                yield stack


def _stack(owner: nn.Module, path: str, row: list[_Named]) -> Stack:
    inner = [_inside(child) for _, child in row]
    held = sum(_size(block) for blocks in inner for _, block in blocks)
    staged = all(inner) and held > _STAGE * sum(_size(child) for _, child in row)
    stem = _NUMBERED.sub("", row[0][0])
    place, holder = (path.rpartition(".")[0], path) if _is_list(owner) else (path, join(path, stem))
    stack = Stack(place, holder)
    for i, (name, child) in enumerate(row):
        where = join(path, name)
        if not staged:
            stack.add(where, f"block{i}", child)
            continue
        stack.stages[where] = f"stage{i}"
        stack.around.add(where)
        for j, (below, block) in enumerate(inner[i]):
            stack.add(join(where, below), f"stage{i}.block{j}", block)
            if "." in below:
                stack.around.add(join(where, below.rpartition(".")[0]))
    return stack


def _inside(stage: nn.Module) -> list[_Named]:
    """The row that makes up most of a stage; one block is enough for it."""
    best: list[_Named] = []
    for at, holder in [("", stage), *stage.named_children()]:
        for row in _rows(holder, least=1 if holder is stage or _is_list(holder) else 2):
            if sum(_size(b) for _, b in row) > sum(_size(b) for _, b in best):
                best = [(join(at, name), block) for name, block in row]
    return best


def _rows(module: nn.Module, *, least: int = 2) -> list[list[_Named]]:
    items = [(name, child) for name, child in module.named_children() if _is_block(child)]
    if _is_list(module):
        # Hybrids alternate blocks of two classes, and a first block may be of its own.
        usual = Counter(type(child) for _, child in items).most_common(1)
        least = 1 if isinstance(module, nn.ModuleList) else least
        mixed = usual and (usual[0][1] > 1 or len(items) == 1) and usual[0][1] >= len(items) / 2
        return [items] if mixed and len(items) >= least else []
    groups: dict[tuple[type, str], list[_Named]] = {}
    for name, child in items:
        if _NUMBERED.search(name):
            groups.setdefault((type(child), _NUMBERED.sub("", name)), []).append((name, child))
    return [row for row in groups.values() if len(row) >= least]


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential)


def _is_block(module: nn.Module) -> bool:
    """Whether it is more than one linear map with its norm and activation."""
    matrices = (p for p in module.parameters() if p.ndim >= 2)
    return next(module.children(), None) is not None and len(list(islice(matrices, 2))) == 2


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
