/* Functions whose start has room for no jump carry an int3 there. Here its exception becomes the jump to the copy.
 *
 * The handler may run in the middle of anything, also while a table is changed, so it takes no lock: entries keep their
 * place and their function for ever, only where they lead to changes. A table that was outgrown stays, for threads
 * that have just begun to look into it, and is kept up to date.
 *
 * Handlers that the program adds in front of the others would see the breakpoints first. Where it does so by an import
 * of a traced module, the host redirects that to ct_add_vectored_handler.
 *
 * What the host has taken away may still be on its way through the system's dispatcher: so an entry is kept when its
 * copy is gone, and a thread that comes with such an exception executes the byte that stands there now. */
#include "session.h"

struct entry {
    uint64_t function; /* VA of the int3; 0: free */
    uint64_t distance; /* from there to the copy, or 0: taken away. No address: the host looks for such in all memory */
};

struct table {
    struct table *outgrown;
    uint32_t used;
    uint32_t bits; /* 1 << bits entries, at most half of them used */
    struct entry entries[];
};

enum { FIRST_BITS = 11, LAST_BITS = 30 };

static struct table *newest; /* atomic; changed under the lock of modules.c, like all that follows */
static void *registration;

/* The entry of `function`, or the free one where it belongs. */
static struct entry *look_up(struct table *table, uint64_t function)
{
    uint32_t at = (uint32_t)(function * 0x9E3779B97F4A7C15u >> (64 - table->bits));
    for (;;) {
        struct entry *entry = &table->entries[at];
        uint64_t found = ct_load64(&entry->function);
        if (found == function || found == 0)
            return entry;
        at = (at + 1) & ((1u << table->bits) - 1);
    }
}

static bool is_int3(uint64_t address)
{
    uint8_t byte = 0;
    return NT_SUCCESS(NtReadVirtualMemory(NT_PROCESS, (void *)(uintptr_t)address, &byte, 1, NULL)) && byte == 0xCC;
}

static LONG NTAPI handle(EXCEPTION_POINTERS *pointers)
{
    const EXCEPTION_RECORD *record = pointers->ExceptionRecord;
    uint64_t address = (uint64_t)(uintptr_t)record->ExceptionAddress;
    struct table *table = __atomic_load_n(&newest, __ATOMIC_SEQ_CST);
    if (record->ExceptionCode != (DWORD)STATUS_BREAKPOINT || !address)
        return EXCEPTION_CONTINUE_SEARCH;
    struct entry *entry = look_up(table, address);
    if (ct_load64(&entry->function) != address)
        return EXCEPTION_CONTINUE_SEARCH;
    uint64_t distance = ct_load64(&entry->distance);
    if (!distance && is_int3(address))
        return EXCEPTION_CONTINUE_SEARCH; /* the program's own */
    pointers->ContextRecord->Rip = address + distance;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static void insert(struct table *table, uint64_t function, uint64_t distance)
{
    struct entry *entry = look_up(table, function);
    table->used += entry->function == 0;
    __atomic_store_n(&entry->distance, distance, __ATOMIC_SEQ_CST);
    __atomic_store_n(&entry->function, function, __ATOMIC_SEQ_CST);
}

/* Room for `more` entries. */
static bool grow(uint32_t more)
{
    struct table *old = newest;
    uint64_t needed = 2 * ((uint64_t)more + (old ? old->used : 0));
    uint32_t bits = old ? old->bits : FIRST_BITS;
    while (needed > UINT64_C(1) << bits && bits < LAST_BITS)
        bits++;
    if (old && bits == old->bits)
        return needed <= UINT64_C(1) << bits;
    struct table *table = ct_allocate(sizeof *table + (sizeof(struct entry) << bits));
    if (!table)
        return false;
    table->bits = bits;
    table->outgrown = old;
    for (uint32_t i = 0; old && i < 1u << old->bits; i++)
        if (old->entries[i].function)
            insert(table, old->entries[i].function, old->entries[i].distance);
    __atomic_store_n(&newest, table, __ATOMIC_SEQ_CST);
    return true;
}

/* Before handlers that were added since the last time. */
static bool come_first(void)
{
    void *before = registration, *now = RtlAddVectoredExceptionHandler(1, handle);
    if (!now)
        return before != NULL;
    registration = now;
    if (before)
        RtlRemoveVectoredExceptionHandler(before);
    return true;
}

bool ct_add_breakpoints(const struct ct_code *code)
{
    const struct ct_breakpoint *given = (const void *)(uintptr_t)(code->base + code->breakpoints);
    if (code->breakpoint_count == 0)
        return true;
    if (!grow(code->breakpoint_count))
        return false;
    for (uint32_t i = 0; i < code->breakpoint_count; i++) {
        uint64_t function = code->base + given[i].rva, distance = given[i].copy - given[i].rva;
        insert(newest, function, distance);
        for (struct table *table = newest->outgrown; table; table = table->outgrown)
            if (look_up(table, function)->function)
                insert(table, function, distance);
    }
    return come_first();
}

void ct_remove_breakpoints(const struct ct_code *code)
{
    for (struct table *table = newest; table; table = table->outgrown)
        for (uint32_t i = 0; i < 1u << table->bits; i++) {
            struct entry *entry = &table->entries[i];
            if (entry->distance && entry->function + entry->distance - code->region < code->region_size)
                __atomic_store_n(&entry->distance, 0, __ATOMIC_SEQ_CST);
        }
}

void *ct_add_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler)
{
    void *added = RtlAddVectoredExceptionHandler(first, handler);
    if (added && first && registration)
        come_first();
    return added;
}
