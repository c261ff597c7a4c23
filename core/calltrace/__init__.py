"""Records every call, entry and return of x64 Windows programs at full speed, and reads them back."""

__version__ = "0.1.0"
