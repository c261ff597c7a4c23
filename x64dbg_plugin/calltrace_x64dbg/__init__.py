"""calltrace in x64dbg: what answers the command `calltrace` inside the debugger's process."""
