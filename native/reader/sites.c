/* What is known of call sites: which of them call the same, and which stand for a function that records itself. */
#include "sites.h"

#include <stdlib.h>

struct import_site {
    uint32_t import, site;
};

static int by_import(const void *a, const void *b)
{
    const struct import_site *x = a, *y = b;
    if (x->import != y->import)
        return x->import < y->import ? -1 : 1;
    return x->site < y->site ? -1 : x->site > y->site;
}

static bool bit(const uint8_t *bits, uint32_t count, uint32_t at)
{
    return at < count && bits[at / 8] >> at % 8 & 1;
}

/* False: no memory. */
static bool read_module(struct ct_sites *sites, const struct ct_reader *reader, const struct ct_module_entry *module,
                        const uint8_t *through, uint32_t through_bits)
{
    struct ct_start *starts = ct_function_starts(reader, module);
    struct import_site *imports = malloc(((size_t)module->site_count + 1) * sizeof *imports);
    uint32_t count = 0;
    for (uint32_t at = 0; at < module->site_count && starts && imports; at++) {
        struct ct_site_record record = ct_site_at(reader, module, at);
        uint32_t site = module->first_site + at;
        if (record.target)
            sites->callees[site] = ct_function_at(starts, module->function_count, record.target);
        else if (record.import == CT_NONE || bit(through, through_bits, site))
            sites->callees[site] = CT_ANY_FUNCTION;
        if (record.import != CT_NONE)
            imports[count++] = (struct import_site){record.import, site};
    }
    bool memory = starts && imports;
    if (memory && count)
        qsort(imports, count, sizeof *imports, by_import);
    for (uint32_t at = 1; at < count && memory; at++)
        if (imports[at].import == imports[at - 1].import)
            sites->same[imports[at].site] = sites->same[imports[at - 1].site];
    free(starts);
    free(imports);
    return memory;
}

bool ct_read_sites(struct ct_sites *sites, const struct ct_reader *reader, const uint8_t *through,
                   uint32_t through_bits)
{
    sites->count = reader->id_count;
    sites->callees = malloc((sites->count + 1u) * sizeof *sites->callees);
    sites->same = malloc((sites->count + 1u) * sizeof *sites->same);
    bool memory = sites->callees && sites->same;
    for (uint32_t site = 0; site < sites->count && memory; site++) {
        sites->callees[site] = CT_NONE;
        sites->same[site] = site;
    }
    for (uint32_t at = 0; at < reader->index.modules && memory; at++)
        memory = read_module(sites, reader, &reader->modules[at], through, through_bits);
    return memory;
}

void ct_free_sites(struct ct_sites *sites)
{
    free(sites->callees);
    free(sites->same);
    *sites = (struct ct_sites){0};
}
