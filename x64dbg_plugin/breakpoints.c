/* The user's breakpoints in copies: see breakpoints.h.
 *
 * The engine finds a breakpoint by the address of the exception, the debugger by where the thread stands: both are told
 * the original. When the debugger has dealt with it, or stops there, the thread is put back. It then runs one
 * instruction by a step of the engine's, which wants to put its own int3 in again; ours has to be out for that long,
 * too.
 */
#include "breakpoints.h"

#include "state.h"
#include "titan.h"

#include <string.h>

enum { MOST = 1024, INT3 = 0xcc, JUMP = 0xe9, SHORT_JUMP = 0xeb, DR6_STEP = 0x4000 };

/* An int3 of ours. */
struct stand {
    uint64_t place, original;
    bool hardware; /* stands for a hardware breakpoint */
    bool hides;    /* the original lies inside of a jump to a copy, where no int3 may be */
    bool in;
    unsigned char byte; /* that it replaces */
};

static CRITICAL_SECTION lock; /* of all below */
static ct_find_places *find;
static HANDLE process;
static bool running; /* ours are in, but for that of `hit_place` */
static bool resting; /* none is put in */
static struct stand stands[MOST];
static int stand_count;
static uint64_t hidden[MOST]; /* the user's that were taken out */
static int hidden_count;
static uint64_t passed[MOST]; /* where hardware breakpoints of the user's lie on a jump to where the instruction runs */
static int passed_count;

/* The thread that came to one of ours last, until its next exception. */
static DWORD hit_thread; /* 0: none */
static uint64_t hit_place, hit_original;
static bool moved; /* it stands at the original for the time being */

static bool write_byte(uint64_t address, unsigned char byte)
{
    DWORD old;
    SIZE_T done;
    void *there = (void *)(uintptr_t)address;
    if (!VirtualProtectEx(process, there, 1, PAGE_EXECUTE_READWRITE, &old))
        return false;
    bool written = WriteProcessMemory(process, there, &byte, 1, &done);
    VirtualProtectEx(process, there, 1, old, &old);
    FlushInstructionCache(process, there, 1);
    return written;
}

static void put_in(struct stand *each)
{
    SIZE_T done;
    bool rests = hit_thread && each->place == hit_place;
    if (each->in || rests || !ReadProcessMemory(process, (void *)(uintptr_t)each->place, &each->byte, 1, &done) ||
        each->byte == INT3)
        return; /* another int3 is a breakpoint set at the copy */
    each->in = write_byte(each->place, INT3);
}

static void take_out(struct stand *each)
{
    if (each->in)
        write_byte(each->place, each->byte);
    each->in = false;
}

static void add(const BRIDGEBP *point, bool hardware)
{
    uint64_t places[CT_PLACES], original = point->addr;
    bool in_jump = false, hides = true;
    uint32_t count = find(original, places, &in_jump);
    if (in_jump && !hardware)
        state_add_entry(point);
    for (uint32_t i = 0; i < count; i++)
        hides &= places[i] != original;
    for (uint32_t i = 0; i < count && stand_count < MOST; i++)
        if (places[i] != original)
            stands[stand_count++] = (struct stand){places[i], original, hardware, hides && !hardware, false, 0};
    if (hides && hardware && passed_count < MOST)
        passed[passed_count++] = original;
}

/* Put in what is not, and hide what the engine has put in again. */
static void put_all_in(void)
{
    for (int i = 0; i < stand_count; i++) {
        put_in(&stands[i]);
        if (stands[i].hides && hidden_count < MOST && find_titan()->DisableBPX(stands[i].original))
            hidden[hidden_count++] = stands[i].original;
    }
}

static void add_all(BPXTYPE type)
{
    BPMAP found = {0};
    DbgGetBpList(type, &found);
    for (int i = 0; i < found.count; i++)
        if (found.bp[i].enabled && (type == bp_normal || found.bp[i].typeEx == hw_execute))
            add(&found.bp[i], type == bp_hardware);
    if (found.count)
        BridgeFree(found.bp);
}

void breakpoints_in(void)
{
    EnterCriticalSection(&lock);
    if (find && !running && !resting) {
        running = true;
        state_forget_entries();
        add_all(bp_normal);
        add_all(bp_hardware);
        put_all_in();
    }
    LeaveCriticalSection(&lock);
}

/* Let the thread that came to one of ours stand there, rather than at the original. */
static void move_back(void)
{
    HANDLE thread = moved ? OpenThread(THREAD_ALL_ACCESS, FALSE, hit_thread) : NULL;
    CONTEXT context;
    context.ContextFlags = CONTEXT_CONTROL;
    moved = false;
    if (!thread)
        return;
    if (GetThreadContext(thread, &context) && context.Rip == hit_original) {
        context.Rip = hit_place;
        SetThreadContext(thread, &context);
    }
    CloseHandle(thread);
}

void breakpoints_out(void)
{
    EnterCriticalSection(&lock);
    move_back();
    while (stand_count)
        take_out(&stands[--stand_count]);
    while (hidden_count)
        find_titan()->EnableBPX(hidden[--hidden_count]);
    passed_count = 0;
    running = false;
    LeaveCriticalSection(&lock);
}

static struct stand *find_stand(uint64_t place)
{
    for (int i = 0; i < stand_count; i++)
        if (stands[i].in && stands[i].place == place)
            return &stands[i];
    return NULL;
}

/* The engine finds only breakpoints that are in the code. */
static void unhide(uint64_t original)
{
    for (int i = 0; i < hidden_count; i++)
        if (hidden[i] == original) {
            find_titan()->EnableBPX(original);
            hidden[i] = hidden[--hidden_count];
            return;
        }
}

void breakpoints_translate(DEBUG_EVENT *event)
{
    EXCEPTION_RECORD *record = &event->u.Exception.ExceptionRecord;
    EnterCriticalSection(&lock);
    if (event->dwThreadId == hit_thread)
        hit_thread = 0;
    struct stand *hit = record->ExceptionCode == EXCEPTION_BREAKPOINT && event->u.Exception.dwFirstChance
                            ? find_stand((uint64_t)(uintptr_t)record->ExceptionAddress)
                            : NULL;
    HANDLE thread = hit ? OpenThread(THREAD_ALL_ACCESS, FALSE, event->dwThreadId) : NULL;
    if (thread) {
        CONTEXT context;
        context.ContextFlags = CONTEXT_CONTROL;
        GetThreadContext(thread, &context);
        context.Rip = hit->original + (hit->hardware ? 0 : 1);
        SetThreadContext(thread, &context);
        CloseHandle(thread);
        record->ExceptionAddress = (void *)(uintptr_t)hit->original;
        if (hit->hardware)
            record->ExceptionCode = EXCEPTION_SINGLE_STEP;
        else
            unhide(hit->original);
        hit_thread = event->dwThreadId, hit_place = hit->place, hit_original = hit->original;
        moved = true;
        take_out(hit);
    }
    LeaveCriticalSection(&lock);
}

/* Where the jump at an address leads; 0: there is none. */
static uint64_t jump_target(HANDLE target, uint64_t address)
{
    unsigned char code[5];
    SIZE_T done;
    int32_t distance;
    if (!ReadProcessMemory(target, (void *)(uintptr_t)address, code, sizeof code, &done))
        return 0;
    memcpy(&distance, code + 1, sizeof distance);
    if (code[0] == JUMP)
        return address + 5 + (uint64_t)(int64_t)distance;
    return code[0] == SHORT_JUMP ? address + 2 + (uint64_t)(int64_t)(signed char)code[1] : 0;
}

/* Where a thread is to go on after an exception that is nothing to the debugger; 0: it is something. */
static uint64_t passes_to(const EXCEPTION_RECORD *record, HANDLE target, HANDLE thread)
{
    uint64_t address = (uint64_t)(uintptr_t)record->ExceptionAddress;
    unsigned char there = INT3;
    SIZE_T done;
    if (record->ExceptionCode == EXCEPTION_BREAKPOINT)
        return ReadProcessMemory(target, record->ExceptionAddress, &there, 1, &done) && there != INT3 ? address : 0;
    CONTEXT context;
    context.ContextFlags = CONTEXT_DEBUG_REGISTERS;
    for (int i = 0; i < passed_count; i++)
        if (passed[i] == address && GetThreadContext(thread, &context) && !(context.Dr6 & DR6_STEP))
            return jump_target(target, address);
    return 0;
}

bool breakpoints_ignore(const DEBUG_EVENT *event)
{
    const EXCEPTION_RECORD *record = &event->u.Exception.ExceptionRecord;
    bool told = record->ExceptionCode == EXCEPTION_BREAKPOINT || record->ExceptionCode == EXCEPTION_SINGLE_STEP;
    bool ignored = false;
    EnterCriticalSection(&lock);
    HANDLE target = NULL, thread = NULL;
    if (told && event->u.Exception.dwFirstChance && (find || resting)) {
        target = OpenProcess(PROCESS_VM_READ, FALSE, event->dwProcessId);
        thread = OpenThread(THREAD_ALL_ACCESS, FALSE, event->dwThreadId);
    }
    uint64_t to = target && thread ? passes_to(record, target, thread) : 0;
    if (to) {
        CONTEXT context;
        context.ContextFlags = CONTEXT_CONTROL;
        ignored = GetThreadContext(thread, &context);
        context.Rip = to;
        ignored = ignored && SetThreadContext(thread, &context);
    }
    if (target)
        CloseHandle(target);
    if (thread)
        CloseHandle(thread);
    LeaveCriticalSection(&lock);
    return ignored;
}

/* The engine has dealt with an exception, and the target goes on. */
static void after_exception(void *record)
{
    (void)record;
    EnterCriticalSection(&lock);
    move_back();
    if (running)
        put_all_in();
    else
        breakpoints_in();
    LeaveCriticalSection(&lock);
}

void breakpoints_rest(bool rest)
{
    EnterCriticalSection(&lock);
    resting = rest;
    LeaveCriticalSection(&lock);
}

bool ct_breakpoints_follow(HANDLE of, ct_find_places *tells)
{
    const struct titan *titan = find_titan();
    if (!titan)
        return !tells;
    breakpoints_out();
    EnterCriticalSection(&lock);
    find = tells, process = of;
    titan->SetCustomHandler(UE_CH_AFTEREXCEPTIONPROCESSING, tells ? after_exception : NULL);
    LeaveCriticalSection(&lock);
    return true;
}

void breakpoints_forget(void)
{
    EnterCriticalSection(&lock);
    stand_count = hidden_count = passed_count = 0;
    find = NULL;
    hit_thread = 0;
    running = resting = moved = false;
    LeaveCriticalSection(&lock);
}

void breakpoints_begin(void)
{
    static bool begun;
    if (!begun)
        InitializeCriticalSection(&lock);
    begun = true;
}
