/* Moves the user's breakpoints: see breakpoints.h.
 *
 * The engine puts its breakpoints into memory after it has told of the new execution status, and takes them out before
 * it tells that the target stands still. A breakpoint's own command runs in between, with DEBUG_STATUS_INSIDE_WAIT: if
 * it lets the target go on there is no stop at all, so what it changes is dealt with when the engine tells of that.
 */
#include "breakpoints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_MIRROR = 20000 }; /* the engine's numbers for its own begin at 10000 */
enum { STATUS = 0x1F };        /* DEBUG_STATUS_MASK as it is today */

/* A breakpoint of the user's that was moved, or has mirrors. */
struct followed {
    ULONG id;
    ULONG64 original, place;
    ULONG mirror_count;
    ULONG mirrors[CT_PLACES];
    ULONG passes; /* to go, for each mirror */
    BOOL spent;   /* a mirror has used it up: it was to be hit once */
};

static ct_find_places *find;
static ct_look_for_hidden *look;
static ULONG process;
static IDebugClient *client; /* one of our own: what it adds, nobody else sees */
static IDebugControl *control;
static struct followed *followed;
static ULONG followed_count, followed_room;
static BOOL running; /* from just before the target runs to its next stop */
static BOOL moving;  /* changes are ours */

/* The engine's own breakpoint of `g ADDRESS`, which it shows nobody: where it stands is seen when it is in memory. What
 * is added then goes into memory only when the engine puts breakpoints there anew, as it does after a step, and it
 * steps where the thread stands on a breakpoint: so one is put there, which says nothing when it is hit later. */
static struct {
    BOOL hidden;             /* there is such a one, or that of `gu` */
    ULONG64 returns_to;      /* where `gu` stops: in this very frame, which runs what it runs */
    ULONG64 address;         /* found; 0: not yet */
    ULONG64 stands;          /* the thread */
    BOOL stops_where_stands; /* the address runs there, and is to be hit again */
    ULONG count;
    ULONG ids[CT_PLACES + 1];
} go;

static IDebugBreakpoint *breakpoint(ULONG id)
{
    IDebugBreakpoint *found;
    return SUCCEEDED(control->lpVtbl->GetBreakpointById(control, id, &found)) ? found : NULL;
}

static struct followed *followed_by_id(ULONG id)
{
    for (ULONG i = 0; i < followed_count; i++)
        if (followed[i].id == id)
            return &followed[i];
    return NULL;
}

static struct followed *followed_by_mirror(ULONG id)
{
    for (ULONG i = 0; i < followed_count; i++)
        for (ULONG k = 0; k < followed[i].mirror_count; k++)
            if (followed[i].mirrors[k] == id)
                return &followed[i];
    return NULL;
}

/* A breakpoint of ours, which nobody else sees; not enabled yet. NULL: out of memory. */
static IDebugBreakpoint *add_hidden(ULONG64 place, ULONG *id)
{
    static ULONG next;
    IDebugBreakpoint *added;
    *id = FIRST_MIRROR + next++ % FIRST_MIRROR;
    if (FAILED(control->lpVtbl->AddBreakpoint(control, DEBUG_BREAKPOINT_CODE, *id, &added)))
        return NULL;
    added->lpVtbl->AddFlags(added, DEBUG_BREAKPOINT_ADDER_ONLY);
    added->lpVtbl->SetOffset(added, place);
    return added;
}

/* Let one at `place` do all that `of` does. */
static void add_mirror(struct followed *each, IDebugBreakpoint *of, const DEBUG_BREAKPOINT_PARAMETERS *given,
                       ULONG64 place)
{
    ULONG id;
    IDebugBreakpoint *mirror = add_hidden(place, &id);
    if (!mirror)
        return;
    each->mirrors[each->mirror_count++] = id;
    each->passes = given->CurrentPassCount;
    mirror->lpVtbl->AddFlags(mirror, given->Flags & DEBUG_BREAKPOINT_ONE_SHOT);
    mirror->lpVtbl->SetPassCount(mirror, given->CurrentPassCount);
    if (given->MatchThread != DEBUG_ANY_ID)
        mirror->lpVtbl->SetMatchThreadId(mirror, given->MatchThread);
    char *command = given->CommandSize ? malloc(given->CommandSize) : NULL;
    if (command && SUCCEEDED(of->lpVtbl->GetCommand(of, command, given->CommandSize, NULL)))
        mirror->lpVtbl->SetCommand(mirror, command);
    free(command);
    mirror->lpVtbl->AddFlags(mirror, DEBUG_BREAKPOINT_ENABLED);
}

/* Take the mirrors away; the passes they saw have counted for the user's. */
static void remove_mirrors(struct followed *each)
{
    ULONG passed = 0;
    for (ULONG k = 0; k < each->mirror_count; k++) {
        IDebugBreakpoint *mirror = breakpoint(each->mirrors[k]);
        ULONG left;
        if (!mirror)
            continue;
        if (SUCCEEDED(mirror->lpVtbl->GetCurrentPassCount(mirror, &left)) && left < each->passes)
            passed += each->passes - left;
        control->lpVtbl->RemoveBreakpoint(control, mirror);
    }
    each->mirror_count = 0;
    IDebugBreakpoint *users = breakpoint(each->id);
    ULONG left;
    if (users && passed && SUCCEEDED(users->lpVtbl->GetCurrentPassCount(users, &left)))
        users->lpVtbl->SetPassCount(users, left > passed ? left - passed : 1);
}

static struct followed *add_followed(ULONG id)
{
    if (followed_count == followed_room) {
        ULONG room = followed_room ? 2 * followed_room : 16;
        struct followed *more = realloc(followed, room * sizeof *more);
        if (!more)
            return NULL;
        followed = more, followed_room = room;
    }
    struct followed *added = &followed[followed_count++];
    *added = (struct followed){.id = id};
    return added;
}

/* Put a breakpoint of the user's where its instruction runs. */
static void follow(IDebugBreakpoint *users)
{
    DEBUG_BREAKPOINT_PARAMETERS given;
    ULONG64 places[CT_PLACES];
    if (FAILED(users->lpVtbl->GetParameters(users, &given)))
        return;
    BOOL code = given.BreakType == DEBUG_BREAKPOINT_CODE || given.DataAccessType == DEBUG_BREAK_EXECUTE;
    if (!code || !(given.Flags & DEBUG_BREAKPOINT_ENABLED) ||
        given.Flags & (DEBUG_BREAKPOINT_DEFERRED | DEBUG_BREAKPOINT_ADDER_ONLY))
        return;
    ULONG count = find(given.Offset, places);
    if (count == 0 || count > CT_PLACES || (count == 1 && places[0] == given.Offset))
        return;
    struct followed *each = add_followed(given.Id);
    if (!each)
        return;
    each->original = given.Offset, each->place = places[0];
    if (each->place != each->original)
        users->lpVtbl->SetOffset(users, each->place);
    for (ULONG k = 1; k < count; k++)
        add_mirror(each, users, &given, places[k]);
}

static void move_one_back(struct followed *each)
{
    remove_mirrors(each);
    IDebugBreakpoint *users = breakpoint(each->id);
    ULONG64 now;
    if (!users)
        return;
    if (each->spent)
        control->lpVtbl->RemoveBreakpoint(control, users);
    else if (SUCCEEDED(users->lpVtbl->GetOffset(users, &now)) && now == each->place)
        users->lpVtbl->SetOffset(users, each->original); /* otherwise it was set anew meanwhile */
}

static void move_back(void)
{
    while (followed_count)
        move_one_back(&followed[--followed_count]);
    while (go.count) {
        IDebugBreakpoint *ours = breakpoint(go.ids[--go.count]);
        if (ours)
            control->lpVtbl->RemoveBreakpoint(control, ours);
    }
    go.hidden = FALSE;
}

static void add_for_go(ULONG64 place)
{
    IDebugBreakpoint *added = add_hidden(place, &go.ids[go.count]);
    if (added) {
        added->lpVtbl->AddFlags(added, DEBUG_BREAKPOINT_ENABLED);
        go.count++;
    }
}

/* Does any enabled breakpoint stand here? */
static BOOL is_taken(ULONG64 place)
{
    ULONG count = 0;
    control->lpVtbl->GetNumberBreakpoints(control, &count);
    for (ULONG i = 0; i < count; i++) {
        IDebugBreakpoint *each;
        DEBUG_BREAKPOINT_PARAMETERS given;
        if (SUCCEEDED(control->lpVtbl->GetBreakpointByIndex(control, i, &each)) &&
            SUCCEEDED(each->lpVtbl->GetParameters(each, &given)) && given.Offset == place &&
            given.Flags & DEBUG_BREAKPOINT_ENABLED)
            return TRUE;
    }
    return FALSE;
}

/* Before the engine puts in what it shows nobody. */
static void prepare_go(void)
{
    IDebugRegisters *registers;
    memset(&go, 0, sizeof go);
    go.hidden = TRUE;
    if (FAILED(control->lpVtbl->GetReturnOffset(control, &go.returns_to)))
        go.returns_to = 0;
    if (FAILED(client->lpVtbl->QueryInterface(client, &IID_IDebugRegisters, (void **)&registers)))
        return;
    if (SUCCEEDED(registers->lpVtbl->GetInstructionOffset(registers, &go.stands)) && !is_taken(go.stands))
        add_for_go(go.stands);
    registers->lpVtbl->Release(registers);
}

/* When it has. */
static void look_for_go(void)
{
    ULONG64 address = look(FALSE), places[CT_PLACES];
    if (!address || address == go.address || address == go.returns_to)
        return;
    go.address = address;
    ULONG count = find(address, places);
    for (ULONG i = 0; i < count && i < CT_PLACES; i++) {
        if (places[i] == go.stands)
            go.stops_where_stands = TRUE;
        else if (places[i] != address)
            add_for_go(places[i]);
    }
}

static BOOL is_in_process(void)
{
    IDebugSystemObjects *objects;
    ULONG current = 0;
    if (FAILED(client->lpVtbl->QueryInterface(client, &IID_IDebugSystemObjects, (void **)&objects)))
        return FALSE;
    HRESULT result = objects->lpVtbl->GetCurrentProcessSystemId(objects, &current);
    objects->lpVtbl->Release(objects);
    return SUCCEEDED(result) && current == process;
}

static void move(void)
{
    ULONG count = 0;
    if (!find || !is_in_process() || FAILED(control->lpVtbl->GetNumberBreakpoints(control, &count)))
        return;
    IDebugBreakpoint **users = calloc(count, sizeof(IDebugBreakpoint *));
    BOOL hidden = FALSE;
    for (ULONG i = 0; users && i < count; i++) {
        if (FAILED(control->lpVtbl->GetBreakpointByIndex(control, i, &users[i]))) {
            users[i] = NULL;
            hidden = TRUE;
        }
    }
    if (hidden)
        look(TRUE);
    for (ULONG i = 0; users && i < count; i++)
        if (users[i])
            follow(users[i]);
    free(users);
    if (hidden)
        prepare_go();
}

/* A command of a breakpoint has added or changed one. (One that is gone is left to the next stop: the engine may be
 * in the middle of its list.) */
static void move_changed(ULONG id)
{
    IDebugBreakpoint *users = breakpoint(id);
    struct followed *each = followed_by_id(id);
    if (!users)
        return;
    if (each) {
        move_one_back(each);
        *each = followed[--followed_count];
    }
    if (find && is_in_process())
        follow(users);
}

static HRESULT STDMETHODCALLTYPE interests(IDebugEventCallbacks *self, PULONG mask)
{
    (void)self;
    *mask = DEBUG_EVENT_CHANGE_ENGINE_STATE | DEBUG_EVENT_BREAKPOINT;
    return S_OK;
}

static BOOL is_for_go(ULONG id)
{
    for (ULONG i = 0; i < go.count; i++)
        if (go.ids[i] == id)
            return TRUE;
    return FALSE;
}

static void tell(const char *what, ULONG64 address)
{
    IDebugSymbols *symbols;
    char name[512] = "";
    ULONG64 displacement = 0;
    if (SUCCEEDED(client->lpVtbl->QueryInterface(client, &IID_IDebugSymbols, (void **)&symbols))) {
        if (FAILED(symbols->lpVtbl->GetNameByOffset(symbols, address, name, sizeof name, NULL, &displacement)))
            *name = 0;
        symbols->lpVtbl->Release(symbols);
    }
    control->lpVtbl->ControlledOutput(control, DEBUG_OUTCTL_ALL_CLIENTS, DEBUG_OUTPUT_NORMAL,
                                      "calltrace: %s at %p, %s+0x%I64x\n", what, address, name, displacement);
}

/* Tell where the user has set what is hit now, unless it has a command that says something else, or goes on. */
static HRESULT STDMETHODCALLTYPE hit(IDebugEventCallbacks *self, PDEBUG_BREAKPOINT which)
{
    (void)self;
    DEBUG_BREAKPOINT_PARAMETERS given;
    if (FAILED(which->lpVtbl->GetParameters(which, &given)))
        return DEBUG_STATUS_NO_CHANGE;
    if (is_for_go(given.Id)) {
        if (given.Offset == go.stands && !go.stops_where_stands)
            return DEBUG_STATUS_IGNORE_EVENT; /* go on as before, with what the engine has for that */
        tell("this is", go.address);
        return DEBUG_STATUS_BREAK;
    }
    struct followed *each = followed_by_mirror(given.Id);
    if (each)
        each->spent = (given.Flags & DEBUG_BREAKPOINT_ONE_SHOT) != 0;
    else if ((each = followed_by_id(given.Id)) && each->place == each->original)
        each = NULL;
    if (each && given.CommandSize <= 1) {
        char what[32];
        snprintf(what, sizeof what, "breakpoint %lu is", each->id);
        tell(what, each->original);
    }
    return DEBUG_STATUS_NO_CHANGE;
}

static HRESULT STDMETHODCALLTYPE changed(IDebugEventCallbacks *self, ULONG what, ULONG64 argument)
{
    (void)self;
    ULONG status = (ULONG)argument & STATUS;
    if (moving) /* it tells of what we do */
        return S_OK;
    moving = TRUE;
    if (what & DEBUG_CES_EXECUTION_STATUS) {
        BOOL stops = status == DEBUG_STATUS_BREAK, ends = status == DEBUG_STATUS_NO_DEBUGGEE;
        if (running && (ends || (stops && !(argument & DEBUG_STATUS_INSIDE_WAIT)))) {
            move_back();
            running = FALSE;
        } else if (!running && status >= DEBUG_STATUS_GO && !stops && status <= DEBUG_STATUS_IGNORE_EVENT && !ends) {
            move();
            running = TRUE;
        } else if (running && go.hidden && find && status >= DEBUG_STATUS_GO && !stops && !ends) {
            look_for_go();
        }
    } else if (what & DEBUG_CES_BREAKPOINTS && running) {
        move_changed((ULONG)argument);
    }
    moving = FALSE;
    return S_OK;
}

static IDebugEventCallbacksVtbl table = {
    .QueryInterface = ct_callbacks_query,
    .AddRef = ct_callbacks_reference,
    .Release = ct_callbacks_reference,
    .GetInterestMask = interests,
    .Breakpoint = hit,
    .ChangeEngineState = changed,
};
static IDebugEventCallbacks callbacks = {&table};

static HRESULT watch(void)
{
    IDebugClient *of_command = ct_client();
    if (!of_command)
        return E_UNEXPECTED;
    HRESULT result = of_command->lpVtbl->CreateClient(of_command, &client);
    if (FAILED(result))
        return result;
    result = client->lpVtbl->QueryInterface(client, &IID_IDebugControl, (void **)&control);
    if (SUCCEEDED(result))
        result = client->lpVtbl->SetEventCallbacks(client, &callbacks);
    if (FAILED(result)) {
        client->lpVtbl->Release(client);
        client = NULL;
    }
    return result;
}

HRESULT ct_breakpoints_follow(ULONG of_process, ct_find_places *finder, ct_look_for_hidden *looker)
{
    if (finder && !client) { /* and never taken back: the engine may be in the middle of its list of clients */
        HRESULT result = watch();
        if (FAILED(result))
            return result;
    }
    process = of_process, find = finder, look = looker;
    return S_OK;
}
