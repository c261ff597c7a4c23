"""Reading Windows executables: headers and directories, checked before anything relies on them."""
