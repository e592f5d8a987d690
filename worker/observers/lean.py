"""structlog without what it would load beside itself: rich, for the tracebacks of its console, and
greenlet, for a store that we do not use.

That is 5 MB in every worker; and rich's tracebacks show local variables: the arguments of a row.
"""

from __future__ import annotations

import sys

_hidden = [name for name in ("rich", "greenlet") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]  # makes an import of it fail
try:
    import structlog
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["structlog"]
