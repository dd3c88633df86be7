"""A thread that follows a log: it goes on after each append, and looks now and then whether it missed one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from esim.contract import Store

_LOOK = 0.5  # seconds after which it looks at the log, whether an append woke it or not


class Follower:
    """Calls a function again and again, in a thread of its own, until it is stopped or that raises."""

    def __init__(self, store: Store, name: str, go_on: Callable[[], None]) -> None:
        """Stand ready to call `go_on` after each append to `store`; the thread has a `name`."""
        self.store, self.name = store, name
        self.error: BaseException | None = None
        """What ended the thread, if it was not stopped."""
        self.stopping = threading.Event()
        self._news = threading.Event()
        self._go_on = go_on
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether it follows the log now."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to follow, unless it does already."""
        if not self.alive:
            self.error = None
            self._thread = threading.Thread(target=self._follow, name=f"esim-{self.name}", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        self.store._listeners.append(self._news.set)
        try:
            while not self.stopping.is_set():
                self._news.clear()
                self._go_on()
                self._news.wait(_LOOK)
        except BaseException as error:  # noqa: BLE001 - whoever started it asks for it
            self.error = error
        finally:
            self.store._listeners.remove(self._news.set)
            self.stopping.clear()

    def stop(self) -> None:
        """Have the thread end once the function has returned; see `join`."""
        if self.alive:
            self.stopping.set()
            self._news.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None:
            self._thread.join()
            self.stopping.clear()
