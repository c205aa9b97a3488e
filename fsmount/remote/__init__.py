"""The remotes: one module a protocol over one shared HTTP client; the only package that knows httpx."""
