/* Function tables of the relocated copies, so that exceptions and stack walks pass through them; and module loads,
 * which the host may want to instrument before anything in the new module runs. */
#include "session.h"

#define CODE_LIMIT 4096u

static struct ct_code codes[CODE_LIMIT]; /* each stays where it is: hosts read them, too */
static uint32_t codes_lock;
static uint32_t load_lock;

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

static uint64_t extent_of(const struct ct_code *code)
{
    return end_of(code) - code->base;
}

static bool is_registered(const struct ct_code *code)
{
    uint32_t state = ct_load32(&code->state);
    return state == CT_CODE_ACTIVE || state == CT_CODE_LEFT;
}

static void set_state(struct ct_code *code, enum ct_code_state state)
{
    ct_store32(&code->state, state);
}

/* The registered code with the smallest range above `extent` that overlaps `code`; NULL if there is none. */
static struct ct_code *next_around(const struct ct_code *code, uint64_t extent)
{
    struct ct_code *next = NULL;
    for (uint32_t i = 0; i < ct_recorder.code_count; i++) {
        struct ct_code *other = codes + i;
        if (is_registered(other) && other->base < end_of(code) && code->base < end_of(other) &&
            extent_of(other) > extent && (!next || extent_of(other) < extent_of(next)))
            next = other;
    }
    return next;
}

static enum ct_recorder_status add_code(const struct ct_code *code, uint32_t cursor)
{
    uint32_t place = 0;
    while (place < CODE_LIMIT && ct_load32(&codes[place].state) != CT_CODE_FREE)
        place++;
    if (place == CODE_LIMIT)
        return CT_RECORDER_NO_MEMORY;
    if (!register_table(code))
        return CT_RECORDER_NO_TABLE;
    if (!ct_add_breakpoints(code)) {
        ct_remove_breakpoints(code);
        forget_table(code);
        return CT_RECORDER_NO_MEMORY;
    }
    /* Wine looks into the first registered table whose range, from the module's base to the last entry's end, holds
     * the address, and no further: of nested ranges the inner one must come first. A table is registered anew before
     * it is deleted, which takes the earlier registration away, so that it is never missing. */
    for (struct ct_code *around = next_around(code, extent_of(code)); around;
         around = next_around(code, extent_of(around)))
        if (register_table(around))
            forget_table(around);
    codes[place] = *code;
    codes[place].state = CT_CODE_FREE;
    codes[place].cursor = cursor;
    ct_recorder.codes = (uint64_t)(uintptr_t)codes;
    if (place >= ct_recorder.code_count)
        ct_store32(&ct_recorder.code_count, place + 1);
    set_state(&codes[place], CT_CODE_ACTIVE);
    return CT_RECORDER_OK;
}

static void remove_code(uint64_t region)
{
    for (uint32_t i = 0; i < ct_recorder.code_count; i++) {
        if (ct_load32(&codes[i].state) == CT_CODE_FREE || codes[i].region != region)
            continue;
        if (is_registered(&codes[i]))
            forget_table(&codes[i]);
        ct_remove_breakpoints(&codes[i]);
        set_state(&codes[i], CT_CODE_FREE);
    }
}

const struct ct_code *ct_code_at(uint64_t address)
{
    uint32_t count = ct_load32(&ct_recorder.code_count);
    for (uint32_t i = 0; i < count; i++)
        if (ct_load32(&codes[i].state) == CT_CODE_ACTIVE && address - codes[i].region < codes[i].code_size)
            return codes + i;
    return NULL;
}

bool ct_has_code(uint32_t cursor)
{
    for (uint32_t i = 0; i < ct_recorder.code_count; i++)
        if (ct_load32(&codes[i].state) != CT_CODE_FREE && codes[i].cursor == cursor)
            return true;
    return false;
}

bool ct_leave_code(struct session *s)
{
    if (!ct_swap32(&codes_lock, 0, 1))
        return false;
    for (uint32_t i = 0; i < ct_recorder.code_count; i++)
        ct_swap32(&codes[i].state, CT_CODE_ACTIVE, CT_CODE_LEFT);
    ct_store32(&s->header->load_answer, 0); /* the host takes back what the thread has not come to register */
    if (s->given.load_answer)
        NtSetEvent(ct_handle(s->given.load_answer), NULL);
    ct_unlock(&codes_lock);
    return true;
}

void ct_await_code(void)
{
    ct_lock(&codes_lock);
    ct_unlock(&codes_lock);
}

/* Another module may come to lie at `base`, and must not be unwound by our tables. The copies of a module unloaded
 * before this one go now: the thread that ran them last has had time to return to where it was called from. */
static void module_unloaded(uint64_t base)
{
    for (uint32_t i = 0; i < ct_recorder.code_count; i++) {
        if (ct_load32(&codes[i].state) == CT_CODE_UNLOADED) {
            ct_free((void *)(uintptr_t)codes[i].region);
            set_state(&codes[i], CT_CODE_FREE);
        } else if (is_registered(&codes[i]) && codes[i].base == base) {
            forget_table(&codes[i]);
            ct_remove_breakpoints(&codes[i]);
            set_state(&codes[i], CT_CODE_UNLOADED);
        }
    }
}

__declspec(dllexport) uint32_t ct_add_code(const struct ct_code *code)
{
    struct session *s = ct_acquire();
    if (!s)
        return CT_RECORDER_NOT_STARTED;
    ct_lock(&codes_lock);
    enum ct_recorder_status status = add_code(code, s->cursor);
    ct_unlock(&codes_lock);
    ct_release(s);
    return status;
}

__declspec(dllexport) uint32_t ct_remove_code(const struct ct_code *code)
{
    ct_lock(&codes_lock);
    remove_code(code->region);
    ct_unlock(&codes_lock);
    ct_tidy();
    return CT_RECORDER_OK;
}

__declspec(dllexport) void *ct_add_vectored_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler)
{
    ct_lock(&codes_lock);
    void *added = ct_add_handler(first, handler);
    ct_unlock(&codes_lock);
    return added;
}

/* Asks the host what to do about a new module, and does it. */
static void announce_load(struct session *s, const nt_dll_notification *data)
{
    struct ct_file_header *header = s->header;
    ct_lock(&load_lock);
    uint32_t bytes = data->full_name->Length;
    if (bytes > sizeof header->load_path - sizeof(uint16_t))
        bytes = sizeof header->load_path - sizeof(uint16_t);
    memset(header->load_path, 0, sizeof header->load_path);
    memcpy(header->load_path, data->full_name->Buffer, bytes);
    header->load_base = (uint64_t)(uintptr_t)data->base;
    header->load_size = data->size;
    ct_store32(&header->load_answer, 0);
    HANDLE either[2] = {ct_handle(s->given.load_answer), ct_handle(s->given.host_process)};
    if (ct_recording(s) && NT_SUCCESS(NtSetEvent(ct_handle(s->given.load_request), NULL)) &&
        NtWaitForMultipleObjects(either[1] ? 2 : 1, either, 1 /* any */, FALSE, NULL) == STATUS_WAIT_0) {
        ct_lock(&codes_lock);
        if (ct_load32(&header->load_answer) == 1) {
            struct ct_code code;
            memcpy(&code, header->load_path, sizeof code);
            add_code(&code, s->cursor);
            ct_store32(&header->load_answer, 0);
        }
        ct_unlock(&codes_lock);
    }
    ct_unlock(&load_lock);
}

static void NTAPI module_changed(ULONG reason, const nt_dll_notification *data, void *context)
{
    (void)context;
    if (reason == NT_DLL_LOADED) {
        struct session *s = ct_acquire();
        if (s && s->given.flags & CT_START_NOTIFY_LOADS)
            announce_load(s, data);
        if (s)
            ct_release(s);
    } else if (reason == NT_DLL_UNLOADED) {
        ct_lock(&codes_lock);
        module_unloaded((uint64_t)(uintptr_t)data->base);
        ct_unlock(&codes_lock);
    }
}

static void *cookie; /* of the notification; NULL: there is none */

void ct_watch_modules(void)
{
    nt_register_dll_notification *subscribe = (nt_register_dll_notification *)(uintptr_t)GetProcAddress(
        GetModuleHandleW(L"ntdll.dll"), "LdrRegisterDllNotification");
    if (!cookie && subscribe)
        subscribe(0, module_changed, NULL, &cookie);
}

void ct_unwatch_modules(void)
{
    nt_unregister_dll_notification *unsubscribe = (nt_unregister_dll_notification *)(uintptr_t)GetProcAddress(
        GetModuleHandleW(L"ntdll.dll"), "LdrUnregisterDllNotification");
    if (cookie && unsubscribe && NT_SUCCESS(unsubscribe(cookie)))
        cookie = NULL;
}
