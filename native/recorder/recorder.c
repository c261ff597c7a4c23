/* The exports for the host, and the ends of threads and of the process. */
#include "session.h"
#include <cpuid.h>

struct session *ct_session;
struct ct_recorder ct_recorder = {.abi = CT_RECORDER_ABI};

static struct session *sessions; /* by their `next` */
static uint32_t sessions_lock;   /* held while sessions begin, end and are tidied up behind */

/* For slow_path.S: what xsave is to keep (0: use fxsave) and how many bytes that takes. */
uint32_t ct_xsave_mask;
uint32_t ct_xsave_size = 512;

/* And stacks for threads whose own is nearly full. */
void *ct_reserve_stacks;

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

/* The gs offset of a fresh TLS slot in the TEB itself, which is zero in every thread; 0 if none is free. */
static uint32_t take_tls_slot(void)
{
    enum { IN_TEB = 64 };
    DWORD index = TlsAlloc();
    if (index < IN_TEB)
        return CT_TLS_OFFSET + 8 * index;
    if (index != TLS_OUT_OF_INDEXES)
        TlsFree(index);
    return 0;
}

static void free_tls_slot(uint32_t *offset)
{
    if (*offset)
        TlsFree((*offset - CT_TLS_OFFSET) / 8);
    *offset = 0;
}

static void free_scratch(void)
{
    for (uint32_t i = 0; i < 3; i++)
        free_tls_slot(&scratch_offsets[i]);
}

static bool take_scratch(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        if (!scratch_offsets[i] && !(scratch_offsets[i] = take_tls_slot()))
            return false;
    }
    return true;
}

/* The caller holds sessions_lock. */
static void tidy(void)
{
    bool idle = true;
    for (struct session *s = sessions; s; s = s->next) {
        if (s->cursor && !ct_load32(&s->users) && !ct_has_code(s->cursor))
            free_tls_slot(&s->cursor);
        idle = idle && !s->cursor;
    }
    if (idle) {
        free_scratch();
        ct_unwatch_modules();
    }
}

void ct_tidy(void)
{
    ct_lock(&sessions_lock);
    tidy();
    ct_unlock(&sessions_lock);
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
           header->policy <= CT_POLICY_COUNT;
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
    NTSTATUS status = ct_open_section(ct_handle(s->given.file), &section);
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

static void close_handles(const struct ct_start *request)
{
    uint64_t handles[] = {request->file,        request->host_process, request->load_request,
                          request->load_answer, request->full,         request->room};
    for (uint32_t i = 0; i < sizeof handles / sizeof *handles; i++)
        if (handles[i])
            NtClose(ct_handle(handles[i]));
}

enum { CLOSING = 0x40000000 }; /* session.users while the file is being closed */

/* A session that nobody uses; NULL if there is no memory for one. */
static struct session *unused_session(void)
{
    struct session *s = sessions;
    while (s && s->cursor)
        s = s->next;
    if (s) {
        struct session *next = s->next;
        memset(s, 0, sizeof *s);
        s->next = next;
    } else if ((s = ct_allocate(sizeof *s))) {
        s->next = sessions;
        sessions = s;
    }
    return s;
}

static bool allocate_blocks(void)
{
    if (!ct_busy_block)
        ct_busy_block = ct_allocate(CT_BLOCK);
    if (!ct_idle_block)
        ct_idle_block = ct_allocate(CT_BLOCK);
    if (!ct_reserve_stacks)
        ct_reserve_stacks = ct_allocate(CT_RESERVE_STACKS);
    ct_recorder.nowhere = ct_idle_block ? ct_units_of(ct_idle_block) : 0;
    return ct_busy_block && ct_idle_block && ct_reserve_stacks;
}

struct session *ct_acquire(void)
{
    struct session *s = __atomic_load_n(&ct_session, __ATOMIC_SEQ_CST);
    if (!s)
        return NULL;
    uint32_t users;
    do {
        users = ct_load32(&s->users);
        if (!users || users == CLOSING)
            return NULL;
    } while (!ct_swap32(&s->users, users, users + 1));
    if (s == __atomic_load_n(&ct_session, __ATOMIC_SEQ_CST))
        return s;
    ct_release(s);
    return NULL;
}

static void close_session(struct session *s)
{
    for (uint32_t i = s->live_count; i < s->slots_used; i++) {
        const struct slot *slot = s->slots + i;
        if (slot->block && slot->is_private)
            ct_free(slot->block);
        else if (slot->block)
            NtUnmapViewOfSection(NT_PROCESS, slot->block);
    }
    NtUnmapViewOfSection(NT_PROCESS, s->slots[0].block);
    NtUnmapViewOfSection(NT_PROCESS, s->header);
    ct_free(s->slots);
    if (s->hits)
        ct_free(s->hits);
    close_handles(&s->given);
    __atomic_fetch_sub(&ct_recorder.open_files, 1, __ATOMIC_SEQ_CST);
}

void ct_release(struct session *s)
{
    uint32_t users;
    do {
        users = ct_load32(&s->users);
        if (users == 1 && ct_swap32(&s->users, 1, CLOSING)) {
            close_session(s);
            ct_store32(&s->users, 0);
            return;
        }
    } while (users == 1 || !ct_swap32(&s->users, users, users - 1));
}

static bool is_orphaned(const struct session *s)
{
    LARGE_INTEGER now = {0};
    return s->given.host_process &&
           NtWaitForSingleObject(ct_handle(s->given.host_process), FALSE, &now) == STATUS_WAIT_0;
}

static uint32_t start(struct ct_start *request)
{
    if (ct_session)
        return CT_RECORDER_TWICE;
    tidy();
    struct session *s = unused_session();
    if (!s || !allocate_blocks())
        return CT_RECORDER_NO_MEMORY;
    if (!take_scratch() || !(s->cursor = take_tls_slot()))
        return CT_RECORDER_NO_TLS;
    s->given = *request;
    if (request->flags & CT_START_HITS && !(s->hits = ct_allocate(CT_ID_LIMIT / 8)))
        return CT_RECORDER_NO_MEMORY;
    NTSTATUS status = map_file(s);
    if (!NT_SUCCESS(status)) {
        if (s->hits)
            ct_free(s->hits);
        request->system_error = (uint32_t)status;
        return CT_RECORDER_NO_MAPPING;
    }
    s->unit_size = s->header->unit_size;
    s->counted = s->header->policy == CT_POLICY_COUNT;
    s->header->process_id = GetCurrentProcessId();
    measure_xsave();

    /* Copies may run for ever, and with them the slow path, and anybody may have asked for the C API: the DLL stays. */
    HMODULE self;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                       (const wchar_t *)(uintptr_t)ct_slow_paths, &self);
    s->users = 1;
    __atomic_fetch_add(&ct_recorder.open_files, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&ct_session, s, __ATOMIC_SEQ_CST);
    DWORD host = request->host_process ? GetProcessId(ct_handle(request->host_process)) : 0;
    ct_store32(&ct_recorder.recording, host ? host : 1);
    ct_watch_modules();
    ct_start_service(s);

    request->cursor = s->cursor;
    memcpy(request->scratch, scratch_offsets, sizeof request->scratch);
    request->slow_path = (uint64_t)(uintptr_t)ct_slow_paths + 2 * (s->cursor - CT_TLS_OFFSET);
    request->coarse_clock = (uint64_t)(uintptr_t)&ct_coarse_clock;
    return CT_RECORDER_OK;
}

__declspec(dllexport) uint32_t ct_start(struct ct_start *request)
{
    request->system_error = 0;
    if (request->abi != CT_RECORDER_ABI)
        return request->status = CT_RECORDER_BAD_ABI;
    ct_lock(&sessions_lock);
    request->status = start(request);
    if (request->status != CT_RECORDER_OK) {
        close_handles(request);
        tidy();
    }
    ct_unlock(&sessions_lock);
    return request->status;
}

__declspec(dllexport) uint32_t ct_is_orphaned(void)
{
    return ct_session && is_orphaned(ct_session);
}

static uint32_t stop(struct session *s)
{
    if (!s)
        return CT_RECORDER_NOT_STARTED;
    if (!ct_leave_code(s))
        return CT_RECORDER_BUSY;
    ct_store32(&s->stopped, 1);
    ct_store32(&s->header->stop, 1);
    ct_close_all(s);
    s->header->tsc_end = ct_rdtsc();
    ct_swap32(&s->header->state, CT_STATE_RECORDING, CT_STATE_STOPPED);
    __atomic_store_n(&ct_session, NULL, __ATOMIC_SEQ_CST);
    ct_store32(&ct_recorder.recording, 0);
    ct_wake_writer(s);
    ct_release(s);
    tidy();
    return CT_RECORDER_OK;
}

__declspec(dllexport) uint32_t ct_stop(void)
{
    if (!ct_swap32(&sessions_lock, 0, 1))
        return CT_RECORDER_BUSY;
    uint32_t status = stop(ct_session);
    ct_unlock(&sessions_lock);
    return status;
}

__declspec(dllexport) uint32_t ct_await(void)
{
    ct_lock(&sessions_lock);
    ct_unlock(&sessions_lock);
    ct_await_code();
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
    if (reason == DLL_THREAD_DETACH)
        ct_thread_ends();
    else if (reason == DLL_PROCESS_DETACH && reserved && ct_session)
        process_ends(ct_session);
    return TRUE;
}
