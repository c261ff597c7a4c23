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

void *ct_allocate(size_t size)
{
    void *memory = NULL;
    SIZE_T bytes = size;
    NTSTATUS status = NtAllocateVirtualMemory(NT_PROCESS, &memory, 0, &bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    return NT_SUCCESS(status) ? memory : NULL;
}
