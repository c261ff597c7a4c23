"""What is known of the calls that led to an API: activations of functions, each called from another.

Both ways of climbing make these, so that what is concluded of them does not depend on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Activation:
    """One activation of a function: from its call to its return. Addresses are VAs."""

    thread: int
    place: int  # an address in the function that ran last: the call made last, or the API's start
    parent: Activation | None = None  # None: the outermost, or not climbed to yet
    # The call instruction in the parent; 0: entered by a jump from it; below: its place is not known.
    site: int = 0
    sp: int = 0  # the stack pointer at its calls, which tells it from other activations of its function
    children: list[Activation] = field(default_factory=list)  # in the order of their calls
    hit: Hit | None = None  # of the API itself

    def called(self, child: Activation, site: int) -> None:
        """`child` was called from `site`, or at 0, jumped to."""
        child.parent, child.site = self, site
        self.children.append(child)

    def ancestors(self) -> Iterator[Activation]:
        """Those that are known to have led to it, the nearest first."""
        above = self.parent
        while above:
            yield above
            above = above.parent

    def rounds(self) -> list[int]:
        """The sites that made more than one call that led to the API, in the order of their first.

        Those that are known come first.
        """
        sites = Counter(child.site for child in self.children if child.site)
        return sorted((site for site, count in sites.items() if count > 1), key=lambda site: site < 0)


@dataclass(eq=False)
class Hit:
    """One call of the API."""

    number: int
    thread: int
    group: str  # what its arguments have in common with other hits'; empty: nobody asked
    activation: Activation
