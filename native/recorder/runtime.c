/* What a C runtime would give us. */
#include "session.h"

void *memset(void *to, int value, size_t size)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return start;
}

void ct_lock(uint32_t *word)
{
    static const LARGE_INTEGER millisecond = {.QuadPart = -10000};
    while (!ct_swap32(word, 0, 1))
        NtDelayExecution(FALSE, &millisecond);
}

void ct_unlock(uint32_t *word)
{
    ct_store32(word, 0);
}

void *ct_allocate(size_t size)
{
    void *memory = NULL;
    SIZE_T bytes = size;
    NTSTATUS status = NtAllocateVirtualMemory(NT_PROCESS, &memory, 0, &bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    return NT_SUCCESS(status) ? memory : NULL;
}

void ct_free(void *memory)
{
    SIZE_T all = 0;
    NtFreeVirtualMemory(NT_PROCESS, &memory, &all, MEM_RELEASE);
}
