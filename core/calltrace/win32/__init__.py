"""The standalone port: processes of this machine through the Win32 debug API, with no debugger at all."""
