/* A debugger without a window, as debugger.c is, but driven from Windows Python by ctypes. */
#include <windows.h>

#include <initguid.h> /* first, for the GUIDs to be defined */

#include <dbgeng.h>
#include <string.h>

#define EXPORT __declspec(dllexport)

static IDebugClient *client;
static IDebugControl *control;
static char shown[1 << 20]; /* what the debugger's user sees */
static size_t length;

static HRESULT STDMETHODCALLTYPE query(IDebugOutputCallbacks *self, REFIID id, void **out)
{
    if (!IsEqualGUID(id, &IID_IUnknown) && !IsEqualGUID(id, &IID_IDebugOutputCallbacks)) {
        *out = NULL;
        return E_NOINTERFACE;
    }
    *out = self;
    return S_OK;
}

static ULONG STDMETHODCALLTYPE reference(IDebugOutputCallbacks *self)
{
    (void)self;
    return 1;
}

static HRESULT STDMETHODCALLTYPE output(IDebugOutputCallbacks *self, ULONG mask, PCSTR text)
{
    (void)self, (void)mask;
    size_t size = strlen(text);
    if (size < sizeof shown - length) {
        memcpy(shown + length, text, size + 1);
        length += size;
    }
    return S_OK;
}

static IDebugOutputCallbacksVtbl table = {query, reference, reference, output};
static IDebugOutputCallbacks callbacks = {&table};

static HRESULT begin(void)
{
    HRESULT result = DebugCreate(&IID_IDebugClient, (void **)&client);
    if (SUCCEEDED(result))
        result = client->lpVtbl->QueryInterface(client, &IID_IDebugControl, (void **)&control);
    if (SUCCEEDED(result))
        result = client->lpVtbl->SetOutputCallbacks(client, &callbacks);
    return SUCCEEDED(result) ? control->lpVtbl->AddEngineOptions(control, DEBUG_ENGOPT_INITIAL_BREAK) : result;
}

/* Start `command`, or without one attach to `process`, and wait for the first break. */
EXPORT HRESULT session_open(char *command, ULONG process)
{
    HRESULT result = client ? S_OK : begin();
    if (SUCCEEDED(result))
        result = command ? client->lpVtbl->CreateProcess(client, 0, command, DEBUG_ONLY_THIS_PROCESS)
                         : client->lpVtbl->AttachProcess(client, 0, process, DEBUG_ATTACH_DEFAULT);
    return SUCCEEDED(result) ? control->lpVtbl->WaitForEvent(control, 0, INFINITE) : result;
}

/* What a user types, and no more. */
EXPORT HRESULT session_execute(const char *command)
{
    return control->lpVtbl->Execute(control, DEBUG_OUTCTL_ALL_CLIENTS, command, DEBUG_EXECUTE_NOT_LOGGED);
}

/* What a user types; if it lets the target run, wait until that stops or ends. */
EXPORT HRESULT session_type(const char *command)
{
    HRESULT result = session_execute(command);
    while (SUCCEEDED(result)) {
        ULONG status = DEBUG_STATUS_NO_DEBUGGEE;
        control->lpVtbl->GetExecutionStatus(control, &status);
        if (status == DEBUG_STATUS_BREAK || status == DEBUG_STATUS_NO_DEBUGGEE)
            break;
        result = control->lpVtbl->WaitForEvent(control, 0, INFINITE);
        if (result == E_UNEXPECTED)
            return S_OK; /* it has ended */
    }
    return result;
}

/* Ctrl+Break, on any thread. */
EXPORT HRESULT session_interrupt(void)
{
    return control->lpVtbl->SetInterrupt(control, DEBUG_INTERRUPT_ACTIVE);
}

/* What was shown since this was last asked. */
EXPORT const char *session_shown(void)
{
    static char taken[sizeof shown];
    client->lpVtbl->FlushCallbacks(client);
    memcpy(taken, shown, length);
    taken[length] = 0;
    length = 0;
    return taken;
}

/* End it, and its target with it. */
EXPORT HRESULT session_close(void)
{
    return client->lpVtbl->EndSession(client, DEBUG_END_ACTIVE_TERMINATE);
}
