/* The WinDbg extension: what its parts share. */
#ifndef CALLTRACE_EXTENSION_H
#define CALLTRACE_EXTENSION_H

#include <windows.h>

#include <initguid.h> /* first, for the GUIDs to be defined */

#include <dbgeng.h>

/* For Python, by ctypes. Names begin with ct_, so that nobody calls them as commands. */
#define CT_EXPORT __declspec(dllexport)

/* The client of the running command, on the engine's thread; NULL between commands. No reference is added. */
IDebugClient *ct_client(void);

/* Run a line in a Python module, which prints and sees the target as `for_client` does. */
HRESULT ct_run_python(IDebugClient *for_client, const char *module, const WCHAR *line);

/* IUnknown's methods for event callbacks that live as long as the extension. */
HRESULT STDMETHODCALLTYPE ct_callbacks_query(IDebugEventCallbacks *self, REFIID id, void **out);
ULONG STDMETHODCALLTYPE ct_callbacks_reference(IDebugEventCallbacks *self);

/* From now on Python's calltrace_windbg.notifications is told of what the engine notifies us of; or no longer. Until
 * the extension is unloaded. */
CT_EXPORT HRESULT ct_listen(BOOL wanted);

/* Print, as plain text or as DML. `mask` is one of DEBUG_OUTPUT_... */
CT_EXPORT HRESULT ct_print(ULONG mask, const WCHAR *text, BOOL dml);

/* Whether the user prefers DML to plain text. */
CT_EXPORT BOOL ct_prefers_dml(void);

/* Whether the user has pressed Ctrl+Break since this was last asked. On any thread, while a command runs. */
CT_EXPORT BOOL ct_interrupted(void);

#endif
