"""Methods of COM objects, which no module exports: learned from the objects when they are made."""

from __future__ import annotations

from collections.abc import Callable

from calltrace.errors import AccessRefused, UsageError
from calltrace.loop.places import Places
from calltrace.loop.prototypes import Prototype, Prototypes, Read, raw
from calltrace.loop.watch import Watch
from calltrace.ports import Registers

Learned = Callable[[Prototype, int], None]  # a method, and its VA
Vtables = set[tuple[str, int]]  # interfaces and VAs


class Objects:
    """Watches what makes objects, and reads their vtables."""

    def __init__(
        self,
        read: Read,
        places: Places,
        prototypes: Prototypes,
        watch: Watch,
        learned: Learned,
        vtables: Vtables,
    ) -> None:
        """`learned` is called with each method, once for each place it is found at.

        `vtables` are those seen earlier in this target; those seen now are added.
        """
        self._read, self._places, self._prototypes, self._watch = read, places, prototypes, watch
        self._learned = learned
        self._makers = prototypes.makers()
        self._watched: dict[int, Prototype] = {}  # makers by VA
        self._vtables = vtables
        self._learned_from: Vtables = set()
        self._awaited: dict[
            tuple[int, int], list[tuple[str, int]]
        ] = {}  # thread, sp: kind and where it is put

    def look(self) -> None:
        """Watch the makers that the modules loaded now export, and whatever objects already had."""
        self._learn()
        for maker in self._makers:
            if maker.slot is None and maker not in self._watched.values():
                try:
                    address = self._places.resolve(f"{maker.owner}!{maker.name}")
                except UsageError:  # of another version, without it
                    continue
                if address:
                    self._watch_maker(maker, address)

    def _watch_maker(self, maker: Prototype, address: int) -> None:
        self._watched[address] = maker
        self._watch.at([address], self._called)

    def _called(self, thread: int, registers: Registers) -> None:
        maker = self._watched[registers.rip]
        made = [
            (parameter.kind, raw(registers, self._read, position))
            for position, parameter in enumerate(maker.parameters)
            if parameter.out
        ]
        back = self._places.original(int.from_bytes(self._read(registers.rsp, 8), "little"))
        self._awaited[thread, registers.rsp + 8] = [(kind, where) for kind, where in made if where]
        self._watch.at([back], self._returned)

    def _returned(self, thread: int, registers: Registers) -> None:
        for kind, where in self._awaited.pop((thread, registers.rsp), ()):
            if registers.rax & 0x80000000:  # a failed HRESULT
                return
            try:
                vtable = self._pointer(self._pointer(where))
            except AccessRefused:
                continue
            self._vtables.add((kind, vtable))
        self._learn()

    def _learn(self) -> None:
        for interface, vtable in sorted(self._vtables - self._learned_from):
            self._learned_from.add((interface, vtable))
            self._learn_from(interface, vtable)

    def _learn_from(self, interface: str, vtable: int) -> None:
        for method in self._prototypes.methods(interface):
            assert method.slot is not None
            try:
                address = self._pointer(vtable + 8 * method.slot)
            except AccessRefused:
                continue
            if not self._places.is_code(address):
                continue
            if method in self._makers and address not in self._watched:
                self._watch_maker(method, address)
            self._learned(method, address)

    def _pointer(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")
