/* First entries, and hooks that go.
 *
 * The first thread that enters a function records it. Then, and whenever the function is entered through its hook all
 * the same, the hook is taken away: the function's original bytes come back, if one aligned store of 8 bytes can do
 * that: a thread that runs through them meanwhile then meets either the jump or what was there before. (Intel calls
 * it model-specific what such a thread fetches, and recommends that it be synchronised: manual, volume 3, "Handling
 * Self- and Cross-Modifying Code".) Otherwise, or if somebody else has changed these bytes, the call of the hook
 * becomes a nop, and the jump to the copy stays.
 *
 * Nobody waits here: while one thread changes code, others leave their hook to the next one that comes through it.
 */
#include "session.h"

static const uint8_t nop[5] = {0x0F, 0x1F, 0x44, 0x00, 0x00};

static uint32_t changing; /* a thread has made a page writable; one that is killed meanwhile leaves all hooks there */

static bool is_equal(const uint8_t *a, const uint8_t *b, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

/* Replaces code that others may be running. false: something else stands there, or it cannot be done at once. */
static bool replace(uint64_t address, const uint8_t *from, const uint8_t *to, uint32_t size)
{
    uint32_t inside = address & 7;
    if (inside + size > 8)
        return false;
    uint64_t *place = (uint64_t *)(uintptr_t)(address - inside);
    void *page = place;
    SIZE_T bytes = 8;
    ULONG before;
    if (!NT_SUCCESS(NtProtectVirtualMemory(NT_PROCESS, &page, &bytes, PAGE_EXECUTE_READWRITE, &before)))
        return false;
    uint64_t old = ct_load64(place), new = old;
    memcpy((uint8_t *)&new + inside, to, size);
    bool replaced = is_equal((const uint8_t *)&old + inside, from, size) && ct_swap64(place, old, new);
    NtProtectVirtualMemory(NT_PROCESS, &page, &bytes, before, &before);
    return replaced;
}

/* The bytes that lead to the copy of the function at `rva`; NULL if it is not entered by any. They ascend. */
static const struct ct_patch *patch_at(const struct ct_code *code, uint32_t rva)
{
    const struct ct_patch *patches = (const void *)(uintptr_t)(code->base + code->patches);
    uint32_t low = 0, high = code->patch_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (patches[middle].rva < rva)
            low = middle + 1;
        else
            high = middle;
    }
    return low < code->patch_count && patches[low].rva == rva ? patches + low : NULL;
}

static void unhook(const struct ct_hook *hook)
{
    uint64_t call = (uint64_t)(uintptr_t)hook->call;
    const struct ct_code *code = ct_code_at(call);
    if (!code || !ct_swap32(&changing, 0, 1))
        return;
    const struct ct_patch *patch = patch_at(code, hook->rva);
    if (!patch || !replace(code->base + hook->rva, patch->bytes, patch->original, patch->size)) {
        uint8_t old[sizeof nop];
        memcpy(old, hook->call, sizeof old);
        replace(call, old, nop, sizeof nop);
    }
    ct_store32(&changing, 0);
}

void ct_hit(struct session *s, uint64_t caller)
{
    const struct ct_hook *hook = (const void *)(uintptr_t)(caller - sizeof hook->call - offsetof(struct ct_hook, call));
    if (ct_record_hit(s, hook->id))
        unhook(hook);
}
