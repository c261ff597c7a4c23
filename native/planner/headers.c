/* PE headers at the start of the region: a debugger that is told of the region as a module finds by them the unwind
 * data of the copies. What is registered with the system it need not see.
 *
 * Layout: "PE Format", Microsoft, https://learn.microsoft.com/windows/win32/debug/pe-format.
 */
#include "module.h"

enum {
    HEADERS_SIZE = 0x400, /* at most; the slow-path thunk follows */
    NT = 0x40,
    OPTIONAL = NT + 24,
    DIRECTORIES = OPTIONAL + 112,
    SECTION = OPTIONAL + 240,
    ALIGNMENT = 0x400,
};

static void set(struct ct_plan *plan, uint32_t at, uint64_t value, unsigned size)
{
    memcpy(plan->bytes + at, &value, size);
}

void ct_put_headers(struct ct_plan *plan, struct ct_table by_region)
{
    uint32_t size = plan->layout.region_size;
    memset(plan->bytes, 0, HEADERS_SIZE);
    memcpy(plan->bytes, "MZ", 2);
    set(plan, 0x3C, NT, 4);
    memcpy(plan->bytes + NT, "PE\0\0", 4);
    set(plan, NT + 4, 0x8664, 2);                       /* Machine */
    set(plan, NT + 6, 1, 2);                            /* NumberOfSections */
    set(plan, NT + 20, 240, 2);                         /* SizeOfOptionalHeader */
    set(plan, NT + 22, 0x2022, 2);                      /* Characteristics: executable, large addresses, DLL */
    set(plan, OPTIONAL, 0x20B, 2);                      /* Magic: PE32+ */
    set(plan, OPTIONAL + 4, plan->layout.code_size, 4); /* SizeOfCode */
    set(plan, OPTIONAL + 20, HEADERS_SIZE, 4);          /* BaseOfCode */
    set(plan, OPTIONAL + 24, plan->image.base + plan->region, 8); /* ImageBase */
    set(plan, OPTIONAL + 32, ALIGNMENT, 4);                       /* SectionAlignment */
    set(plan, OPTIONAL + 36, ALIGNMENT, 4);                       /* FileAlignment */
    set(plan, OPTIONAL + 40, 6, 2);                               /* MajorOperatingSystemVersion */
    set(plan, OPTIONAL + 48, 6, 2);                               /* MajorSubsystemVersion */
    set(plan, OPTIONAL + 56, size, 4);                            /* SizeOfImage */
    set(plan, OPTIONAL + 60, HEADERS_SIZE, 4);                    /* SizeOfHeaders */
    set(plan, OPTIONAL + 68, 2, 2);                               /* Subsystem */
    set(plan, OPTIONAL + 108, 16, 4);                             /* NumberOfRvaAndSizes */
    set(plan, DIRECTORIES + 3 * 8, by_region.at, 4);              /* exception directory */
    set(plan, DIRECTORIES + 3 * 8 + 4, by_region.count * 12u, 4);
    memcpy(plan->bytes + SECTION, ".text", 5);
    set(plan, SECTION + 8, size - HEADERS_SIZE, 4);  /* VirtualSize */
    set(plan, SECTION + 12, HEADERS_SIZE, 4);        /* VirtualAddress */
    set(plan, SECTION + 16, size - HEADERS_SIZE, 4); /* SizeOfRawData */
    set(plan, SECTION + 20, HEADERS_SIZE, 4);        /* PointerToRawData */
    set(plan, SECTION + 36, 0x60000020, 4);          /* Characteristics: code, execute, read */
}
