"""What recordings without events (--mode graph) say: their counts, as readers of events would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from calltrace.model import NOBODY, NONE_ID, NodeKind
from calltrace.tracefile import GRAPH_SITE, Graph, GraphRow, GraphThread, Stat, Totals

BY_JUMPS, BY_STACK = range(2)  # enum ct_graph_view

# calls, self and total time, position of the row above it, id, kind, whether by a jump: struct ct_edge
Edge = tuple[int, int, int, int, int, int, int]


def summary(
    graph: Graph, first: int, count: int
) -> tuple[Totals, Callable[[NodeKind], Iterable[tuple[int, Stat]]]]:
    """Totals of `count` threads from position `first` on; and, by kind, each id with what was counted."""
    totals = Totals()
    stats: dict[tuple[int, int], Stat] = {}
    begun = False
    for about, rows in _threads(graph, first, count):
        _add(totals, about.totals, begun)
        begun = True
        for row in rows:
            if row.caller != NONE_ID or row.kind == NodeKind.CALL:
                continue  # calls are told by site
            key = NodeKind.CALL if row.kind == GRAPH_SITE else row.kind, row.id
            stat = stats.setdefault(key, Stat())
            stat.calls += row.calls
            stat.self += row.self_time
            stat.total += row.total_time
    return totals, lambda kind: (
        (number, stat) for (of, number), stat in sorted(stats.items(), key=_key) if of == kind
    )


def _key(item: tuple[tuple[int, int], Stat]) -> tuple[int, int]:
    return item[0]


def _add(totals: Totals, more: Totals, begun: bool) -> None:
    for name, *_ in Totals._fields_:
        mine, theirs = getattr(totals, name), getattr(more, name)
        if name == "first_time":
            totals.first_time = min(mine, theirs) if begun else theirs
        elif name in ("last_time", "max_depth"):
            setattr(totals, name, max(mine, theirs))
        elif isinstance(mine, int):
            setattr(totals, name, mine + theirs)
        else:
            for at, number in enumerate(theirs):
                mine[at] += number


def callees(
    graph: Graph, first: int, count: int, view: int, chosen: Callable[[int, int], bool]
) -> Iterator[Edge]:
    """Of each place chosen (kind, id) itself, and what it calls; as ct_reader_edges_of does."""
    made = 0
    for _, rows in _threads(graph, first, count):
        positions: dict[int, int] = {}  # row of a place -> number of what was given for it
        for row in rows:
            place = row if row.caller == NONE_ID else rows[row.caller]
            if not _is_told(row, view) or place.kind >= NOBODY or not chosen(place.kind, place.id):
                continue
            if place.position not in positions:
                positions[place.position] = made
                yield _edge(place, view, NONE_ID, place)
                made += 1
            if row is not place:
                yield _edge(row, view, positions[place.position], row)
                made += 1


def callers(graph: Graph, first: int, count: int, chosen: Callable[[int, int], bool]) -> Iterator[Edge]:
    """Of each place chosen (kind, id) itself, and who calls it; as ct_reader_edges_of does."""
    made = 0
    for _, rows in _threads(graph, first, count):
        places = {(row.kind, row.id): row for row in rows if row.caller == NONE_ID}
        positions: dict[int, int] = {}
        for row in rows:
            if row.caller == NONE_ID or not _is_told(row, BY_JUMPS) or not chosen(row.kind, row.id):
                continue
            place = places[row.kind, row.id]
            if place.position not in positions:
                positions[place.position] = made
                yield _edge(place, BY_JUMPS, NONE_ID, place)
                made += 1
            yield _edge(row, BY_JUMPS, positions[place.position], rows[row.caller])
            made += 1


def _threads(graph: Graph, first: int, count: int) -> Sequence[tuple[GraphThread, list[GraphRow]]]:
    return graph.threads[first : first + count]


def _is_told(row: GraphRow, view: int) -> bool:
    if row.caller == NONE_ID:
        return bool(row.views)
    return bool(row.views & 1 << view)


def _edge(row: GraphRow, view: int, parent: int, other: GraphRow) -> Edge:
    if view == BY_STACK:
        return (row.stack_calls, row.stack_self, row.stack_total, parent, other.id, other.kind, row.tail)
    return (row.calls, row.self_time, row.total_time, parent, other.id, other.kind, row.tail)
