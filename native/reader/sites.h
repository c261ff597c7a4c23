/* What is known of call sites: which of them call the same, and which stand for a function that records itself. */
#ifndef CALLTRACE_READER_SITES_H
#define CALLTRACE_READER_SITES_H

#include "index.h"

#define CT_ANY_FUNCTION (CT_NONE - 1)

struct ct_sites {
    uint32_t *callees; /* by site: the function that stands for the call, CT_ANY_FUNCTION, or CT_NONE */
    uint32_t *same;    /* by site: the first site of the same import, or itself */
    uint32_t count;
};

/* Of all modules of the reader; `through`: one bit for each site of an import that traced functions stand for. False:
 * no memory; then too ct_free_sites is the caller's to call. */
bool ct_read_sites(struct ct_sites *sites, const struct ct_reader *reader, const uint8_t *through,
                   uint32_t through_bits);

void ct_free_sites(struct ct_sites *sites);

static inline uint32_t ct_same_site(const struct ct_sites *sites, uint32_t site)
{
    return site < sites->count ? sites->same[site] : site;
}

static inline uint32_t ct_site_callee(const struct ct_sites *sites, uint32_t site)
{
    return site < sites->count ? sites->callees[site] : CT_NONE;
}

/* Is a function that is entered right in a call from this site what the site calls? */
static inline bool ct_site_calls(const struct ct_sites *sites, uint32_t site, uint32_t function)
{
    uint32_t callee = ct_site_callee(sites, site);
    return callee != CT_NONE && (callee == CT_ANY_FUNCTION || callee == function);
}

#endif
