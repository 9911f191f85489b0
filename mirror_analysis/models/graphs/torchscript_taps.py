"""Gives the inner values of a TorchScript program back while it runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mirror_analysis.models.graphs import aten_operations
from mirror_analysis.models.graphs.layers import Operation, sites

Place = tuple[int, ...]
"""Calls that lead to a value, outermost first: numbers of `Taps.calls`."""


@dataclass(frozen=True)
class Call:
    """One place in a program where a value is given back.

    Attributes:
        path: the submodule called, relative to the module whose method calls it.
        word: its class, or the operation.
        channels: of an operation, as in `graph_layers.Operation`.
    """

    path: tuple[str, ...]
    word: str
    channels: int = 0


class Taps:
    """Puts taps into a freshly loaded program: at every call of a submodule, else at operations.

    The taps are operations of torch, of a name of their own, that hand values to Python. They
    have to be put in before the program runs for the first time.

    Args:
        module: the program.
        method: the method that runs it.
    """

    def __init__(self, module: torch.jit.ScriptModule, method: str = "forward") -> None:
        self.calls: list[Call] = []
        self.attributes: set[tuple[str, ...]] = set()
        self.constants: list[Tensor] = []
        self._take: Callable[[Place, Tensor], None] | None = None
        self._stack: list[int] = []
        self._namespace = f"mirror_taps_{uuid.uuid4().hex}"
        # torch does not say the types of this part of itself.
        self._library: Any = _untyped(torch.library).Library(self._namespace, "DEF")
        for name in ("enter", "leave", "tap"):
            self._library.define(f"{name}(Tensor(a) x, int call) -> Tensor(a)")
            self._library.impl(name, getattr(self, f"_{name}"), "CompositeExplicitAutograd")
        self._done: set[str] = set()
        graph = _graph(module, method)
        self._walk(module, (), method, set())
        if not self.calls:
            self._tap_operations(graph)

    def run(self, function: Callable[[], Any], take: Callable[[Place, Tensor], None]) -> Any:
        """Runs the program and hands every tapped value to `take`, in the order they come."""
        self._take, self._stack = take, []
        try:
            return function()
        finally:
            self._take, self._stack = None, []

    def scope(self, place: Place) -> tuple[str, ...]:
        """Path of the module whose value a place gives."""
        return tuple(name for call in place for name in self.calls[call].path)

    def _enter(self, x: Tensor, call: int) -> Tensor:
        self._stack.append(call)
        return x

    def _leave(self, x: Tensor, call: int) -> Tensor:
        place = tuple(self._stack)
        # A call within which another ended early leaves its numbers behind.
        while self._stack and self._stack.pop() != call:
            pass
        return self._given(place, x)

    def _tap(self, x: Tensor, call: int) -> Tensor:
        return self._given((*self._stack, call), x)

    def _given(self, place: Place, x: Tensor) -> Tensor:
        if self._take is not None:
            # A copy: the program may change it in place afterwards.
            self._take(place, x.detach().clone())
        return x

    def _walk(
        self, module: Any, path: tuple[str, ...], method: str, above: set[tuple[Any, ...]]
    ) -> None:
        key = (path, method)
        if key in above:
            return
        graph = _graph(module, method)
        own = next(graph.inputs()).debugName()
        # Modules of one class share one program: it is changed once and walked for each.
        first = f"{module._c.qualified_name}.{method}"
        change = first not in self._done
        self._done.add(first)
        for node in list(_nodes(graph)):
            kind = node.kind()
            if kind in ("prim::GetAttr", "prim::SetAttr"):
                where = _path(node.inputsAt(0), own)
                if where is not None:
                    self.attributes.add((*path, *where, node.s("name")))
            elif kind == "prim::Constant" and "value" in node.attributeNames():
                if node.kindOf("value") == "t":
                    self.constants.append(node.t("value"))
            elif kind == "prim::CallMethod":
                where = _path(node.inputsAt(0), own)
                if where is None:
                    continue
                child = module
                for name in where:
                    child = getattr(child, name)
                if where and change:
                    self._tap_call(graph, node, Call(where, child.original_name))
                self._walk(child, (*path, *where), node.s("name"), above | {key})

    def _tap_call(self, graph: Any, node: Any, call: Call) -> None:
        given = _tensor_of(node.output())
        takes = [i for i in range(1, node.inputsSize()) if _is_tensor(node.inputsAt(i))]
        if given is None or not takes:
            return
        number = len(self.calls)
        self.calls.append(call)
        self._insert(graph, "enter", node.inputsAt(takes[0]), number, before=node)
        self._insert(graph, "leave", given, number)

    def _insert(
        self, graph: Any, name: str, value: Any, number: int, *, before: Any = None
    ) -> None:
        constant = graph.insertConstant(number)
        tap = graph.create(f"{self._namespace}::{name}", [value, constant], 1)
        tap.output().setType(value.type())
        if before is not None:
            constant.node().moveBefore(before)
            tap.insertBefore(before)
            before.replaceInputWith(value, tap.output())
            return
        constant.node().moveAfter(value.node())
        tap.insertAfter(constant.node())
        value.replaceAllUsesAfterNodeWith(tap, tap.output())

    def _tap_operations(self, graph: Any) -> None:
        operations, values = [], {}
        for node in graph.nodes():
            word = node.kind().partition("::")[2].rstrip("_")
            if not node.kind().startswith("aten::") or node.outputsSize() < 1:
                continue
            output = node.outputsAt(0)
            inputs = [v for v in node.inputs() if v.node().kind() not in _STILL and _is_tensor(v)]
            values[output.debugName()] = output
            operations.append(
                Operation(
                    aten_operations.kind(word, len(inputs)),
                    tuple(v.debugName() for v in inputs),
                    output.debugName(),
                    (),
                    word,
                    aten_operations.channels(word),
                )
            )
        for site in sites(operations, [v.debugName() for v in graph.outputs()]):
            if _is_tensor(values[site.value]):
                self.calls.append(Call((), site.word, site.channels))
                self._insert(graph, "tap", values[site.value], len(self.calls) - 1)


def _untyped(module: Any) -> Any:
    return module


_STILL = {"prim::Constant", "prim::GetAttr", "prim::Param"}


def _graph(module: Any, method: str) -> Any:
    return module._c._get_method(method).graph


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _path(value: Any, own: str) -> tuple[str, ...] | None:
    """Names that lead from the method's own module to a value; None for other values."""
    if value.debugName() == own:
        return ()
    node = value.node()
    if node.kind() != "prim::GetAttr":
        return None
    before = _path(node.inputsAt(0), own)
    return None if before is None else (*before, node.s("name"))


def _is_tensor(value: Any) -> bool:
    return bool(value.type().kind() == "TensorType")


def _tensor_of(value: Any) -> Any:
    """The tensor of a call's value: itself, or the first of the tuple it is unpacked from."""
    if _is_tensor(value):
        return value
    for use in value.uses():
        if use.user.kind() == "prim::TupleUnpack":
            return next((v for v in use.user.outputs() if _is_tensor(v)), None)
    return None
