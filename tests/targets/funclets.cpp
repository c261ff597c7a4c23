// build: clang --target=x86_64-pc-windows-msvc -fcxx-exceptions -O2 -fno-optimize-sibling-calls -lmsvcr120
/* C++ exceptions as Microsoft's compilers have them: __CxxFrameHandler3 calls catch blocks and destructors as functions
 * of their own, funclets, on top of what was thrown through.
 *
 * clang names them ?catch$N@?0?NAME@4HA and ?dtor$N@?0?NAME@4HA.
 *
 * exit: 42
 * output:
 *     handlers 5135
 *     nested 7250
 *     destructors 7300
 *     far away 7322
 * tree:
 *     main
 *         section
 *             handlers
 *                 choose
 *                     narrow  unwound
 *                         ??0Holder@@QEAA@J@Z
 *                             add
 *                         throw_out  unwound
 *                         ?dtor$2@?0?narrow@4HA
 *                             ??1Holder@@QEAA@XZ
 *                                 add
 *                     ?catch$4@?0?choose@4HA
 *                         add
 *                 choose
 *                     narrow  unwound
 *                         ??0Holder@@QEAA@J@Z
 *                             add
 *                         throw_out  unwound
 *                         ?dtor$2@?0?narrow@4HA
 *                             ??1Holder@@QEAA@XZ
 *                                 add
 *                     ?catch$2@?0?choose@4HA
 *                         add
 *                 choose
 *                     narrow
 *                         ??0Holder@@QEAA@J@Z
 *                             add
 *                         throw_out  unwound
 *                         ?catch$3@?0?narrow@4HA
 *                             add
 *                         ??1Holder@@QEAA@XZ
 *                             add
 *                 choose
 *                     narrow  unwound
 *                         ??0Holder@@QEAA@J@Z
 *                             add
 *                         throw_out  unwound
 *                         ?dtor$2@?0?narrow@4HA
 *                             ??1Holder@@QEAA@XZ
 *                                 add
 *                     ?catch$3@?0?choose@4HA
 *                         add
 *         section
 *             nested
 *                 replace  unwound
 *                     rethrow  unwound
 *                         throw_out  unwound
 *                         ?catch$2@?0?rethrow@4HA  unwound
 *                             add
 *                     ?catch$2@?0?replace@4HA  unwound
 *                         handle_below
 *                             rethrow_from_below  unwound
 *                             ?catch$2@?0?handle_below@4HA
 *                                 add
 *                         throw_out  unwound
 *                 ?catch$3@?0?nested@4HA
 *                     add
 *                     throw_out  unwound
 *                     ?catch$2@?0?nested@4HA
 *                         add
 *         section
 *             destructors
 *                 two_holders  unwound
 *                     ??0Holder@@QEAA@J@Z  x2
 *                         add
 *                     throw_out  unwound
 *                     ?dtor$2@?0?two_holders@4HA
 *                         ??1Holder@@QEAA@XZ  x2
 *                             add
 *                 ?catch$3@?0?destructors@4HA
 *                     add
 *                 caught_in_destructor  unwound
 *                     throw_out  unwound
 *                     ?dtor$2@?0?caught_in_destructor@4HA
 *                         ??1Careful@@QEAA@XZ
 *                             throw_out  unwound
 *                             ?catch$3@?0???1Careful@@QEAA@XZ@4HA
 *                                 add
 *                 ?catch$4@?0?destructors@4HA
 *                     add
 *         section
 *             far_away
 *                 descend  unwound
 *                     ??0Holder@@QEAA@J@Z
 *                         add
 *                     descend  unwound
 *                         ??0Holder@@QEAA@J@Z
 *                             add
 *                         descend  unwound
 *                             ??0Holder@@QEAA@J@Z
 *                                 add
 *                             throw_out  unwound
 *                             ?dtor$4@?0?descend@4HA
 *                                 ??1Holder@@QEAA@XZ
 *                                     add
 *                         ?dtor$4@?0?descend@4HA
 *                             ??1Holder@@QEAA@XZ
 *                                 add
 *                     ?dtor$4@?0?descend@4HA
 *                         ??1Holder@@QEAA@XZ
 *                             add
 *                 ?catch$2@?0?far_away@4HA
 *                     add
 */
extern "C" int printf(const char *format, ...);
extern "C" int fflush(void *file);

#include "visual_cpp.h"

static volatile long sum;

OWN void add(long value)
{
    sum += value;
}

struct Base {
    long value;
};
struct Derived : Base {
};
struct Stranger {
    long value;
};

OWN void throw_out(int kind)
{
    if (kind == 0)
        throw 1L;
    if (kind == 1)
        throw Base{10};
    if (kind == 2) {
        Derived thrown;
        thrown.value = 100;
        throw thrown;
    }
    if (kind == 3)
        throw Stranger{1000};
    add(1000000);
}

/* ---- which handler takes it ---- */

struct Holder {
    long value;
    __attribute__((noinline)) explicit Holder(long value) : value(value)
    {
        add(1);
    }
    __attribute__((noinline)) ~Holder()
    {
        add(value);
    }
};

OWN void narrow(int kind)
{
    Holder holder(5);
    try {
        throw_out(kind);
    } catch (const Derived &caught) {
        add(caught.value);
    }
}

OWN void choose(int kind)
{
    try {
        narrow(kind);
    } catch (long caught) {
        add(caught);
    } catch (Base caught) {
        add(caught.value);
    } catch (...) {
        add(5000);
    }
}

OWN void handlers()
{
    for (int kind = 0; kind < 4; kind++)
        choose(kind);
}

/* ---- thrown on, and thrown anew ---- */

OWN void rethrow()
{
    try {
        throw_out(1);
    } catch (const Base &) {
        add(2);
        throw;
    }
}

OWN void rethrow_from_below()
{
    throw;
}

OWN void handle_below()
{
    try {
        rethrow_from_below();
    } catch (const Base &caught) {
        add(caught.value + 3);
    }
}

OWN void replace()
{
    try {
        rethrow();
    } catch (const Base &) {
        handle_below();
        throw_out(3);
    }
}

OWN void nested()
{
    try {
        replace();
    } catch (const Stranger &caught) {
        add(caught.value);
        try {
            throw_out(2);
        } catch (const Base &inner) {
            add(inner.value + caught.value);
        }
    }
}

/* ---- destructors ---- */

struct Careful {
    __attribute__((noinline)) ~Careful()
    {
        try {
            throw_out(0);
        } catch (long) {
            add(4);
        }
    }
};

OWN void caught_in_destructor()
{
    Careful careful;
    throw_out(1);
}

OWN void two_holders()
{
    Holder first(10), second(20);
    throw_out(0);
}

OWN void destructors()
{
    try {
        two_holders();
    } catch (long) {
        add(7);
    }
    try {
        caught_in_destructor();
    } catch (const Base &) {
        add(7);
    }
}

/* ---- far away ---- */

OWN void descend(int depth)
{
    Holder holder(depth);
    if (depth == 0)
        throw_out(0);
    else
        descend(depth - 1);
    add(1000000);
}

OWN void far_away()
{
    try {
        descend(2);
    } catch (...) {
        add(16);
    }
}

OWN void section(const char *name, void body())
{
    body();
    printf("%s %ld\n", name, sum);
    fflush(nullptr);
}

int main()
{
    section("handlers", handlers);
    section("nested", nested);
    section("destructors", destructors);
    section("far away", far_away);
    return 42;
}
