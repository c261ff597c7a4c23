/* The exports for the host, and the ends of threads and of the process. */
#include "session.h"
#include <cpuid.h>

struct session *ct_session;
__declspec(dllexport) volatile uint32_t ct_active; /* for those who look from outside: a recording is under way */
uint64_t ct_cursor_offset;

/* For slow_path.S: what xsave is to keep (0: use fxsave) and how many bytes that takes. */
uint32_t ct_xsave_mask;
uint32_t ct_xsave_size = 512;

/* And stacks for threads whose own is nearly full. */
void *ct_reserve_stacks;

void ct_slow_path(void);

static uint32_t scratch_offsets[3];

static void measure_xsave(void)
{
    enum { X87_SSE = 3, AVX = 4, AVX512 = 0xE0, LEGACY_AND_HEADER = 576 };
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    uint32_t mask = low & (X87_SSE | AVX | AVX512), size = LEGACY_AND_HEADER;
    for (uint32_t component = 2; component < 8; component++) {
        if (!(mask >> component & 1))
            continue;
        __cpuid_count(0xD, component, a, b, c, d);
        if (a + b > size)
            size = a + b;
    }
    ct_xsave_size = size;
    ct_xsave_mask = mask;
}

/* Four TLS slots in the TEB itself, once per process. */
static bool take_tls_slots(void)
{
    enum { COUNT = 4, IN_TEB = 64, FIRST_OFFSET = 0x1480 };
    DWORD slots[COUNT];
    if (ct_cursor_offset)
        return true;
    for (uint32_t i = 0; i < COUNT; i++) {
        slots[i] = TlsAlloc();
        if (slots[i] < IN_TEB)
            continue;
        if (slots[i] != TLS_OUT_OF_INDEXES)
            TlsFree(slots[i]);
        while (i-- > 0)
            TlsFree(slots[i]);
        return false;
    }
    for (uint32_t i = 0; i < 3; i++)
        scratch_offsets[i] = FIRST_OFFSET + 8 * slots[i + 1];
    ct_cursor_offset = FIRST_OFFSET + 8 * slots[0];
    return true;
}

NTSTATUS ct_open_section(HANDLE file, HANDLE *section)
{
    return NtCreateSection(section, SECTION_MAP_READ | SECTION_MAP_WRITE, NULL, NULL, PAGE_READWRITE, SEC_COMMIT, file);
}

NTSTATUS ct_map_part(HANDLE section, uint64_t offset, uint64_t size, void **view)
{
    LARGE_INTEGER place = {.QuadPart = (LONGLONG)offset};
    SIZE_T bytes = size;
    *view = NULL;
    return NtMapViewOfSection(section, NT_PROCESS, view, 0, 0, &place, &bytes, 2 /* not inherited */, 0,
                              PAGE_READWRITE);
}

static bool is_ours(const struct ct_file_header *header)
{
    static const char magic[8] = CT_MAGIC;
    for (uint32_t i = 0; i < sizeof magic; i++)
        if (header->magic[i] != magic[i])
            return false;
    return header->version == CT_VERSION && header->header_size == sizeof *header && header->block_size == CT_BLOCK &&
           header->clock <= CT_CLOCK_COARSE && header->unit_size == (header->clock == CT_CLOCK_NONE ? 4u : 8u) &&
           header->policy <= CT_POLICY_DROP_OLDEST;
}

/* Finds the LIVE chunk; false if there is none that makes sense. */
static bool find_live(struct session *s)
{
    struct ct_chunk chunk;
    uint64_t end = s->header->append_end;
    for (uint64_t offset = CT_BLOCK; offset < end; offset += chunk.length) {
        if (!ct_read(s, offset, &chunk, sizeof chunk))
            return false;
        if (chunk.kind == CT_CHUNK_HOLE)
            chunk.length = CT_BLOCK;
        if (chunk.length == 0 || chunk.length % CT_BLOCK || chunk.length > end - offset)
            return false;
        if (chunk.kind != CT_CHUNK_LIVE)
            continue;
        uint64_t slots = chunk.length / CT_BLOCK - 1;
        if (slots == 0 || slots > 0x10000)
            return false;
        s->live_count = (uint32_t)slots;
        s->slot_count = s->live_count + MORE_SLOTS;
        s->slots_used = s->live_count;
        s->live_offset = offset + CT_BLOCK;
        s->live_end = offset + chunk.length;
        return true;
    }
    return false;
}

/* Maps header and slots of the trace file. */
static NTSTATUS map_file(struct session *s)
{
    HANDLE section;
    void *view;
    NTSTATUS status = ct_open_section(s->file, &section);
    if (!NT_SUCCESS(status))
        return status;
    status = ct_map_part(section, 0, CT_BLOCK, &view);
    if (NT_SUCCESS(status)) {
        s->header = view;
        if (!is_ours(s->header) || !find_live(s))
            status = STATUS_FILE_CORRUPT_ERROR;
        else
            status = ct_map_part(section, s->live_offset, (uint64_t)s->live_count * CT_BLOCK, &view);
        if (NT_SUCCESS(status)) {
            s->slots = ct_allocate(s->slot_count * sizeof *s->slots);
            if (!s->slots)
                status = STATUS_NO_MEMORY;
            for (uint32_t i = 0; s->slots && i < s->live_count; i++)
                s->slots[i].block = (struct ct_events *)view + (uint64_t)i * (CT_BLOCK / sizeof(struct ct_events));
            if (!s->slots)
                NtUnmapViewOfSection(NT_PROCESS, view);
        }
        if (!NT_SUCCESS(status))
            NtUnmapViewOfSection(NT_PROCESS, s->header);
    }
    NtClose(section);
    return status;
}

static void *allocate_session(NTSTATUS *status)
{
    void *memory = ct_allocate(sizeof(struct session));
    if (memory && !ct_busy_block) {
        ct_busy_block = ct_allocate(CT_BLOCK);
        ct_idle_block = ct_allocate(CT_BLOCK);
        ct_reserve_stacks = ct_allocate(CT_RESERVE_STACKS);
    }
    if (memory && ct_busy_block && ct_idle_block && ct_reserve_stacks)
        return memory;
    *status = STATUS_NO_MEMORY;
    return NULL;
}

static uint32_t start(struct ct_start *request)
{
    if (request->abi != CT_RECORDER_ABI)
        return CT_RECORDER_BAD_ABI;
    if (ct_session && !ct_load32(&ct_session->stopped))
        return CT_RECORDER_TWICE;
    if (!take_tls_slots())
        return CT_RECORDER_NO_TLS;
    NTSTATUS status = STATUS_SUCCESS;
    struct session *s = allocate_session(&status);
    if (s) {
        s->file = (HANDLE)(uintptr_t)request->file;
        s->host_process = (HANDLE)(uintptr_t)request->host_process;
        s->load_request = (HANDLE)(uintptr_t)request->load_request;
        s->load_answer = (HANDLE)(uintptr_t)request->load_answer;
        s->flags = request->flags;
        status = map_file(s);
    }
    if (!NT_SUCCESS(status)) {
        request->system_error = (uint32_t)status;
        return CT_RECORDER_NO_MAPPING;
    }
    s->unit_size = s->header->unit_size;
    s->header->process_id = GetCurrentProcessId();
    measure_xsave();

    /* Copies may run for ever, and with them the slow path: the DLL stays. */
    HMODULE self;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                       (const wchar_t *)(uintptr_t)ct_slow_path, &self);
    __atomic_store_n(&ct_session, s, __ATOMIC_SEQ_CST);
    ct_active = 1;
    ct_watch_modules();
    ct_start_service(s);

    request->cursor = (uint32_t)ct_cursor_offset;
    memcpy(request->scratch, scratch_offsets, sizeof request->scratch);
    request->slow_path = (uint64_t)(uintptr_t)ct_slow_path;
    request->coarse_clock = (uint64_t)(uintptr_t)&ct_coarse_clock;
    return CT_RECORDER_OK;
}

__declspec(dllexport) uint32_t ct_start(struct ct_start *request)
{
    request->system_error = 0;
    request->status = start(request);
    return request->status;
}

__declspec(dllexport) uint32_t ct_stop(void)
{
    struct session *s = ct_session;
    if (!s)
        return CT_RECORDER_NOT_STARTED;
    if (!ct_swap32(&s->stopped, 0, 1))
        return CT_RECORDER_OK;
    ct_active = 0;
    ct_store32(&s->header->stop, 1);
    ct_close_all(s);
    s->header->tsc_end = ct_rdtsc();
    ct_swap32(&s->header->state, CT_STATE_RECORDING, CT_STATE_STOPPED);
    return CT_RECORDER_OK;
}

/* Every other thread has been terminated, wherever it was. */
static void process_ends(struct session *s)
{
    __atomic_store_n(&s->writer_id, NULL, __ATOMIC_SEQ_CST);
    ct_settle(s);
    s->header->tsc_end = ct_rdtsc();
    ct_swap32(&s->header->state, CT_STATE_RECORDING, CT_STATE_EXITED);
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self;
    struct session *s = ct_session;
    if (s && !ct_load32(&s->stopped)) {
        if (reason == DLL_THREAD_DETACH)
            ct_thread_ends();
        else if (reason == DLL_PROCESS_DETACH && reserved)
            process_ends(s);
    }
    return TRUE;
}
