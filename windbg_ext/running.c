/* Runs the target from event to event: see running.h. */
#include "running.h"

enum { STATUS = 0x1f }; /* in an argument about the execution status: the DEBUG_STATUS_ value */

static IDebugClient *client; /* one of our own, for its callbacks, while there are runs */
static ULONG process;        /* whose events end the run; 0: no run of ours */
static struct ct_event *told;
static ULONG shown; /* the output mask of the command's client */

static HRESULT STDMETHODCALLTYPE interests(IDebugEventCallbacks *self, PULONG mask)
{
    (void)self;
    *mask = DEBUG_EVENT_BREAKPOINT | DEBUG_EVENT_CHANGE_ENGINE_STATE | DEBUG_EVENT_EXCEPTION |
            DEBUG_EVENT_CREATE_THREAD | DEBUG_EVENT_EXIT_PROCESS | DEBUG_EVENT_LOAD_MODULE | DEBUG_EVENT_UNLOAD_MODULE;
    return S_OK;
}

/* What is about our events the user is not to see: the engine tells of one before it asks what is to be done. */
static HRESULT mute(BOOL muted)
{
    ULONG mask = muted ? shown & (DEBUG_OUTPUT_DEBUGGEE | DEBUG_OUTPUT_DEBUGGEE_PROMPT) : shown;
    return ct_client()->lpVtbl->SetOutputMask(ct_client(), mask);
}

/* End the run with this event, if it is one of the target's. */
static HRESULT tell(struct ct_event event)
{
    IDebugSystemObjects *objects;
    ULONG where = 0;
    if (!process || FAILED(client->lpVtbl->QueryInterface(client, &IID_IDebugSystemObjects, (void **)&objects)))
        return DEBUG_STATUS_NO_CHANGE;
    objects->lpVtbl->GetCurrentProcessSystemId(objects, &where);
    objects->lpVtbl->GetCurrentThreadSystemId(objects, &event.thread);
    objects->lpVtbl->Release(objects);
    if (where != process)
        return DEBUG_STATUS_NO_CHANGE;
    *told = event;
    return DEBUG_STATUS_BREAK;
}

static HRESULT STDMETHODCALLTYPE exception(IDebugEventCallbacks *self, PEXCEPTION_RECORD64 record, ULONG first_chance)
{
    (void)self;
    return tell((struct ct_event){.kind = DEBUG_EVENT_EXCEPTION,
                                  .code = (ULONG)record->ExceptionCode,
                                  .first_chance = first_chance,
                                  .address = record->ExceptionAddress});
}

static HRESULT STDMETHODCALLTYPE thread_start(IDebugEventCallbacks *self, ULONG64 handle, ULONG64 data, ULONG64 start)
{
    (void)self, (void)handle, (void)data;
    return tell((struct ct_event){.kind = DEBUG_EVENT_CREATE_THREAD, .address = start});
}

static HRESULT STDMETHODCALLTYPE process_exit(IDebugEventCallbacks *self, ULONG code)
{
    (void)self;
    return tell((struct ct_event){.kind = DEBUG_EVENT_EXIT_PROCESS, .code = code});
}

static HRESULT STDMETHODCALLTYPE module_load(IDebugEventCallbacks *self, ULONG64 file, ULONG64 base, ULONG size,
                                             PCSTR name, PCSTR image, ULONG checksum, ULONG time)
{
    (void)self, (void)file, (void)size, (void)name, (void)image, (void)checksum, (void)time;
    return tell((struct ct_event){.kind = DEBUG_EVENT_LOAD_MODULE, .address = base});
}

static HRESULT STDMETHODCALLTYPE module_unload(IDebugEventCallbacks *self, PCSTR name, ULONG64 base)
{
    (void)self, (void)name;
    return tell((struct ct_event){.kind = DEBUG_EVENT_UNLOAD_MODULE, .address = base});
}

/* A breakpoint of the user's: he sees what its command prints, until it lets the target go on. */
static HRESULT STDMETHODCALLTYPE users_breakpoint(IDebugEventCallbacks *self, PDEBUG_BREAKPOINT hit)
{
    (void)self, (void)hit;
    if (process)
        mute(FALSE);
    return DEBUG_STATUS_NO_CHANGE;
}

static HRESULT STDMETHODCALLTYPE engine_state(IDebugEventCallbacks *self, ULONG what, ULONG64 argument)
{
    (void)self;
    if (process && what & DEBUG_CES_EXECUTION_STATUS && (argument & STATUS) != DEBUG_STATUS_BREAK)
        mute(TRUE);
    return S_OK;
}

static IDebugEventCallbacksVtbl table = {
    .QueryInterface = ct_callbacks_query,
    .AddRef = ct_callbacks_reference,
    .Release = ct_callbacks_reference,
    .GetInterestMask = interests,
    .Breakpoint = users_breakpoint,
    .Exception = exception,
    .CreateThread = thread_start,
    .ExitProcess = process_exit,
    .LoadModule = module_load,
    .UnloadModule = module_unload,
    .ChangeEngineState = engine_state,
};
static IDebugEventCallbacks callbacks = {&table};

static HRESULT watch(void)
{
    IDebugClient *of_command = ct_client();
    if (client)
        return S_OK;
    if (!of_command)
        return E_UNEXPECTED;
    HRESULT result = of_command->lpVtbl->CreateClient(of_command, &client);
    return FAILED(result) ? result : client->lpVtbl->SetEventCallbacks(client, &callbacks);
}

static HRESULT get_control(IDebugControl **control)
{
    HRESULT result = watch();
    return FAILED(result) ? result : client->lpVtbl->QueryInterface(client, &IID_IDebugControl, (void **)control);
}

static HRESULT run(IDebugControl *control, BOOL handled, ULONG milliseconds)
{
    ULONG status;
    HRESULT result = control->lpVtbl->GetExecutionStatus(control, &status);
    if (SUCCEEDED(result) && status == DEBUG_STATUS_BREAK) {
        status = handled ? DEBUG_STATUS_GO_HANDLED : DEBUG_STATUS_GO_NOT_HANDLED;
        result = control->lpVtbl->SetExecutionStatus(control, status);
    }
    return FAILED(result) ? result : control->lpVtbl->WaitForEvent(control, DEBUG_WAIT_DEFAULT, milliseconds);
}

HRESULT ct_run_target(ULONG of_process, BOOL handled, ULONG milliseconds, struct ct_event *event)
{
    IDebugControl *control;
    HRESULT result = get_control(&control);
    if (FAILED(result))
        return result;
    if (SUCCEEDED(result = ct_client()->lpVtbl->GetOutputMask(ct_client(), &shown))) {
        *event = (struct ct_event){0};
        process = of_process, told = event;
        mute(TRUE);
        result = run(control, handled, milliseconds);
        mute(FALSE);
        process = 0;
    }
    control->lpVtbl->Release(control);
    return result;
}

HRESULT ct_interrupt(void)
{
    IDebugControl *control;
    HRESULT result = get_control(&control);
    if (FAILED(result))
        return result;
    result = control->lpVtbl->SetInterrupt(control, DEBUG_INTERRUPT_ACTIVE);
    control->lpVtbl->Release(control);
    return result;
}

void ct_end_runs(void)
{
    if (!client)
        return;
    client->lpVtbl->SetEventCallbacks(client, NULL);
    client->lpVtbl->Release(client);
    client = NULL;
}
