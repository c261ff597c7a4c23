/* Function tables of the relocated copies, so that exceptions and stack walks pass through them; and module loads,
 * which the host may want to instrument before anything in the new module runs. */
#include "session.h"

#define CODE_LIMIT 4096u

static struct ct_code codes[CODE_LIMIT];
static uint32_t code_count;
static uint32_t codes_lock;
static uint32_t load_lock;

/* Held for short, or while the host plans a module; never in the slow path. */
static void lock(uint32_t *word)
{
    static const LARGE_INTEGER millisecond = {.QuadPart = -10000};
    while (!ct_swap32(word, 0, 1))
        NtDelayExecution(FALSE, &millisecond);
}

static void unlock(uint32_t *word)
{
    ct_store32(word, 0);
}

static RUNTIME_FUNCTION *table_of(const struct ct_code *code)
{
    return (RUNTIME_FUNCTION *)(uintptr_t)(code->base + code->table);
}

/* Copies of nothing but leaf functions have an empty table, which no system takes. */
static uint64_t end_of(const struct ct_code *code)
{
    return code->base + (code->table_count ? table_of(code)[code->table_count - 1].EndAddress : 0);
}

static bool register_table(const struct ct_code *code)
{
    return code->table_count == 0 || RtlAddFunctionTable(table_of(code), code->table_count, code->base);
}

static void forget_table(const struct ct_code *code)
{
    if (code->table_count)
        RtlDeleteFunctionTable(table_of(code));
}

/* Wine looks into the first registered table whose range, from the module's base to the last entry's end, holds the
 * address, and no further: of nested ranges the inner one must come first. A table is registered anew before it is
 * deleted, which takes the earlier registration away, so that it is never missing. */
static bool add_code(const struct ct_code *code)
{
    if (code_count == CODE_LIMIT || !register_table(code))
        return false;
    uint32_t place = code_count;
    while (place > 0 && end_of(&codes[place - 1]) - codes[place - 1].base > end_of(code) - code->base)
        place--;
    for (uint32_t i = code_count++; i > place; i--)
        codes[i] = codes[i - 1];
    codes[place] = *code;
    for (uint32_t i = place + 1; i < code_count; i++) { /* in order of size, the larger ones behind it */
        if (codes[i].base < end_of(code) && code->base < end_of(&codes[i]) && register_table(&codes[i]))
            forget_table(&codes[i]);
    }
    return true;
}

static void remove_code(uint64_t base, uint32_t table)
{
    for (uint32_t i = 0; i < code_count; i++) {
        if (codes[i].base != base || (table && codes[i].table != table))
            continue;
        forget_table(&codes[i]);
        ct_remove_breakpoints(&codes[i]);
        code_count--;
        for (uint32_t next = i; next < code_count; next++)
            codes[next] = codes[next + 1];
        i--;
    }
}

__declspec(dllexport) uint32_t ct_add_code(const struct ct_code *code)
{
    if (!ct_session)
        return CT_RECORDER_NOT_STARTED;
    lock(&codes_lock);
    uint32_t status = CT_RECORDER_OK;
    if (!add_code(code)) {
        status = CT_RECORDER_NO_TABLE;
    } else if (!ct_add_breakpoints(code)) {
        remove_code(code->base, code->table);
        status = CT_RECORDER_NO_MEMORY;
    }
    unlock(&codes_lock);
    return status;
}

__declspec(dllexport) uint32_t ct_remove_code(const struct ct_code *code)
{
    if (!ct_session)
        return CT_RECORDER_NOT_STARTED;
    lock(&codes_lock);
    remove_code(code->base, code->table);
    unlock(&codes_lock);
    return CT_RECORDER_OK;
}

__declspec(dllexport) void *ct_add_vectored_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler)
{
    lock(&codes_lock);
    void *added = ct_add_handler(first, handler);
    unlock(&codes_lock);
    return added;
}

/* Asks the host what to do about a new module, and does it. */
static void announce_load(struct session *s, const nt_dll_notification *data)
{
    struct ct_file_header *header = s->header;
    lock(&load_lock);
    uint32_t bytes = data->full_name->Length;
    if (bytes > sizeof header->load_path - sizeof(uint16_t))
        bytes = sizeof header->load_path - sizeof(uint16_t);
    memset(header->load_path, 0, sizeof header->load_path);
    memcpy(header->load_path, data->full_name->Buffer, bytes);
    header->load_base = (uint64_t)(uintptr_t)data->base;
    header->load_size = data->size;
    ct_store32(&header->load_answer, 0);
    HANDLE either[2] = {s->load_answer, s->host_process};
    if (NT_SUCCESS(NtSetEvent(s->load_request, NULL)) &&
        NtWaitForMultipleObjects(s->host_process ? 2 : 1, either, 1 /* any */, FALSE, NULL) == STATUS_WAIT_0 &&
        ct_load32(&header->load_answer) == 1) {
        struct ct_code code;
        memcpy(&code, header->load_path, sizeof code);
        ct_add_code(&code);
    }
    unlock(&load_lock);
}

static void NTAPI module_changed(ULONG reason, const nt_dll_notification *data, void *context)
{
    (void)context;
    struct session *s = ct_session;
    if (reason == NT_DLL_LOADED && ct_recording(s) && (s->flags & CT_START_NOTIFY_LOADS)) {
        announce_load(s, data);
    } else if (reason == NT_DLL_UNLOADED) {
        /* Another module may come to lie here, and must not be unwound by our table. */
        lock(&codes_lock);
        remove_code((uint64_t)(uintptr_t)data->base, 0);
        unlock(&codes_lock);
    }
}

void ct_watch_modules(void)
{
    static void *cookie;
    if (cookie)
        return;
    nt_register_dll_notification *subscribe = (nt_register_dll_notification *)(uintptr_t)GetProcAddress(
        GetModuleHandleW(L"ntdll.dll"), "LdrRegisterDllNotification");
    if (subscribe)
        subscribe(0, module_changed, NULL, &cookie);
}
