/* Copies as the debugger shows them: see copies.h.
 *
 * The debugger walks stacks by StackWalk64 of dbghelp.dll with functions of its own that know its modules. In its table
 * of imports ours stands in front of that, whose functions know the regions, too, and ask the debugger's for the rest.
 */
#include "copies.h"

#include <dbghelp.h>
#include <stdio.h>
#include <string.h>

enum { MOST_ENTRIES = 1 << 22 }; /* of an exception directory */

struct shown {
    struct ct_region region;
    bool read;                 /* was the table? */
    RUNTIME_FUNCTION *entries; /* sorted; NULL: none */
    uint32_t count;
};

typedef BOOL WINAPI stack_walk(DWORD machine, HANDLE process, HANDLE thread, STACKFRAME64 *frame, void *context,
                               PREAD_PROCESS_MEMORY_ROUTINE64 read, PFUNCTION_TABLE_ACCESS_ROUTINE64 find_entry,
                               PGET_MODULE_BASE_ROUTINE64 find_base, PTRANSLATE_ADDRESS_ROUTINE64 translate);

static CRITICAL_SECTION lock; /* of all below */
static HANDLE process;
static struct shown *shown;
static uint32_t shown_count;
static ct_find_original *find;
static stack_walk *debuggers_walk;                       /* NULL: ours is not in front of it */
static PFUNCTION_TABLE_ACCESS_ROUTINE64 debuggers_entry; /* of the walk under way */
static PGET_MODULE_BASE_ROUTINE64 debuggers_base;

static struct shown *region_of(uint64_t address)
{
    for (uint32_t i = 0; i < shown_count; i++)
        if (address - shown[i].region.base < shown[i].region.size)
            return &shown[i];
    return NULL;
}

static bool read_memory(uint64_t address, void *data, size_t size)
{
    SIZE_T done = 0;
    return ReadProcessMemory(process, (void *)(uintptr_t)address, data, size, &done) && done == size;
}

static void read_table(struct shown *of)
{
    IMAGE_DOS_HEADER dos;
    IMAGE_NT_HEADERS64 nt;
    of->read = true;
    if (!read_memory(of->region.base, &dos, sizeof dos) || dos.e_magic != IMAGE_DOS_SIGNATURE ||
        !read_memory(of->region.base + (uint32_t)dos.e_lfanew, &nt, sizeof nt) || nt.Signature != IMAGE_NT_SIGNATURE)
        return;
    IMAGE_DATA_DIRECTORY table = nt.OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXCEPTION];
    uint32_t count = table.Size / sizeof(RUNTIME_FUNCTION);
    RUNTIME_FUNCTION *entries =
        count && count <= MOST_ENTRIES ? HeapAlloc(GetProcessHeap(), 0, count * sizeof *entries) : NULL;
    if (entries && read_memory(of->region.base + table.VirtualAddress, entries, count * sizeof *entries)) {
        of->entries = entries;
        of->count = count;
    } else if (entries) {
        HeapFree(GetProcessHeap(), 0, entries);
    }
}

static void *WINAPI find_entry(HANDLE of, DWORD64 address)
{
    struct shown *in = region_of(address);
    if (!in)
        return debuggers_entry ? debuggers_entry(of, address) : NULL;
    if (!in->read)
        read_table(in);
    uint32_t rva = (uint32_t)(address - in->region.base), low = 0, high = in->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (in->entries[middle].EndAddress <= rva)
            low = middle + 1;
        else
            high = middle;
    }
    return low < in->count && in->entries[low].BeginAddress <= rva ? &in->entries[low] : NULL;
}

static DWORD64 WINAPI find_base(HANDLE of, DWORD64 address)
{
    struct shown *in = region_of(address);
    if (in)
        return in->region.base;
    return debuggers_base ? debuggers_base(of, address) : 0;
}

static BOOL WINAPI walk(DWORD machine, HANDLE of, HANDLE thread, STACKFRAME64 *frame, void *context,
                        PREAD_PROCESS_MEMORY_ROUTINE64 read, PFUNCTION_TABLE_ACCESS_ROUTINE64 entry,
                        PGET_MODULE_BASE_ROUTINE64 base, PTRANSLATE_ADDRESS_ROUTINE64 translate)
{
    EnterCriticalSection(&lock);
    debuggers_entry = entry;
    debuggers_base = base;
    BOOL walked = debuggers_walk(machine, of, thread, frame, context, read, shown_count ? find_entry : entry,
                                 shown_count ? find_base : base, translate);
    LeaveCriticalSection(&lock);
    return walked;
}

/* The place in an image's imports where the address of a function stands; NULL: it imports none of that name. */
static void **find_import(HMODULE image, const char *library, const char *name)
{
    unsigned char *base = (unsigned char *)image;
    const IMAGE_NT_HEADERS64 *nt = (const void *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    IMAGE_DATA_DIRECTORY table = nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    const IMAGE_IMPORT_DESCRIPTOR *each = (const void *)(base + table.VirtualAddress);
    for (; table.Size && each->Name; each++) {
        if (_stricmp((const char *)base + each->Name, library) != 0 || !each->OriginalFirstThunk)
            continue;
        const uint64_t *names = (const void *)(base + each->OriginalFirstThunk);
        void **addresses = (void *)(base + each->FirstThunk);
        for (size_t i = 0; names[i]; i++)
            if (!(names[i] & IMAGE_ORDINAL_FLAG64) && strcmp((const char *)base + names[i] + 2, name) == 0)
                return &addresses[i];
    }
    return NULL;
}

static bool stand_in_front(void)
{
    void **place = find_import(GetModuleHandleW(L"x64dbg.dll"), "dbghelp.dll", "StackWalk64");
    DWORD old;
    if (!place || !VirtualProtect(place, sizeof *place, PAGE_READWRITE, &old))
        return false;
    debuggers_walk = (stack_walk *)(uintptr_t)*place;
    *place = (void *)(uintptr_t)walk;
    VirtualProtect(place, sizeof *place, old, &old);
    return true;
}

bool ct_copies_show(HANDLE of, const struct ct_region *regions, uint32_t count, ct_find_original *tells)
{
    copies_forget();
    EnterCriticalSection(&lock);
    bool done = debuggers_walk || !count || stand_in_front();
    shown = count ? HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, count * sizeof *shown) : NULL;
    for (uint32_t i = 0; shown && i < count; i++)
        shown[i].region = regions[i];
    shown_count = shown ? count : 0;
    process = of;
    find = tells;
    LeaveCriticalSection(&lock);
    return done;
}

void copies_forget(void)
{
    EnterCriticalSection(&lock);
    for (uint32_t i = 0; i < shown_count; i++)
        if (shown[i].entries)
            HeapFree(GetProcessHeap(), 0, shown[i].entries);
    if (shown)
        HeapFree(GetProcessHeap(), 0, shown);
    shown = NULL;
    shown_count = 0;
    find = NULL;
    LeaveCriticalSection(&lock);
}

uint64_t copies_original(uint64_t address)
{
    EnterCriticalSection(&lock);
    ct_find_original *asked = region_of(address) ? find : NULL;
    LeaveCriticalSection(&lock);
    uint64_t original = asked ? asked(address) : 0; /* not under the lock: it waits for Python, which may wait for it */
    return original ? original : address;
}

/* The debugger wants to know what an address is called. It asks for names with offsets where it shows return addresses
 * and where a thread stands, and for names alone beside the code. */
static void name_address(CBTYPE type, void *info)
{
    (void)type;
    PLUG_CB_ADDRINFO *asked = info;
    int names = asked->addrinfo->flags & (ADDRINFO_MODULE | ADDRINFO_LABEL);
    if (!names || asked->addrinfo->flags & ADDRINFO_NO_OFFSET)
        return;
    uint64_t original = copies_original(asked->addr);
    if (original == asked->addr)
        return;
    BRIDGE_ADDRINFO *there = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, sizeof *there);
    if (!there)
        return;
    there->flags = names;
    _dbg_addrinfoget(original, SEG_DEFAULT, there);
    if (!there->label[0]) /* what the debugger makes of an address without a name */
        snprintf(there->label, sizeof there->label, "%016llX", (unsigned long long)original);
    if (names & ADDRINFO_MODULE)
        memcpy(asked->addrinfo->module, there->module, sizeof there->module);
    if (names & ADDRINFO_LABEL)
        memcpy(asked->addrinfo->label, there->label, sizeof there->label);
    asked->retval = true;
    HeapFree(GetProcessHeap(), 0, there);
}

void copies_begin(int plugin)
{
    static bool begun;
    if (!begun)
        InitializeCriticalSection(&lock);
    begun = true;
    _plugin_registercallback(plugin, CB_ADDRINFO, name_address);
}
