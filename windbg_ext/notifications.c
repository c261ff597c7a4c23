/* What the engine notifies us of goes to Python, as long as that listens: see ct_listen in extension.h. */
#include "extension.h"

/* Beside DEBUG_NOTIFY_SESSION_...: what calltrace_windbg.notifications is told. */
enum { SCOPE_CHANGED = 8, SYMBOLS_LOADED = 9 };

static IDebugClient *listener; /* of our own; NULL while nobody listens */
static ct_hear *hears;

static void tell(ULONG number, ULONG64 address)
{
    IDebugClient *client = listener;
    /* What a command of ours does is no news. */
    if (!client || ct_client())
        return;
    struct ct_outer outer;
    client->lpVtbl->AddRef(client); /* who hears may end the listening */
    if (SUCCEEDED(ct_enter(client, &outer))) {
        hears(number, address);
        ct_leave(&outer);
    }
    client->lpVtbl->Release(client);
}

CT_EXPORT void CALLBACK DebugExtensionNotify(ULONG notification, ULONG64 argument)
{
    (void)argument;
    if (notification != DEBUG_NOTIFY_SESSION_INACCESSIBLE)
        tell(notification, 0);
}

/* The engine unloads extensions with the last target, before it would notify them that there is none. */
CT_EXPORT void CALLBACK DebugExtensionUninitialize(void)
{
    ULONG status = DEBUG_STATUS_NO_DEBUGGEE;
    IDebugControl *control;
    if (listener && SUCCEEDED(listener->lpVtbl->QueryInterface(listener, &IID_IDebugControl, (void **)&control))) {
        control->lpVtbl->GetExecutionStatus(control, &status);
        control->lpVtbl->Release(control);
    }
    if (status == DEBUG_STATUS_NO_DEBUGGEE)
        tell(DEBUG_NOTIFY_SESSION_INACTIVE, 0);
    ct_listen(NULL); /* Python, once it was loaded, and this DLL stay (ct_host_line) */
}

static HRESULT STDMETHODCALLTYPE interest(IDebugEventCallbacks *self, PULONG mask)
{
    (void)self;
    *mask = DEBUG_EVENT_CHANGE_SYMBOL_STATE;
    return S_OK;
}

/* `argument` is the base of the module whose symbols were loaded, 0 after a `.reload`. Other options may mean other
 * names, as `.lines` does. */
static HRESULT STDMETHODCALLTYPE symbols_changed(IDebugEventCallbacks *self, ULONG flags, ULONG64 argument)
{
    (void)self;
    if (flags & DEBUG_CSS_SCOPE)
        tell(SCOPE_CHANGED, 0);
    if (flags & DEBUG_CSS_LOADS)
        tell(SYMBOLS_LOADED, argument);
    else if (flags & DEBUG_CSS_SYMBOL_OPTIONS)
        tell(SYMBOLS_LOADED, 0);
    return S_OK;
}

/* The engine calls what `interest` names. */
static IDebugEventCallbacksVtbl callbacks_table = {
    .QueryInterface = ct_callbacks_query,
    .AddRef = ct_callbacks_reference,
    .Release = ct_callbacks_reference,
    .GetInterestMask = interest,
    .ChangeSymbolState = symbols_changed,
};
static IDebugEventCallbacks callbacks = {&callbacks_table};

HRESULT ct_listen(ct_hear *hear)
{
    hears = hear;
    if (!hear == !listener)
        return S_OK;
    if (!hear) {
        listener->lpVtbl->SetEventCallbacks(listener, NULL);
        listener->lpVtbl->Release(listener);
        listener = NULL;
        return S_OK;
    }
    IDebugClient *client = ct_client();
    HRESULT result = client ? client->lpVtbl->CreateClient(client, &listener) : E_UNEXPECTED;
    return FAILED(result) ? result : listener->lpVtbl->SetEventCallbacks(listener, &callbacks);
}
