"""A trace in which everything has an odd name, and threads are called alike."""

from __future__ import annotations

from pathlib import Path

from rig import tracewriter
from rig.tracewriter import TraceWriter, Units

MODULE = 'My, "app" ü;x'
LONG = "begin<" + "L" * 20_000 + ">end"  # some readers have an end of strings at 16,384 bytes
# As they are in the trace, and as they are told: what would steer a terminal or end a line is not.
NAMES = {
    "quote \" and ' it": "quote \" and ' it",
    "comma, semi; colon:": "comma, semi; colon:",
    "new\nline\ttab\r": "new\ufffdline\ufffdtab\ufffd",
    "<b>&amp; & &lt;x&gt; </script>": "<b>&amp; & &lt;x&gt; </script>",
    "größe Функция 関数 \U0001f600": "größe Функция 関数 \U0001f600",
    "back\\slash \\N \\l": "back\\slash \\N \\l",
    "trailing 42": "trailing 42",
    "(7) like callgrind's": "(7) like callgrind's",
    "half \ud800 of one": "half \ufffd of one",
    LONG: LONG,
    "twin": "twin",
}
IMPORT = 'K.dll!Fo;o, "x"'
TOLD = {f"{MODULE}!{name}" for name in NAMES.values()} | {IMPORT}
THREADS = 3


def oddly_named_trace(path: Path, unit_size: int) -> Path:
    """Threads of the same id, one after the other, each with all functions within one another.

    Two functions have the same name, and each function calls the import once.
    """
    functions = [*NAMES, "twin"]
    writer = TraceWriter(unit_size)
    writer.info({"command_line": "odd.exe half \ud800 of one\n \x1b[31m"})  # Windows has such file names
    rvas = [0x1000 + 16 * at for at in range(len(functions))]
    writer.module(
        {
            "path": f"C:\\My Programs\\{MODULE}.exe",
            "names": [list(each) for each in zip(rvas, functions)],
            "imports": [IMPORT],
        },
        [(rva, 16, 1, 0, 0, tracewriter.NONE) for rva in rvas],
        [(rva + 4, at, 0, 0) for at, rva in enumerate(rvas)],
    )
    timed = unit_size == 8
    for thread in range(THREADS):
        units = Units(unit_size, now=1000 * thread if timed else 0)
        for at in range(len(functions)):
            for event in (tracewriter.ENTER, tracewriter.CALL, tracewriter.RETURN):
                units.event(event, at)
                units.now += 5
        for at in reversed(range(len(functions))):
            units.event(tracewriter.LEAVE, at)
            units.now += 3
        times = {"open_tsc": units.times[0], "close_tsc": units.times[-1]} if timed else {}
        writer.chunks.append(writer.events_block(bytes(units.data), thread, thread_id=1000, **times))
    return writer.write(path)
