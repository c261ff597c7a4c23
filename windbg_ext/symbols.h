/* What the engine calls addresses of the target, and what it is to call ours. For the Python of `!calltrace`, by
 * ctypes; on the engine's own thread, while a command or a notification runs. */
#ifndef CALLTRACE_SYMBOLS_H
#define CALLTRACE_SYMBOLS_H

#include "extension.h"

/* The engine's name for an address, "module!function" or "module", and how far behind it the address lies. `room` in
 * characters. A failure: it has none. */
CT_EXPORT HRESULT ct_name(ULONG64 address, WCHAR *name, ULONG room, ULONG64 *displacement);

/* The source line of an address. A failure: it has none, or the user does not want to see any (`.lines`). */
CT_EXPORT HRESULT ct_line(ULONG64 address, WCHAR *file, ULONG room, ULONG *line);

/* The engine's name for the image of a module, as `.reload` takes it. */
CT_EXPORT HRESULT ct_image_name(ULONG64 base, WCHAR *name, ULONG room);

/* Let the user see the innermost frame's local variables, whatever frame he has chosen before. */
CT_EXPORT HRESULT ct_reset_scope(void);

/* The instruction of the frame that the user has chosen; and another one whose local variables he is to see in its
 * place, with the registers of that frame. S_FALSE: the engine's DbgHelp does not know the process by its handle. */
CT_EXPORT HRESULT ct_scope(ULONG64 *address);
CT_EXPORT HRESULT ct_set_scope(ULONG64 address);

/* The file that names the functions of a module, whose symbols are loaded. S_FALSE: none, the engine knows no more
 * than its exports. */
CT_EXPORT HRESULT ct_symbol_file(ULONG64 base, WCHAR *file, ULONG room);

/* The engine's names, without the module's, of what begins at these RVAs of a module: one after the other, each ended
 * by a 0, of nothing but that if there is none. As many as there is `room` for, in characters; `done` is how many. */
CT_EXPORT HRESULT ct_names(ULONG64 base, const ULONG *rvas, ULONG count, WCHAR *names, ULONG room, ULONG *done);

/* Show [base, base + size) as a module, whose PE headers are at `base`; or no longer. */
CT_EXPORT HRESULT ct_add_module(ULONG64 base, ULONG size, const WCHAR *path, const WCHAR *name);
CT_EXPORT HRESULT ct_remove_module(ULONG64 base);

/* A name for one address of such a module. */
CT_EXPORT HRESULT ct_add_symbol(ULONG64 address, const WCHAR *name);

#endif
