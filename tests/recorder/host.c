/* Host and target in one: creates a trace file, loads calltrace.dll, starts it, and records through hand-assembled
 * event code or the C API, as the scenario has it. The Python side reads the file.
 *
 *   host.exe DLL TRACE SCENARIO [name=value]...     prints name=value lines for the Python side
 */
#include "calltrace.h"
#include "recorder.h"
#include "trace_format.h"
#include <process.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <winternl.h>

#define MAX_THREADS 512

static int argument_count;
static char **arguments;

static uint32_t (*ct_start_)(struct ct_start *);
static uint32_t (*ct_stop_)(void);
static uint32_t (*ct_is_orphaned_)(void);
static const struct ct_recorder *recorder;
static uint32_t (*ct_add_code_)(const struct ct_code *);
static uint32_t (*ct_remove_code_)(const struct ct_code *);
#define API(name) static calltrace_##name##_t *name
API(function_enter);
API(function_exit);
API(function_call);
API(function_ret);
API(function_goto);
API(mark);
API(export_stack_trace);
API(reset_stack_trace);
static HMODULE dll;

static struct ct_file_header *header;
static struct ct_start request;
static uint64_t unit_clock;

static void (*emit)(uint32_t code);    /* one unit with this code */
static void (*emit_pairs)(uint64_t n); /* n times ENTER 1, LEAVE 1 */
static volatile uint64_t *counts;      /* by thread number: events emitted; in a file of its own */
static volatile LONG finish_threads;

#define CHECK(condition) check((condition), #condition, __LINE__)

static void check(bool condition, const char *text, int line)
{
    if (condition)
        return;
    fprintf(stderr, "line %d: not so: %s (last error %lu)\n", line, text, GetLastError());
    fflush(stderr);
    TerminateProcess(GetCurrentProcess(), 99);
}

static uint64_t option(const char *name, uint64_t otherwise)
{
    size_t length = strlen(name);
    for (int i = 0; i < argument_count; i++)
        if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=')
            return strtoull(arguments[i] + length + 1, NULL, 0);
    return otherwise;
}

static HANDLE open_file(const char *path, DWORD creation)
{
    HANDLE file =
        CreateFileA(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, creation, 0, NULL);
    CHECK(file != INVALID_HANDLE_VALUE);
    return file;
}

static void *map_file(HANDLE file, uint64_t size)
{
    HANDLE mapping = CreateFileMappingA(file, NULL, PAGE_READWRITE, 0, (DWORD)size, NULL);
    CHECK(mapping != NULL);
    void *view = MapViewOfFile(mapping, FILE_MAP_WRITE, 0, 0, size);
    CHECK(view != NULL);
    return view;
}

static void write_at(HANDLE file, uint64_t offset, const void *data, DWORD size)
{
    LARGE_INTEGER place = {.QuadPart = (LONGLONG)offset};
    DWORD done;
    CHECK(SetFilePointerEx(file, place, NULL, FILE_BEGIN) && WriteFile(file, data, size, &done, NULL) && done == size);
}

/* A file with header, LIVE chunk and, with option module=1, a MODULE chunk full of what looks like EVENTS headers. */
static void create_trace(const char *path, uint32_t clock)
{
    HANDLE file = open_file(path, CREATE_ALWAYS);
    uint64_t slots = option("slots", 64), end = (2 + slots) * CT_BLOCK;
    struct ct_chunk live = {CT_CHUNK_LIVE, 0, (1 + slots) * CT_BLOCK, slots * CT_BLOCK, 0};
    LARGE_INTEGER place = {.QuadPart = (LONGLONG)end};
    CHECK(SetFilePointerEx(file, place, NULL, FILE_BEGIN) && SetEndOfFile(file));
    write_at(file, CT_BLOCK, &live, sizeof live);
    if (option("module", 0)) {
        struct ct_events decoy = {{CT_CHUNK_EVENTS, 0, CT_BLOCK, 1024, 0}, 0, 1, 0, 1, 1};
        struct ct_module module = {.chunk = {CT_CHUNK_MODULE, 0, 3 * CT_BLOCK, 48, 0}};
        char *text = calloc(3, CT_BLOCK);
        memcpy(text, &module, sizeof module);
        memcpy(text + CT_BLOCK, &decoy, sizeof decoy);
        memcpy(text + 2 * CT_BLOCK, &decoy, sizeof decoy);
        write_at(file, end, text, 3 * CT_BLOCK);
        end += 3 * CT_BLOCK;
    }
    header = map_file(file, CT_BLOCK);
    *header = (struct ct_file_header){
        .magic = CT_MAGIC,
        .version = CT_VERSION,
        .header_size = sizeof *header,
        .block_size = CT_BLOCK,
        .unit_size = clock == CT_CLOCK_NONE ? 4 : 8,
        .clock = clock,
        .policy = (uint32_t)option("policy", CT_POLICY_BLOCK),
        .tsc_start = __builtin_ia32_rdtsc(),
        .max_size = option("max", 0) ? end + option("max", 0) * CT_BLOCK + 100 : 0,
        .append_end = end,
    };
    CloseHandle(file);
}

static void start_recording(const char *path)
{
    create_trace(path, (uint32_t)unit_clock);
    request = (struct ct_start){
        .abi = CT_RECORDER_ABI,
        .flags = request.flags,
        .file = (uint64_t)(uintptr_t)open_file(path, OPEN_EXISTING),
        .host_process = request.host_process,
        .load_request = request.load_request,
        .load_answer = request.load_answer,
    };
    if (ct_start_(&request) != CT_RECORDER_OK)
        printf("system_error=%u\n", request.system_error);
    CHECK(request.status == CT_RECORDER_OK);
    CHECK(header->process_id == GetCurrentProcessId());
}

static uint8_t *code_at;

static void put(const char *bytes, size_t size)
{
    memcpy(code_at, bytes, size);
    code_at += size;
}

#define PUT(bytes) put(bytes, sizeof bytes - 1)

static void put32(uint32_t value)
{
    put((const char *)&value, 4);
}

static void put64(uint64_t value)
{
    put((const char *)&value, 8);
}

#define SLOW_SIZE 19

/* Into `place`, of SLOW_SIZE bytes: call the slow path, then look again. */
static void put_slow_path(uint8_t *place, uint8_t *jump, uint8_t *again)
{
    uint8_t *here = code_at;
    ptrdiff_t distance = place - (jump + 2);
    CHECK(distance >= -128 && distance < 128);
    jump[1] = (uint8_t)distance;
    code_at = place;
    PUT("\xff\x15\x05\x00\x00\x00"); /* call [slow_path] */
    PUT("\xe9"), put32((uint32_t)(again - (code_at + 4)));
    put64(request.slow_path);
    code_at = here;
}

/* The inline event sequence, of the code in r8d, or of `immediate` if that is not 0. Its slow path comes to `slow`, or
 * behind the next instruction, a ret, if that is NULL. */
static void put_event(uint32_t immediate, uint8_t *slow)
{
    PUT("\x65\x48\x89\x0c\x25"), put32(request.scratch[0]); /* mov gs:[scratch], rcx */
    uint8_t *again = code_at;
    PUT("\x65\x0f\xb7\x0c\x25"), put32(request.cursor); /* movzx ecx, word gs:[cursor] */
    uint8_t *jump = code_at;
    PUT("\xe3\xff"); /* jrcxz slow */
    if (unit_clock == CT_CLOCK_TSC)
        PUT("\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\x48\xc1\xe0\x18"); /* rdtsc; rax = rdx:rax << 24 */
    else if (unit_clock == CT_CLOCK_COARSE)
        PUT("\x48\xa1"), put64(request.coarse_clock); /* mov rax, [coarse_clock] */
    if (immediate)
        PUT("\x41\xb8"), put32(immediate);              /* mov r8d, immediate */
    PUT("\x65\x48\x8b\x0c\x25"), put32(request.cursor); /* mov rcx, gs:[cursor] */
    if (unit_clock == CT_CLOCK_NONE)
        PUT("\x44\x89\x01\x48\x8d\x49\x04"); /* mov [rcx], r8d; lea rcx, [rcx+4] */
    else
        PUT("\x4c\x09\xc0\x48\x89\x01\x48\x8d\x49\x08");    /* or rax, r8; mov [rcx], rax; lea rcx, [rcx+8] */
    PUT("\x65\x48\x89\x0c\x25"), put32(request.cursor);     /* mov gs:[cursor], rcx */
    PUT("\x65\x48\x8b\x0c\x25"), put32(request.scratch[0]); /* mov rcx, gs:[scratch] */
    put_slow_path(slow ? slow : code_at + 1, jump, again);
}

static void assemble(void)
{
    code_at = VirtualAlloc(NULL, 0x10000, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    CHECK(code_at != NULL);
    emit = (void (*)(uint32_t))(uintptr_t)code_at;
    PUT("\x41\x89\xc8"); /* mov r8d, ecx */
    put_event(0, NULL);
    PUT("\xc3"); /* ret */
    uint8_t *slow = code_at + SLOW_SIZE;
    code_at = slow + 2 * SLOW_SIZE;
    emit_pairs = (void (*)(uint64_t))(uintptr_t)code_at;
    PUT("\x49\x89\xc9"); /* mov r9, rcx */
    uint8_t *again = code_at;
    put_event(1 << 3 | CT_ENTER, slow);
    put_event(1 << 3 | CT_LEAVE, slow + SLOW_SIZE);
    PUT("\x49\xff\xc9\x0f\x85"), put32((uint32_t)(again - (code_at + 4))); /* dec r9; jnz again */
    PUT("\xc3");
}

static uint32_t code_of(uint64_t number)
{
    return (uint32_t)(number & (CT_ID_LIMIT - 1)) << 3 | CT_ENTER;
}

/* Events numbered from 0, as many as option events says (0: until finish_threads). */
static unsigned __stdcall record_events(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument, events = option("events", 0);
    for (uint64_t i = 0; events ? i < events : !finish_threads; i++) {
        emit(code_of(i));
        counts[number] = i + 1;
    }
    return 0;
}

static HANDLE start_thread(uint64_t number)
{
    HANDLE thread = (HANDLE)_beginthreadex(NULL, 0x10000, record_events, (void *)(uintptr_t)number,
                                           STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    CHECK(thread != NULL);
    return thread;
}

static HANDLE threads[MAX_THREADS];
static DWORD main_thread_id;

static void start_threads(void)
{
    for (uint64_t i = 0; i < option("threads", 1); i++)
        threads[i] = start_thread(i);
}

static void join_threads(void)
{
    for (uint64_t i = 0; i < option("threads", 1); i++)
        CHECK(WaitForSingleObject(threads[i], INFINITE) == WAIT_OBJECT_0);
}

static double seconds(void)
{
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

/* Threads record; the process ends by returning from main. */
static void scenario_events(void)
{
    start_threads();
    join_threads();
}

/* The main thread records on its own and ends the process from deep inside. */
static void scenario_exit(void)
{
    for (uint64_t i = 0; i < option("events", 0); i++)
        emit(code_of(i));
    ExitProcess(3);
}

/* Threads record until the process is terminated in the middle of it. */
static void scenario_terminate(void)
{
    start_threads();
    Sleep((DWORD)option("milliseconds", 200));
    TerminateProcess(GetCurrentProcess(), 7);
}

/* Short-lived threads one after the other, ended as option kill says. */
static void scenario_churn(void)
{
    for (uint64_t i = 0; i < option("threads", 1); i++) {
        HANDLE thread = start_thread(i);
        if (option("kill", 0)) {
            while (counts[i] < 100)
                SwitchToThread();
            CHECK(TerminateThread(thread, 0));
        }
        CHECK(WaitForSingleObject(thread, INFINITE) == WAIT_OBJECT_0);
        CloseHandle(thread);
    }
}

/* The C runtime calls this at a thread's end, after the DLLs loaded later have been told. */
static void NTAPI thread_callback(void *module, DWORD reason, void *reserved)
{
    (void)module, (void)reserved;
    if (reason == DLL_THREAD_DETACH && emit && option("trailing", 0))
        emit(2000 << 3 | CT_ENTER);
}

__attribute__((section(".CRT$XLY"), used)) static const PIMAGE_TLS_CALLBACK thread_callback_entry = thread_callback;

static uint64_t counted_events(void)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < option("threads", 1); i++)
        sum += counts[i];
    return sum;
}

/* All slots of the policy's room are used up; then there is room again. */
static void scenario_block(void)
{
    start_threads();
    /* While the writer has not done with the last blocks, a thread may find a slot once more. */
    uint64_t before, now = 0;
    do {
        before = now;
        Sleep(100);
        now = header->blocked == option("threads", 1) ? counted_events() : 0;
    } while (!now || now != before);
    if (option("stop", 0)) {
        header->stop = 1;
    } else {
        header->max_size = 0;
    }
    join_threads();
    CHECK(header->blocked == 0);
}

static struct ct_code load_code;

/* Two entries above the module, for what would be the copies of its functions. */
static void place_code(uint64_t base)
{
    uint8_t *memory = NULL;
    for (uint32_t distance = 0x1000000; !memory && distance < 0x70000000; distance += 0x100000)
        memory = VirtualAlloc((void *)(uintptr_t)(base + distance), 0x10000, MEM_COMMIT | MEM_RESERVE,
                              PAGE_EXECUTE_READWRITE);
    CHECK(memory != NULL);
    uint32_t rva = (uint32_t)((uint64_t)(uintptr_t)memory - base);
    *(uint32_t *)memory = 1; /* UNWIND_INFO version 1 without codes */
    RUNTIME_FUNCTION *table = (void *)(memory + 0x100);
    table[0] = (RUNTIME_FUNCTION){.BeginAddress = rva + 0x1000, .EndAddress = rva + 0x2000, .UnwindData = rva};
    table[1] = (RUNTIME_FUNCTION){.BeginAddress = rva + 0x2000, .EndAddress = rva + 0x3000, .UnwindData = rva};
    load_code = (struct ct_code){.base = base, .region = base + rva, .table = rva + 0x100, .table_count = 2};
}

/* What a host does with a suspended thread before ct_stop: if it is in the middle of an event, that goes nowhere. */
static void leave_block(HANDLE thread)
{
    CONTEXT context = {.ContextFlags = CONTEXT_CONTROL | CONTEXT_INTEGER};
    struct {
        NTSTATUS status;
        char *teb;
        uint64_t rest[4];
    } basic;
    CHECK(GetThreadContext(thread, &context)); /* it is really suspended when this returns */
    CHECK(NtQueryInformationThread(thread, (THREADINFOCLASS)0, &basic, sizeof basic, NULL) == 0);
    uint64_t unit = *(uint64_t *)(basic.teb + request.cursor);
    if (unit && context.Rcx - unit <= 8) {
        context.Rcx = recorder->nowhere;
        CHECK(SetThreadContext(thread, &context));
    }
}

/* Until each thread has recorded something. */
static void await_threads(void)
{
    while (header->threads < option("threads", 1))
        Sleep(1);
    for (uint64_t i = 0; i < option("threads", 1); i++)
        for (uint64_t before = counts[i]; counts[i] < before + 2;)
            Sleep(1);
}

/* Threads record, are stopped, go on, record again into a second file, and are stopped again. */
static void scenario_stop(const char *path)
{
    char second[MAX_PATH];
    place_code((uint64_t)(uintptr_t)GetModuleHandleA(NULL));
    start_threads();
    for (int round = 0; round < 2; round++) {
        await_threads();
        Sleep(100);
        for (uint64_t i = 0; i < option("threads", 1); i++)
            CHECK(SuspendThread(threads[i]) != (DWORD)-1);
        if (round == 0) {
            struct ct_start other = {.abi = CT_RECORDER_ABI};
            CHECK(ct_start_(&other) == CT_RECORDER_TWICE && ct_is_orphaned_() == 0);
        }
        for (uint64_t i = 0; i < option("threads", 1); i++)
            leave_block(threads[i]);
        CHECK(ct_add_code_(&load_code) == CT_RECORDER_OK); /* threads are still in it, so its cursor stays */
        CHECK(ct_stop_() == CT_RECORDER_OK && ct_stop_() == CT_RECORDER_NOT_STARTED);
        CHECK(header->state == CT_STATE_STOPPED && header->stop == 1);
        for (uint64_t i = 0; i < option("threads", 1); i++)
            printf("stopped_%d_%d=%llu\n", round, (int)i, (unsigned long long)counts[i]);
        for (uint64_t i = 0; i < option("threads", 1); i++)
            CHECK(ResumeThread(threads[i]) != (DWORD)-1);
        uint64_t before = counts[0];
        while (recorder->open_files || counts[0] == before)
            Sleep(1); /* the file is closed without any call of ours, and the threads go on */
        CHECK(mark(1) == CALLTRACE_NOT_RECORDING);
        if (round == 0) {
            uint32_t cursor = request.cursor;
            snprintf(second, sizeof second, "%s.second", path);
            start_recording(second);
            CHECK(request.cursor != cursor);
            assemble();
        }
    }
    finish_threads = 1;
    join_threads();
}

/* NtWriteFile as the recorder calls it is itself traced. */
static NTSTATUS(NTAPI *real_write)(HANDLE, HANDLE, void *, void *, IO_STATUS_BLOCK *, void *, ULONG, LARGE_INTEGER *,
                                   ULONG *);
static volatile LONG writes_by_threads, writes_by_writer;

static NTSTATUS NTAPI traced_write(HANDLE file, HANDLE event, void *apc, void *context, IO_STATUS_BLOCK *io,
                                   void *buffer, ULONG size, LARGE_INTEGER *place, ULONG *key)
{
    bool ours = GetCurrentThreadId() == main_thread_id;
    for (uint64_t i = 0; i < option("threads", 1); i++)
        ours = ours || GetCurrentThreadId() == GetThreadId(threads[i]);
    InterlockedIncrement(ours ? &writes_by_threads : &writes_by_writer);
    for (int i = 0; i < 20000; i++) /* more than a block full of them */
        emit(0xFFFFF << 3 | CT_CALL);
    return real_write(file, event, apc, context, io, buffer, size, place, key);
}

/* Makes the recorder call `replacement` for NtWriteFile. */
static void hook_write(void *replacement)
{
    real_write = (void *)(uintptr_t)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtWriteFile");
    const IMAGE_DOS_HEADER *dos = (void *)dll;
    const IMAGE_NT_HEADERS *nt = (void *)((char *)dll + dos->e_lfanew);
    const IMAGE_DATA_DIRECTORY *imports = &nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IAT];
    void **table = (void **)((char *)dll + imports->VirtualAddress);
    bool found = false;
    for (DWORD i = 0; i < imports->Size / 8; i++) {
        DWORD old;
        if (table[i] != (void *)(uintptr_t)real_write)
            continue;
        CHECK(VirtualProtect(&table[i], 8, PAGE_READWRITE, &old));
        table[i] = replacement;
        found = true;
    }
    CHECK(found);
}

static void scenario_reentrant(void)
{
    hook_write((void *)(uintptr_t)traced_write);
    scenario_events();
    CHECK(writes_by_threads > 0 && writes_by_writer > 0);
}

static char *teb(void)
{
    char *value;
    __asm__("movq %%gs:0x30, %0" : "=r"(value));
    return value;
}

struct probe {
    _Alignas(64) uint8_t area[4096];
    uint64_t registers[15];
    uint64_t flags;
    uint64_t mask;
};
void probe(const struct probe *in, struct probe *out, void *function, uint64_t misalign);

static volatile LONG disturbances;
static uint32_t vector_state; /* XCR0 */

/* Changes all that a system call may change, and more. */
static NTSTATUS NTAPI disturbing_write(HANDLE file, HANDLE event, void *apc, void *context, IO_STATUS_BLOCK *io,
                                       void *buffer, ULONG size, LARGE_INTEGER *place, ULONG *key)
{
    static const uint32_t mxcsr = 0x1F80;
    CHECK((__builtin_ia32_readeflags_u64() & 0x400) == 0); /* the direction flag, as the ABI has it */
    NTSTATUS status = real_write(file, event, apc, context, io, buffer, size, place, key);
    InterlockedIncrement(&disturbances);
    SetLastError(1);
    *(uint32_t *)(teb() + 0x1250) = 1;
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm5, %%xmm5; pcmpeqd %%xmm9, %%xmm9" : : : "xmm0", "xmm5");
    if (vector_state & 4)
        __asm__ volatile("vzeroall");
    if (vector_state & 0xE0)
        __asm__ volatile(".byte 0xc5,0xfc,0x47,0xc8\n"           /* kxorw k1, k0, k0 */
                         ".byte 0x62,0xa1,0x7d,0x40,0xef,0xc0"); /* vpxord zmm16, zmm16, zmm16 */
    return status;
}

/* The slow path disturbs nothing: not at any stack alignment, not when it takes, fills or passes on a block. */
static void scenario_preserve(void)
{
    static struct probe in, out;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    vector_state = low;
    hook_write((void *)(uintptr_t)disturbing_write);
    in.mask = out.mask = low & 0xE7;
    printf("mask=%u\n", (unsigned)in.mask);
    uint64_t seed = 88172645463325252ull;
    for (int round = 0; round < 2000; round++) {
        for (size_t i = 0; i < sizeof in / 8; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            ((uint64_t *)&in)[i] = seed;
        }
        in.mask = out.mask;
        in.flags = (seed & 0x8D5) | (round & 1 ? 0x400 : 0) | 0x202;
        memset(in.area, 0, 32);                                   /* x87 control, and pointers */
        *(uint16_t *)in.area = 0x027F | (round & 3) << 10;        /* precision as MSVC has it, rounding */
        in.area[4] = 0xFF;                                        /* all registers in use */
        *(uint32_t *)(in.area + 24) = 0x1F80 | (round & 3) << 13; /* MXCSR: rounding */
        memset(in.area + 512, 0, 64);
        *(uint64_t *)(in.area + 512) = in.mask;
        memset(&out, 0, sizeof out);
        out.mask = in.mask;
        SetLastError(1000 + (DWORD)round);
        uint32_t *status = (uint32_t *)(teb() + 0x1250);
        *status = 0xC0000100 + (uint32_t)round;
        uint64_t *cursor = (uint64_t *)(teb() + request.cursor);
        if (*cursor && round % 50)
            *cursor = ((*cursor - 1) | (CT_BLOCK - 1)) + 1; /* full */
        else
            *cursor = 0;
        uint64_t before = *cursor;
        probe(&in, &out, (void *)(uintptr_t)request.slow_path, (uint64_t)round % 16);
        CHECK(*cursor != before && (*cursor & 0xFFFF) != 0);
        CHECK(*status == 0xC0000100 + (uint32_t)round);
        CHECK(GetLastError() == 1000 + (DWORD)round);
        CHECK(!memcmp(in.registers, out.registers, sizeof in.registers));
        CHECK(in.flags == out.flags);
        CHECK(*(uint16_t *)out.area == *(uint16_t *)in.area && out.area[4] == 0xFF);
        CHECK(!memcmp(in.area + 24, out.area + 24, 4));
        for (int i = 0; i < 8; i++)
            CHECK(!memcmp(in.area + 32 + 16 * i, out.area + 32 + 16 * i, 10)); /* x87 */
        CHECK(!memcmp(in.area + 160, out.area + 160, 256));                    /* SSE */
        CHECK((*(uint64_t *)(out.area + 512) & in.mask) == in.mask);
        for (unsigned component = 2; component < 8; component++) {
            unsigned size, offset, c, d;
            if (!(in.mask >> component & 1))
                continue;
            __asm__("cpuid" : "=a"(size), "=b"(offset), "=c"(c), "=d"(d) : "a"(0xD), "c"(component));
            CHECK(!memcmp(in.area + offset, out.area + offset, size));
        }
    }
    CHECK(disturbances > 1000);
}

#define AT(address) ((const void *)(uintptr_t)(address))

static void print_stack(const char *name, uint32_t capacity)
{
    static struct calltrace_frame frames[64];
    uint32_t count = 0;
    enum calltrace_result result = export_stack_trace(frames, capacity, &count);
    printf("%s=%d", name, result);
    for (uint32_t i = 0; i < count; i++)
        printf(" %llx/%llx/%d/%d", (unsigned long long)(uintptr_t)frames[i].function,
               (unsigned long long)(uintptr_t)frames[i].call_site, (int)frames[i].function_id,
               (int)frames[i].call_site_id);
    printf("\n");
}

static void emit_frame(uint32_t sp)
{
    emit(sp); /* with a clock its high half would hold the time; this scenario has none */
}

static unsigned __stdcall api_thread(void *argument)
{
    (void)argument;
    CHECK(function_enter(AT(0x1000), AT(0x2000)) == CALLTRACE_OK);
    emit(7 << 3 | CT_ENTER);
    emit(9 << 3 | CT_CALL);
    emit(8 << 3 | CT_ENTER);
    CHECK(function_call(AT(0x3000), AT(0x3001)) == CALLTRACE_OK);
    print_stack("mixed", 64);
    print_stack("two", 2);
    CHECK(function_ret(AT(0x3000), AT(0x3001)) == CALLTRACE_OK);
    CHECK(mark(0x123456789ABCDEF0) == CALLTRACE_OK);
    emit(8 << 3 | CT_LEAVE);
    emit(9 << 3 | CT_RETURN);
    print_stack("returned", 64);
    CHECK(function_goto(AT(0x4000), AT(0x4001)) == CALLTRACE_OK); /* out of function 7 */
    CHECK(function_enter(AT(0x4000), NULL) == CALLTRACE_OK);
    print_stack("jumped", 64);
    CHECK(function_exit(AT(0x5555)) == CALLTRACE_OK); /* nobody's: ignored */
    print_stack("unmatched", 64);
    CHECK(function_exit(AT(0x1000)) == CALLTRACE_OK); /* closes 0x4000 with it */
    print_stack("empty", 64);
    emit_frame(0x9000), emit(20 << 3 | CT_ENTER);
    emit_frame(0x8000), emit(21 << 3 | CT_ENTER);
    emit_frame(0x7000), emit(20 << 3 | CT_ENTER);
    emit(22 << 3 | CT_ENTER);
    emit_frame(0x8800), emit(20 << 3 | CT_LAND); /* in the outer 20 again: all others were unwound */
    print_stack("landed", 64);
    emit_pairs(300000); /* many blocks later */
    print_stack("later", 64);
    emit_pairs(1000000); /* further than it goes back */
    print_stack("far", 64);
    CHECK(reset_stack_trace() == CALLTRACE_OK);
    CHECK(function_enter(AT(0x6000), AT(0x6001)) == CALLTRACE_OK);
    print_stack("reset", 64);
    for (uint64_t i = 0; i < 100000; i++) { /* EXT units at every place of a block, and across its end */
        emit(code_of(i));
        CHECK(mark(i) == CALLTRACE_OK);
    }
    return 0;
}

static void scenario_api(void)
{
    threads[0] = (HANDLE)_beginthreadex(NULL, 0, api_thread, NULL, 0, NULL);
    CHECK(WaitForSingleObject(threads[0], INFINITE) == WAIT_OBJECT_0);
    SetLastError(1234);
    CHECK(mark(5) == CALLTRACE_OK);
    CHECK(GetLastError() == 1234);
    header->stop = 1;
    CHECK(mark(6) == CALLTRACE_NOT_RECORDING);
    uint32_t count = 77;
    struct calltrace_frame frame;
    CHECK(export_stack_trace(&frame, 1, &count) == CALLTRACE_NOT_RECORDING && count == 0);
}

/* Event code and API in turn, on the main thread. */
static void scenario_marks(void)
{
    for (uint64_t i = 0; i < option("events", 0); i++) {
        emit(code_of(i));
        CHECK(mark(i) == CALLTRACE_OK);
    }
}

/* The DLL before any start. */
static void not_started(void)
{
    uint32_t count = 77;
    struct calltrace_frame frame;
    struct ct_code code = {0};
    struct ct_start other = {.abi = CT_RECORDER_ABI + 1};
    CHECK(mark(1) == CALLTRACE_NOT_RECORDING);
    CHECK(function_enter(AT(1), AT(2)) == CALLTRACE_NOT_RECORDING);
    CHECK(export_stack_trace(&frame, 1, &count) == CALLTRACE_NOT_RECORDING && count == 0);
    CHECK(reset_stack_trace() == CALLTRACE_NOT_RECORDING);
    CHECK(ct_stop_() == CT_RECORDER_NOT_STARTED);
    CHECK(ct_add_code_(&code) == CT_RECORDER_NOT_STARTED);
    CHECK(ct_remove_code_(&code) == CT_RECORDER_OK);
    CHECK(ct_start_(&other) == CT_RECORDER_BAD_ABI && other.status == CT_RECORDER_BAD_ABI);
}

/* Not a trace file, or one damaged: refused, and a good one is taken after that. */
static void scenario_refuse(const char *path)
{
    static const struct {
        const char *what;
        uint64_t offset;
        uint64_t value;
    } damages[] = {
        {"magic", 0, 1},
        {"version", 8, 2},
        {"block size", 16, 4096},
        {"unit size", 20, 8},
        {"no LIVE chunk", CT_BLOCK, CT_CHUNK_INFO},
        {"LIVE chunk longer than the file says", CT_BLOCK + 8, 1ull << 40},
        {"length 0", CT_BLOCK + 8, 0},
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        char damaged[MAX_PATH]; /* each its own: what is mapped cannot be made anew */
        snprintf(damaged, sizeof damaged, "%s.%d", path, (int)i);
        create_trace(damaged, CT_CLOCK_NONE);
        HANDLE file = open_file(damaged, OPEN_EXISTING);
        write_at(file, damages[i].offset, &damages[i].value, damages[i].offset < CT_BLOCK ? 4 : 8);
        struct ct_start bad = {.abi = CT_RECORDER_ABI, .file = (uint64_t)(uintptr_t)file};
        printf("%s: ", damages[i].what);
        CHECK(ct_start_(&bad) == CT_RECORDER_NO_MAPPING && bad.system_error != 0);
        UnmapViewOfFile(header);
        CloseHandle(file);
    }
    struct ct_start bad = {.abi = CT_RECORDER_ABI, .file = 0x7FFFFFF0};
    CHECK(ct_start_(&bad) == CT_RECORDER_NO_MAPPING && bad.system_error != 0);
    printf("\n");
    start_recording(path);
}

/* Module loads: a thread plays the host. */
static volatile LONG loads_seen;
static volatile LONG host_ready;
static uint64_t load_base_seen;

static RUNTIME_FUNCTION *look_up(uint64_t address)
{
    DWORD64 base = 0;
    return RtlLookupFunctionEntry(address, &base, NULL);
}

static unsigned __stdcall play_host(void *answer)
{
    host_ready = 1;
    for (;;) {
        CHECK(WaitForSingleObject((HANDLE)(uintptr_t)request.load_request, INFINITE) == WAIT_OBJECT_0);
        load_base_seen = header->load_base;
        printf("load=%ls %u\n", (const wchar_t *)header->load_path, header->load_size);
        if (answer) {
            place_code(header->load_base);
            memcpy(header->load_path, &load_code, sizeof load_code);
        }
        header->load_answer = answer != NULL;
        InterlockedIncrement(&loads_seen);
        SetEvent((HANDLE)(uintptr_t)request.load_answer);
    }
    return 0;
}

static void scenario_loads(void)
{
    _beginthreadex(NULL, 0, play_host, option("answer", 0) ? (void *)1 : NULL, 0, NULL);
    while (!host_ready) /* its start needs the loader, which is held during a load */
        Sleep(1);
    HMODULE module = LoadLibraryA("msimg32.dll");
    CHECK(module != NULL);
    CHECK(loads_seen >= 1 && load_base_seen == (uint64_t)(uintptr_t)module);
    uint64_t inside = load_code.region + 0x2345;
    if (option("answer", 0))
        CHECK(look_up(inside) == (RUNTIME_FUNCTION *)(uintptr_t)(load_code.base + load_code.table) + 1);
    FreeLibrary(module);
    CHECK(GetModuleHandleA("msimg32.dll") == NULL);
    CHECK(look_up(inside) == NULL);
    header->stop = 1;
    LONG before = loads_seen;
    CHECK(LoadLibraryA("msimg32.dll") != NULL && loads_seen == before);
}

/* The host dies while a thread waits for its answer: the load goes on. */
static void scenario_orphan(void)
{
    HMODULE module = LoadLibraryA("msimg32.dll"); /* nobody answers */
    CHECK(module != NULL);
}

/* Nested ranges: whatever the order of registration, each address finds the entry of its own table. */
static void scenario_tables(void)
{
    enum { PAGE = 0x1000, UNWIND = 0x100 };
    uint8_t *memory = VirtualAlloc(NULL, 64 * PAGE, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    CHECK(memory != NULL);
    /* Module k at base + 4k pages; its copies far above: ranges [4k pages, 60 - 4k pages) */
    struct ct_code codes[6];
    for (uint32_t k = 0; k < 6; k++) {
        uint64_t base = (uint64_t)(uintptr_t)memory + 4 * k * PAGE;
        uint32_t at = (60 - 8 * k) * PAGE - 2 * PAGE;
        RUNTIME_FUNCTION *table = (void *)(memory + 4 * k * PAGE + PAGE);
        *(uint32_t *)(memory + 4 * k * PAGE + UNWIND) = 1; /* UNWIND_INFO version 1 without codes */
        table[0] = (RUNTIME_FUNCTION){.BeginAddress = at, .EndAddress = at + PAGE, .UnwindData = UNWIND};
        table[1] = (RUNTIME_FUNCTION){.BeginAddress = at + PAGE, .EndAddress = at + 2 * PAGE, .UnwindData = UNWIND};
        codes[k] = (struct ct_code){.base = base, .region = base + at, .table = PAGE, .table_count = 2};
    }
    static const int orders[3][6] = {{0, 1, 2, 3, 4, 5}, {5, 4, 3, 2, 1, 0}, {2, 5, 0, 3, 1, 4}};
    for (int order = 0; order < 3; order++) {
        for (int i = 0; i < 6; i++)
            CHECK(ct_add_code_(&codes[orders[order][i]]) == CT_RECORDER_OK);
        for (uint32_t k = 0; k < 6; k++) {
            RUNTIME_FUNCTION *table = (void *)(uintptr_t)(codes[k].base + codes[k].table);
            CHECK(look_up(codes[k].base + table[0].BeginAddress + 5) == &table[0]);
            CHECK(look_up(codes[k].base + table[1].EndAddress - 1) == &table[1]);
        }
        for (int i = 0; i < 6; i++)
            CHECK(ct_remove_code_(&codes[i]) == CT_RECORDER_OK);
        for (uint32_t k = 0; k < 6; k++) {
            RUNTIME_FUNCTION *table = (void *)(uintptr_t)(codes[k].base + codes[k].table);
            CHECK(look_up(codes[k].base + table[0].BeginAddress + 5) == NULL);
        }
    }
    struct ct_code leaves = {.base = codes[0].base, .table = PAGE}; /* nothing to register */
    CHECK(ct_add_code_(&leaves) == CT_RECORDER_OK);
    CHECK(look_up(codes[0].base + 5) == NULL);
    CHECK(ct_remove_code_(&leaves) == CT_RECORDER_OK);
}

/* Functions of 16 bytes, each `mov eax, N; ret` with an int3 in place of its first byte, and their copies, which give
 * N + 1000000. */
enum { SHORT_FUNCTIONS = 6000, SHORT_BYTES = 16 };
static uint8_t *short_functions;
static struct ct_code short_code;
static volatile LONG strangers;

static void put_function(uint8_t *at, uint32_t result)
{
    static const uint8_t code[] = {0xB8, 0, 0, 0, 0, 0xC3};
    memcpy(at, code, sizeof code);
    memcpy(at + 1, &result, 4);
}

static uint32_t call_short(uint32_t number)
{
    uint32_t (*function)(void) = (void *)(short_functions + number * SHORT_BYTES);
    return function();
}

static void set_breakpoints(bool on)
{
    for (uint32_t i = 0; i < SHORT_FUNCTIONS; i++)
        *(volatile uint8_t *)(short_functions + i * SHORT_BYTES) = on ? 0xCC : 0xB8;
}

/* Sees what the recorder passes on, and executes the instruction that begins with the int3 as it was. */
static LONG WINAPI behind_recorder(EXCEPTION_POINTERS *pointers)
{
    if (pointers->ExceptionRecord->ExceptionCode != EXCEPTION_BREAKPOINT)
        return EXCEPTION_CONTINUE_SEARCH;
    InterlockedIncrement(&strangers);
    uint64_t offset = pointers->ContextRecord->Rip - (uint64_t)(uintptr_t)short_functions;
    if (offset < SHORT_FUNCTIONS * SHORT_BYTES) { /* or else it was raised, and raising it is over */
        pointers->ContextRecord->Rax = 77;
        pointers->ContextRecord->Rip += 5; /* to the ret */
    }
    return EXCEPTION_CONTINUE_EXECUTION;
}

static unsigned __stdcall short_caller(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; !finish_threads; i++) {
        uint32_t result = call_short(i % SHORT_FUNCTIONS) % 1000000;
        CHECK(result == i % SHORT_FUNCTIONS);
    }
    return 0;
}

/* What an int3 leads to: the copy while it is registered; the function itself when the host has taken both away in the
 * meantime; and the program's handlers if it is none of ours. */
static void scenario_breakpoints(void)
{
    enum { COPIES = 0x20000, TABLE = 0x40000, LIST = 0x41000, UNWIND = 0x60000, SIZE = 0x70000, FEW = 100 };
    uint8_t *memory = VirtualAlloc(NULL, SIZE, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    CHECK(memory != NULL);
    short_functions = memory;
    struct ct_breakpoint *list = (void *)(memory + LIST);
    for (uint32_t i = 0; i < SHORT_FUNCTIONS; i++) {
        put_function(memory + i * SHORT_BYTES, i);
        put_function(memory + COPIES + i * SHORT_BYTES, i + 1000000);
        list[i] = (struct ct_breakpoint){i * SHORT_BYTES, COPIES + i * SHORT_BYTES};
    }
    *(uint32_t *)(memory + UNWIND) = 1; /* UNWIND_INFO version 1 without codes */
    *(RUNTIME_FUNCTION *)(memory + TABLE) = (RUNTIME_FUNCTION){
        .BeginAddress = COPIES, .EndAddress = COPIES + SHORT_FUNCTIONS * SHORT_BYTES, .UnwindData = UNWIND};
    short_code = (struct ct_code){
        .base = (uint64_t)(uintptr_t)memory,
        .region = (uint64_t)(uintptr_t)memory + COPIES,
        .region_size = TABLE - COPIES,
        .table = TABLE,
        .table_count = 1,
        .breakpoints = LIST,
        .breakpoint_count = FEW,
    };
    CHECK(AddVectoredExceptionHandler(0, behind_recorder) != NULL);

    /* Some, then so many that the recorder's table grows; while threads call all of them. */
    for (uint32_t i = 0; i < 2; i++)
        threads[i] = (HANDLE)_beginthreadex(NULL, 0, short_caller, NULL, 0, NULL);
    for (uint32_t count = FEW; count <= SHORT_FUNCTIONS; count *= 60) {
        short_code.breakpoint_count = count;
        CHECK(ct_add_code_(&short_code) == CT_RECORDER_OK);
        for (uint32_t i = 0; i < count; i++)
            *(volatile uint8_t *)(memory + i * SHORT_BYTES) = 0xCC;
        for (uint32_t i = 0; i < count; i++)
            CHECK(call_short(i) == i + 1000000);
        set_breakpoints(false);
        CHECK(ct_remove_code_(&short_code) == CT_RECORDER_OK);
    }
    finish_threads = 1;
    WaitForMultipleObjects(2, threads, TRUE, INFINITE);
    CHECK(strangers == 0);

    /* No longer ours: everybody's. */
    set_breakpoints(true);
    CHECK(call_short(5) == 77 && strangers == 1);
    CHECK(call_short(SHORT_FUNCTIONS - 1) == 77 && strangers == 2);
    RaiseException(EXCEPTION_BREAKPOINT, 0, 0, NULL);
    CHECK(strangers == 3);
    /* And ours again, with another copy. */
    list[5].copy = COPIES + 6 * SHORT_BYTES;
    CHECK(ct_add_code_(&short_code) == CT_RECORDER_OK);
    CHECK(call_short(5) == 1000006 && call_short(6) == 1000006 && strangers == 3);
    /* A handler that the program puts in front by way of the recorder comes behind it. */
    void *(*add)(ULONG, PVECTORED_EXCEPTION_HANDLER) =
        (void *)(uintptr_t)GetProcAddress(dll, "ct_add_vectored_handler");
    void *added = add(1, behind_recorder);
    CHECK(call_short(7) == 1000007 && strangers == 3);
    CHECK(RemoveVectoredExceptionHandler(added));
}

static volatile LONG64 processor_time; /* of all threads, in units of 100 ns */

static unsigned __stdcall bench_thread(void *argument)
{
    (void)argument;
    uint64_t pairs = option("events", 0) / 2;
    if (!option("bare", 0)) {
        emit_pairs(pairs);
    } else {
        emit_pairs(1); /* then never leave the block: what the event code alone costs */
        uint64_t *cursor = (uint64_t *)(teb() + request.cursor), start = *cursor;
        for (uint64_t done = 0; done < pairs; done += 4000) {
            *cursor = start;
            emit_pairs(4000);
        }
    }
    FILETIME created, ended, kernel, user;
    CHECK(GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user));
    InterlockedAdd64(&processor_time, (LONG64)kernel.dwLowDateTime + user.dwLowDateTime); /* well below 400 s */
    return 0;
}

/* Nanoseconds per event, of pairs of ENTER and LEAVE in threads side by side: of time, and of the threads' own
 * processor time. */
static void scenario_bench(void)
{
    uint64_t count = option("threads", 1);
    double start = seconds(), events = (double)(count * option("events", 0));
    for (uint64_t i = 0; i < count; i++)
        threads[i] = (HANDLE)_beginthreadex(NULL, 0, bench_thread, NULL, 0, NULL);
    join_threads();
    printf("nanoseconds=%.2f\nprocessor_nanoseconds=%.2f\n", (seconds() - start) * 1e9 / events,
           100.0 * (double)processor_time / events);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 4);
    main_thread_id = GetCurrentThreadId();
    argument_count = argc - 4;
    arguments = argv + 4;
    const char *trace = argv[2], *scenario = argv[3];
    unit_clock = option("clock", CT_CLOCK_NONE);
    dll = LoadLibraryA(argv[1]);
    CHECK(dll != NULL);
#define FIND(variable, name) variable = (void *)(uintptr_t)GetProcAddress(dll, name), CHECK(variable != NULL)
    FIND(ct_start_, "ct_start");
    FIND(ct_stop_, "ct_stop");
    FIND(ct_is_orphaned_, "ct_is_orphaned");
    FIND(recorder, "ct_recorder");
    FIND(ct_add_code_, "ct_add_code");
    FIND(ct_remove_code_, "ct_remove_code");
#define FIND_API(name) FIND(name, "calltrace_" #name)
    FIND_API(function_enter);
    FIND_API(function_exit);
    FIND_API(function_call);
    FIND_API(function_ret);
    FIND_API(function_goto);
    FIND_API(mark);
    FIND_API(export_stack_trace);
    FIND_API(reset_stack_trace);
    not_started();
    char count_path[MAX_PATH];
    snprintf(count_path, sizeof count_path, "%s.counts", trace);
    counts = map_file(open_file(count_path, CREATE_ALWAYS), MAX_THREADS * 8);
    if (!strcmp(scenario, "refuse")) {
        scenario_refuse(trace);
        return 0;
    }
    if (!strcmp(scenario, "loads") || !strcmp(scenario, "orphan")) {
        request.flags = CT_START_NOTIFY_LOADS;
        request.load_request = (uint64_t)(uintptr_t)CreateEventA(NULL, FALSE, FALSE, NULL);
        request.load_answer = (uint64_t)(uintptr_t)CreateEventA(NULL, FALSE, FALSE, NULL);
    }
    if (option("host_dies", 0)) {
        static STARTUPINFOA startup = {.cb = sizeof startup};
        PROCESS_INFORMATION process;
        char command[] = "cmd /c exit";
        CHECK(CreateProcessA(NULL, command, NULL, NULL, FALSE, 0, NULL, NULL, &startup, &process));
        request.host_process = (uint64_t)(uintptr_t)process.hProcess;
    }
    start_recording(trace);
    assemble();
    if (!strcmp(scenario, "events"))
        scenario_events();
    else if (!strcmp(scenario, "exit"))
        scenario_exit();
    else if (!strcmp(scenario, "terminate"))
        scenario_terminate();
    else if (!strcmp(scenario, "churn"))
        scenario_churn();
    else if (!strcmp(scenario, "block"))
        scenario_block();
    else if (!strcmp(scenario, "stop"))
        scenario_stop(trace);
    else if (!strcmp(scenario, "reentrant"))
        scenario_reentrant();
    else if (!strcmp(scenario, "preserve"))
        scenario_preserve();
    else if (!strcmp(scenario, "api"))
        scenario_api();
    else if (!strcmp(scenario, "marks"))
        scenario_marks();
    else if (!strcmp(scenario, "loads"))
        scenario_loads();
    else if (!strcmp(scenario, "orphan"))
        scenario_orphan();
    else if (!strcmp(scenario, "tables"))
        scenario_tables();
    else if (!strcmp(scenario, "breakpoints"))
        scenario_breakpoints();
    else if (!strcmp(scenario, "bench"))
        scenario_bench();
    else
        CHECK(!"a known scenario");
    fflush(stdout);
    return 0;
}
