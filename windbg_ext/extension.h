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

/* Let our functions work for `new_client` until ct_leave, as in a command; may be nested, since a command may let the
 * engine execute another. */
struct ct_outer {
    IDebugClient *client;
    IDebugControl3 *control;
};
HRESULT ct_enter(IDebugClient *new_client, struct ct_outer *outer);
void ct_leave(const struct ct_outer *outer);

/* IUnknown's methods for event callbacks that live as long as the extension. */
HRESULT STDMETHODCALLTYPE ct_callbacks_query(IDebugEventCallbacks *self, REFIID id, void **out);
ULONG STDMETHODCALLTYPE ct_callbacks_reference(IDebugEventCallbacks *self);

/* Is told what the engine notifies us of, as in a command, but never during one: DEBUG_NOTIFY_SESSION_..., or what
 * notifications.c adds to those, and an address. */
typedef void ct_hear(ULONG number, ULONG64 address);

/* From now on, until the extension is unloaded, `hear` is told; NULL: nobody. */
CT_EXPORT HRESULT ct_listen(ct_hear *hear);

/* Print, as plain text or as DML. `mask` is one of DEBUG_OUTPUT_... */
CT_EXPORT HRESULT ct_print(ULONG mask, const WCHAR *text, BOOL dml);

/* Whether the user prefers DML to plain text. */
CT_EXPORT BOOL ct_prefers_dml(void);

/* Whether the user has pressed Ctrl+Break since this was last asked. On any thread, while a command runs. */
CT_EXPORT BOOL ct_interrupted(void);

#endif
