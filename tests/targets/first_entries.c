// build: -O2 first_entries_asm.S
/* Looks at its own code before and after functions are called, many times and by several threads at once.
 *
 * Prints for each function how its first byte is before the first call ("e9", "eb" or "cc" where a jump or an int3 was
 * put there, else "own"), how its first bytes are after all calls ("own", or "jump", and then the first byte where that
 * leads), and what its calls returned together. What the own bytes are is known from its source. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

enum { THREADS = 8, CALLS = 1000 };

unsigned aligned(unsigned n);
unsigned straddling(unsigned n);
unsigned cramped(unsigned n);
unsigned hemmed_in(unsigned n);

struct looked_at {
    const char *name;
    unsigned (*function)(unsigned);
    uint8_t own[8];
    unsigned size; /* of `own` in use */
};

static const struct looked_at all[] = {
    {"aligned", aligned, {0x8D, 0x81, 0x01, 0x00, 0x00, 0x00, 0xC3}, 7},
    {"straddling", straddling, {0x8D, 0x81, 0x02, 0x00, 0x00, 0x00, 0xC3}, 7},
    {"cramped", cramped, {0x89, 0xC8, 0xC3}, 3},
    {"hemmed_in", hemmed_in, {0x89, 0xC8, 0xC3}, 3},
};
enum { COUNT = sizeof all / sizeof *all };

static HANDLE begin;
static volatile LONG sums[COUNT];

static bool is_own(const struct looked_at *each)
{
    return memcmp((const void *)(uintptr_t)each->function, each->own, each->size) == 0;
}

static DWORD WINAPI work(void *unused)
{
    (void)unused;
    WaitForSingleObject(begin, INFINITE);
    for (unsigned i = 0; i < COUNT; i++)
        for (unsigned n = 0; n < CALLS; n++)
            InterlockedExchangeAdd(&sums[i], (LONG)all[i].function(n));
    return 0;
}

int main(void)
{
    HANDLE threads[THREADS];
    for (unsigned i = 0; i < COUNT; i++) {
        const uint8_t *code = (const uint8_t *)(uintptr_t)all[i].function;
        if (is_own(&all[i]))
            printf("%s before: own\n", all[i].name);
        else
            printf("%s before: %02x\n", all[i].name, code[0]);
    }
    begin = CreateEventW(NULL, TRUE, FALSE, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        threads[i] = CreateThread(NULL, 0, work, NULL, 0, NULL);
    SetEvent(begin);
    WaitForMultipleObjects(THREADS, threads, TRUE, INFINITE);
    for (unsigned i = 0; i < COUNT; i++) {
        const uint8_t *code = (const uint8_t *)(uintptr_t)all[i].function;
        int32_t distance;
        memcpy(&distance, code + 1, sizeof distance);
        printf("%s after: ", all[i].name);
        if (is_own(&all[i]))
            printf("own");
        else if (code[0] == 0xE9)
            printf("jump to %02x", code[5 + distance]);
        else
            printf("%02x", code[0]);
        printf(", %ld\n", sums[i]);
    }
    return 3;
}
