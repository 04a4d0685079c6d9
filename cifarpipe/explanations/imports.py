"""Import a package without those of its own imports that are slow and not used here."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn


class _LeftOut(ModuleType):
    """Stands for a module; what is taken from it says so when it is called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_arguments: object, **_named: object) -> NoReturn:
            raise RuntimeError(f"{self.__name__}.{name} was left out, to import quickly")

        return refuse


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Within this context, imports of these modules give stand-ins, unless they are loaded already.

    Args:
        names: Dotted; a package's submodules that are imported must be named too.
    """
    absent = {name: _LeftOut(name) for name in names if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
