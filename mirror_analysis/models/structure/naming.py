"""Readable names of layers that stay the same between versions of a package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from mirror_analysis.models.structure.stacks import Stack, join

_HEADS = {"classifier", "fc", "head", "head_fc", "heads", "logits"}


def layer_names(
    found: Sequence[Stack], rest: Mapping[str, nn.Module], order: Sequence[str]
) -> dict[str, str]:
    """A name for every layer.

    Args:
        found: the stacks of blocks.
        rest: path -> module, of what stands beside them.
        order: paths of all layers, in forward order.

    Returns:
        Path -> name, no two alike: "block0" or "stage1.block0" with the word for their stack
        before it where several run; what stands beside is named as its attribute, but the
        norm of a layer is "norm", or "norm_pre" before the blocks, and what comes after the blocks
        "pooler" or "head" where it is one.
    """
    running = [stack for stack in found if any(path in stack.blocks for path in order)]
    words = _words(running)
    names: dict[str, str] = {}
    for stack, word in zip(running, words, strict=True):
        names |= {path: join(word, name) for path, name in stack.blocks.items() if path in order}
    blocks = [i for i, path in enumerate(order) if path in names]
    single = {path: _single(path, rest[path], i, blocks) for i, path in enumerate(order)
              if path not in names}  # fmt: skip
    for path, own in single.items():
        place = next((join(w, n) for s, w in zip(running, words, strict=True)
                      for at, n in s.stages.items() if path.startswith(f"{at}.")), "")  # fmt: skip
        names[path] = join(place, own)
    for path in single:
        if list(names.values()).count(names[path]) > 1:
            names[path] = _apart(path, single)
    return {path: names[path] for path in order}


def _words(running: Sequence[Stack]) -> list[str]:
    if len(running) < 2:
        return [""] * len(running)
    for paths in ([stack.place for stack in running], [stack.holder for stack in running]):
        if len(set(paths)) == len(paths) and all(paths):
            return [word.removesuffix("_model") for word in _endings(paths)]
    return [stack.holder or "network" for stack in running]


def _endings(paths: Sequence[str]) -> list[str]:
    """The shortest words that tell paths apart, without what all of them end with."""
    parts = [path.split(".") for path in paths]
    while min(map(len, parts)) > 1 and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    ends = ([".".join(p[-k:]) for p in parts] for k in range(1, max(map(len, parts)) + 1))
    return next(words for words in ends if len(set(words)) == len(words))


def _without_common(paths: Sequence[str]) -> list[str]:
    parts = [path.split(".") for path in paths]
    common = 0
    while len({tuple(p[: common + 1]) for p in parts}) == 1 and common + 1 < min(map(len, parts)):
        common += 1
    return [".".join(p[common:]) for p in parts]


def _single(path: str, module: nn.Module, at: int, blocks: Sequence[int]) -> str:
    kind = type(module).__name__.lower()
    own = path.rpartition(".")[2]
    if blocks and at > blocks[-1]:
        if "pool" in kind:
            return "pooler"
        if own in _HEADS:
            return "head"
    if blocks and ("layernorm" in kind or "rmsnorm" in kind or "layer_norm" in kind):
        return "norm" if at > blocks[0] else "norm_pre"
    parts = path.split(".")
    while len(parts) > 1 and parts[-1].isdigit() and parts[-2].isdigit():
        parts = [*parts[:-2], f"{parts[-2]}.{parts[-1]}"]
    if parts[-1].replace(".", "").isdigit() and len(parts) > 1:
        return ".".join(parts[-2:])
    return parts[-1]


def _apart(path: str, others: Mapping[str, str]) -> str:
    """The path without what the paths of all the others begin with."""
    paths = list(others)
    return _without_common(paths)[paths.index(path)] if len(paths) > 1 else path
