/* The functions of TitanEngine, looked up when they are first needed. */
#ifndef CALLTRACE_X64DBG_TITAN_H
#define CALLTRACE_X64DBG_TITAN_H

#include "sdk.h"

struct titan {
#define MEMBER(result, name, parameters) result(*name) parameters;
    TITAN_FUNCTIONS(MEMBER)
#undef MEMBER
};

/* NULL: it is not loaded, or is of another kind. */
const struct titan *find_titan(void);

#endif
