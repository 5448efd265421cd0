"""The context of a program that may outlive the local stack that it uses."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from threading import Lock
from typing import Self

from labelmill.core.money.prices import PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.running_stack import StackFile
from labelmill.core.settings import Settings, with_running_stack
from labelmill.services.context import ServiceContext, open_context


class CurrentContext:
    """The connections of a client, which are renewed when its local stack was started again.

    Each start of `labelmill up` gives its Redis another password, mostly another port, and perhaps another database.
    """

    def __init__(self, settings: Settings, named: Settings | None = None) -> None:
        """`named`: what of the settings was named, where the rest comes from a running `labelmill up`."""
        self.settings = settings
        self._named = named
        self._stack_file: StackFile | None = None
        self._changing = Lock()
        self._opened = ExitStack()
        self._context = open_context(settings)
        self._opened.callback(self._context.close)

    @classmethod
    def of_running_stack(cls, named: Settings) -> Self:
        """Connections to the addresses that are named, and for others to the `labelmill up` that runs on the data
        folder. Raises as `open_context`."""
        if named.is_remote:
            return cls(named)
        named = named.model_copy(update={"data_dir": str(named.data_path.absolute())})  # the program may change folders
        file = StackFile(named.data_path)
        made = cls(with_running_stack(named), named)
        made._stack_file = file
        return made

    def now(self) -> ServiceContext:
        """The context for the next call. Raises as `open_context`."""
        file = self._stack_file
        if file is not None and file.has_changed():
            with self._changing:
                version = file.version()  # before the file is read: the next call sees what is written meanwhile
                self._renew()
                file.note(version)
        return self._context

    def use(self, context: ServiceContext) -> None:
        """Use this context from now on."""
        self._context = context

    def close(self) -> None:
        """Close all connections that were opened here."""
        self._opened.close()

    def _renew(self) -> None:
        """Use the addresses of the stack that runs now. Former connections stay open: other threads may use them."""
        if self._named is None or (settings := with_running_stack(self._named)) == self.settings:
            return
        if settings.sql_url == self.settings.sql_url:
            sender = MessageSender.connect(settings)
            self._opened.callback(sender.close)
            self._context = replace(self._context, sender=sender, prices=PriceList.of(settings))
        else:
            self._context = open_context(settings)
            self._opened.callback(self._context.close)
        self.settings = settings
