"""The remotes: one module a protocol over one shared HTTP client; the only package that knows httpx."""

import sys

# httpx without its own command line, as where that is not installed: rich and pygments are a tenth of a daemon's start.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
