/* The debugger's engine for the Python port: see engine.h. */
#include "engine.h"

enum { OUTPUT_DEBUGGEE_ONLY = DEBUG_OUTPUT_DEBUGGEE | DEBUG_OUTPUT_DEBUGGEE_PROMPT };

/* The interface `id` of the running command's client; to be released. */
static HRESULT get(REFIID id, void *found)
{
    IDebugClient *client = ct_client();
    return client ? client->lpVtbl->QueryInterface(client, id, found) : E_UNEXPECTED;
}

static HRESULT get_control(IDebugControl **control)
{
    return get(&IID_IDebugControl, control);
}

static HRESULT get_objects(IDebugSystemObjects **objects)
{
    return get(&IID_IDebugSystemObjects, objects);
}

/* A process and a thread, by the engine's own numbers. */
struct place {
    ULONG process, thread;
};

static HRESULT where(IDebugSystemObjects *objects, struct place *place)
{
    HRESULT result = objects->lpVtbl->GetCurrentProcessId(objects, &place->process);
    return FAILED(result) ? result : objects->lpVtbl->GetCurrentThreadId(objects, &place->thread);
}

static HRESULT go_to(IDebugSystemObjects *objects, const struct place *place)
{
    struct place now;
    HRESULT result = where(objects, &now);
    /* Choosing a thread anew resets the frame that its user may have chosen. */
    if (FAILED(result) || (now.process == place->process && now.thread == place->thread))
        return result;
    if (now.process != place->process)
        result = objects->lpVtbl->SetCurrentProcessId(objects, place->process);
    return FAILED(result) ? result : objects->lpVtbl->SetCurrentThreadId(objects, place->thread);
}

static HRESULT event_place(IDebugSystemObjects *objects, struct place *place)
{
    HRESULT result = objects->lpVtbl->GetEventProcess(objects, &place->process);
    return FAILED(result) ? result : objects->lpVtbl->GetEventThread(objects, &place->thread);
}

static HRESULT read_ids(IDebugSystemObjects *objects, struct ct_engine_state *state)
{
    HRESULT result = objects->lpVtbl->GetCurrentProcessSystemId(objects, &state->process);
    return FAILED(result) ? result : objects->lpVtbl->GetCurrentThreadSystemId(objects, &state->thread);
}

/* The system's ids of the last event's process and thread. */
static HRESULT event_ids(struct ct_engine_state *state)
{
    IDebugSystemObjects *objects;
    HRESULT result = get_objects(&objects);
    if (FAILED(result))
        return result;
    struct place before, place;
    if (SUCCEEDED(result = where(objects, &before)) && SUCCEEDED(result = event_place(objects, &place)) &&
        SUCCEEDED(result = go_to(objects, &place))) {
        result = read_ids(objects, state);
        HRESULT back = go_to(objects, &before);
        if (SUCCEEDED(result))
            result = back;
    }
    objects->lpVtbl->Release(objects);
    return result;
}

HRESULT ct_engine_state(struct ct_engine_state *state)
{
    IDebugControl *control;
    HRESULT result = get_control(&control);
    if (FAILED(result))
        return result;
    *state = (struct ct_engine_state){0};
    result = control->lpVtbl->GetExecutionStatus(control, &state->status);
    if (SUCCEEDED(result) && state->status == DEBUG_STATUS_BREAK) {
        union {
            DEBUG_LAST_EVENT_INFO_EXCEPTION exception;
            char others[256];
        } extra;
        ULONG process, thread, used = 0;
        result = control->lpVtbl->GetLastEventInformation(control, &state->event, &process, &thread, &extra,
                                                          sizeof extra, &used, NULL, 0, NULL);
        if (SUCCEEDED(result) && state->event == DEBUG_EVENT_EXCEPTION && used >= sizeof extra.exception) {
            state->code = extra.exception.ExceptionRecord.ExceptionCode;
            state->first_chance = extra.exception.FirstChance;
        }
        ULONG class = DEBUG_CLASS_UNINITIALIZED, kind;
        if (SUCCEEDED(result))
            result = control->lpVtbl->GetDebuggeeType(control, &class, &kind);
        if (SUCCEEDED(result) && class != DEBUG_CLASS_KERNEL)
            result = event_ids(state);
    }
    control->lpVtbl->Release(control);
    return result;
}

HRESULT ct_engine_threads(ULONG *threads, ULONG room, ULONG *count)
{
    IDebugSystemObjects *objects;
    HRESULT result = get_objects(&objects);
    if (FAILED(result))
        return result;
    result = objects->lpVtbl->GetNumberThreads(objects, count);
    if (SUCCEEDED(result) && room)
        result = objects->lpVtbl->GetThreadIdsByIndex(objects, 0, *count < room ? *count : room, NULL, threads);
    objects->lpVtbl->Release(objects);
    return result;
}

/* Read or set the context of a thread, made current for that. */
static HRESULT on_thread(ULONG thread, CONTEXT *context, BOOL set)
{
    IDebugSystemObjects *objects;
    IDebugAdvanced *advanced;
    HRESULT result = get_objects(&objects);
    if (FAILED(result))
        return result;
    if (SUCCEEDED(result = get(&IID_IDebugAdvanced, &advanced))) {
        struct place before, place;
        if (SUCCEEDED(result = where(objects, &before))) {
            place = before;
            result = objects->lpVtbl->GetThreadIdBySystemId(objects, thread, &place.thread);
        }
        if (SUCCEEDED(result) && SUCCEEDED(result = go_to(objects, &place))) {
            result = set ? advanced->lpVtbl->SetThreadContext(advanced, context, sizeof *context)
                         : advanced->lpVtbl->GetThreadContext(advanced, context, sizeof *context);
            HRESULT back = go_to(objects, &before);
            if (SUCCEEDED(result))
                result = back;
        }
        advanced->lpVtbl->Release(advanced);
    }
    objects->lpVtbl->Release(objects);
    return result;
}

HRESULT ct_engine_context(ULONG thread, CONTEXT *context)
{
    return on_thread(thread, context, FALSE);
}

HRESULT ct_engine_set_context(ULONG thread, CONTEXT *context)
{
    return on_thread(thread, context, TRUE);
}

HRESULT ct_engine_current(ULONG *thread)
{
    IDebugSystemObjects *objects;
    HRESULT result = get_objects(&objects);
    if (FAILED(result))
        return result;
    result = objects->lpVtbl->GetCurrentThreadSystemId(objects, thread);
    objects->lpVtbl->Release(objects);
    return result;
}

HRESULT ct_engine_select(ULONG thread)
{
    IDebugSystemObjects *objects;
    HRESULT result = get_objects(&objects);
    if (FAILED(result))
        return result;
    struct place place;
    if (SUCCEEDED(result = where(objects, &place)) &&
        SUCCEEDED(result = objects->lpVtbl->GetThreadIdBySystemId(objects, thread, &place.thread)))
        result = go_to(objects, &place);
    objects->lpVtbl->Release(objects);
    return result;
}

/* Output callbacks that hand the text on. */
struct taker {
    IDebugOutputCallbacks callbacks; /* must be first: the engine knows no more */
    void (*take)(const char *text);
};

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
    (void)mask;
    ((struct taker *)self)->take(text);
    return S_OK;
}

static IDebugOutputCallbacksVtbl taker_table = {query, reference, reference, output};

HRESULT ct_engine_execute(const char *command, void (*take)(const char *text))
{
    IDebugClient *client = ct_client(), *own;
    if (!client)
        return E_UNEXPECTED;
    HRESULT result = client->lpVtbl->CreateClient(client, &own);
    if (FAILED(result))
        return result;
    IDebugControl *control;
    if (SUCCEEDED(result = own->lpVtbl->QueryInterface(own, &IID_IDebugControl, (void **)&control))) {
        struct taker taker = {{&taker_table}, take};
        if (SUCCEEDED(result = own->lpVtbl->SetOutputCallbacks(own, &taker.callbacks))) {
            result = control->lpVtbl->Execute(control, DEBUG_OUTCTL_THIS_CLIENT | DEBUG_OUTCTL_NOT_LOGGED, command,
                                              DEBUG_EXECUTE_NOT_LOGGED | DEBUG_EXECUTE_NO_REPEAT);
            own->lpVtbl->FlushCallbacks(own);
            own->lpVtbl->SetOutputCallbacks(own, NULL);
        }
        control->lpVtbl->Release(control);
    }
    own->lpVtbl->Release(own);
    return result;
}

HRESULT ct_engine_mute(BOOL muted)
{
    static ULONG mask;
    IDebugClient *client = ct_client();
    if (!client)
        return E_UNEXPECTED;
    if (!muted)
        return client->lpVtbl->SetOutputMask(client, mask);
    HRESULT result = client->lpVtbl->GetOutputMask(client, &mask);
    return FAILED(result) ? result : client->lpVtbl->SetOutputMask(client, mask & OUTPUT_DEBUGGEE_ONLY);
}

static IDebugControl *volatile waiting; /* for break_in: the engine outlives any wait */

HRESULT ct_engine_go(BOOL handled)
{
    IDebugControl *control;
    HRESULT result = get_control(&control);
    if (FAILED(result))
        return result;
    ULONG status = handled ? DEBUG_STATUS_GO_HANDLED : DEBUG_STATUS_GO_NOT_HANDLED;
    waiting = control;
    if (SUCCEEDED(result = control->lpVtbl->SetExecutionStatus(control, status)))
        result = control->lpVtbl->WaitForEvent(control, DEBUG_WAIT_DEFAULT, INFINITE);
    waiting = NULL;
    control->lpVtbl->Release(control);
    return result;
}

HRESULT ct_engine_break_in(void)
{
    /* The one method that the engine lets any thread call. */
    IDebugControl *control = waiting;
    return control ? control->lpVtbl->SetInterrupt(control, DEBUG_INTERRUPT_ACTIVE) : S_FALSE;
}
