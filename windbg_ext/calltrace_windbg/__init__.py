"""calltrace in WinDbg: what answers `!calltrace` inside the debugger's process."""
