"""What can be told to whoever listens to the engine's notifications."""

from __future__ import annotations


class Listener:
    """Is told on the engine's thread, with the engine's functions at hand as in a command; a base class.

    Whoever raises an exception is told nothing more, and the user that.
    """

    def accessible(self) -> None:
        """The target has stopped, and its user is about to be asked for a command."""

    def inactive(self) -> None:
        """The session has no target any more, or will have none in a moment."""

    def scope_changed(self) -> None:
        """The user has chosen another frame, whose local variables he sees from now on."""

    def symbols_loaded(self, base: int) -> None:
        """The engine has loaded a module's symbols anew; 0: modules by `.reload`, or symbol options changed.

        In the first case it must not be made to load others.
        """
