/* Sums over the code of all modules as it stands in memory: a breakpoint left behind would change one. What is printed
 * goes to the file that SAID_INTO names, if any: some debuggers give their target a console of its own. */
#ifndef CODE_SUM_H
#define CODE_SUM_H

#define PSAPI_VERSION 2
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#include <psapi.h>

__attribute__((constructor)) static void print_into_file(void)
{
    const char *file = getenv("SAID_INTO");
    if (file && !freopen(file, "w", stdout))
        abort();
}

static unsigned code_sum(const unsigned char *base)
{
    const IMAGE_NT_HEADERS64 *headers = (const IMAGE_NT_HEADERS64 *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(headers);
    unsigned sum = 1;
    for (int i = 0; i < headers->FileHeader.NumberOfSections; i++)
        if (section[i].Characteristics & IMAGE_SCN_MEM_EXECUTE)
            for (DWORD at = 0; at < section[i].Misc.VirtualSize; at++)
                sum = sum * 31 + base[section[i].VirtualAddress + at];
    return sum;
}

/* A line for each module. */
static void print_code_sums(void)
{
    HMODULE modules[512];
    char name[MAX_PATH];
    DWORD size = 0;
    EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &size);
    for (DWORD i = 0; i < size / sizeof *modules; i++) {
        GetModuleBaseNameA(GetCurrentProcess(), modules[i], name, sizeof name);
        printf("code of %s: %u\n", name, code_sum((const unsigned char *)modules[i]));
    }
}

#endif
