/* A sum over the program's own code as it stands in memory: a breakpoint left behind would change it. */
#ifndef CODE_SUM_H
#define CODE_SUM_H

#include <windows.h>

extern const unsigned char __ImageBase[];

static unsigned code_sum(void)
{
    const unsigned char *base = __ImageBase;
    const IMAGE_NT_HEADERS64 *headers = (const IMAGE_NT_HEADERS64 *)(base + ((const IMAGE_DOS_HEADER *)base)->e_lfanew);
    const IMAGE_SECTION_HEADER *section = IMAGE_FIRST_SECTION(headers);
    unsigned sum = 1;
    for (int i = 0; i < headers->FileHeader.NumberOfSections; i++)
        if (section[i].Characteristics & IMAGE_SCN_MEM_EXECUTE)
            for (DWORD at = 0; at < section[i].Misc.VirtualSize; at++)
                sum = sum * 31 + base[section[i].VirtualAddress + at];
    return sum;
}

#endif
