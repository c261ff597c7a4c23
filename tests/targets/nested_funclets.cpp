// build: clang --target=x86_64-pc-windows-msvc -fcxx-exceptions -O2 -fno-optimize-sibling-calls -lmsvcr120
/* Tries inside catch blocks, as Microsoft's compilers have them: the inner handler is a funclet called on top of the
 * outer one, with the same frame of the function that both belong to. What such a handler leaves by returning goes on
 * in the outer funclet; its objects end in funclets of their own before the outer one's do.
 *
 * clang names them ?catch$N@?0?NAME@4HA and ?dtor$N@?0?NAME@4HA.
 *
 * exit: 43
 * output:
 *     three deep 70
 *     left 161
 *     looped 191
 *     objects 446
 *     thrown through 461
 *     again 484
 * tree:
 *     main
 *         section
 *             three_deep
 *                 throw_long  unwound
 *                 ?catch$5@?0?three_deep@4HA
 *                     add
 *                     throw_long  unwound
 *                     ?catch$3@?0?three_deep@4HA
 *                         add
 *                         throw_long  unwound
 *                         ?catch$2@?0?three_deep@4HA
 *                             add
 *                         add
 *                     add
 *                 add
 *         section
 *             leave
 *                 thrown_on
 *                     throw_long  unwound
 *                     ?catch$2@?0?thrown_on@4HA  unwound
 *                         throw_char  unwound
 *                         ?catch$4@?0?thrown_on@4HA  unwound
 *                             add
 *                     ?catch$6@?0?thrown_on@4HA
 *                         add
 *                     add
 *                 thrown_anew
 *                     throw_long  unwound
 *                     ?catch$4@?0?thrown_anew@4HA  unwound
 *                         throw_long  unwound
 *                         ?catch$2@?0?thrown_anew@4HA  unwound
 *                             throw_char  unwound
 *                     ?catch$6@?0?thrown_anew@4HA
 *                         add
 *                     add
 *                 returned
 *                     throw_long  unwound
 *                     ?catch$2@?0?returned@4HA
 *                         throw_long  unwound
 *                         ?catch$1@?0?returned@4HA
 *                             add
 *                 add
 *         section
 *             looped
 *                 throw_long  unwound
 *                 ?catch$8@?0?looped@4HA
 *                     throw_long  unwound
 *                     ?catch$5@?0?looped@4HA
 *                         add
 *                     add
 *                 add
 *                 throw_char  unwound
 *                 ?catch$4@?0?looped@4HA
 *                     add
 *                 throw_long  unwound
 *                 ?catch$8@?0?looped@4HA
 *                     throw_long  unwound
 *                     ?catch$5@?0?looped@4HA
 *                         add
 *                 add
 *         section
 *             with_objects
 *                 ??0Holder@@QEAA@J@Z  x2
 *                 throw_long  unwound
 *                 ?dtor$3@?0?with_objects@4HA
 *                     ??1Holder@@QEAA@XZ
 *                         add
 *                 ?catch$4@?0?with_objects@4HA
 *                     ??0Holder@@QEAA@J@Z  x2
 *                     throw_long  unwound
 *                     ?dtor$7@?0?with_objects@4HA
 *                         ??1Holder@@QEAA@XZ
 *                             add
 *                     ?catch$8@?0?with_objects@4HA
 *                         ??0Holder@@QEAA@J@Z
 *                         add
 *                         ??1Holder@@QEAA@XZ
 *                             add
 *                     add
 *                     ??1Holder@@QEAA@XZ
 *                         add
 *                 add
 *                 ??1Holder@@QEAA@XZ
 *                     add
 *         section
 *             objects_thrown_through
 *                 throw_long  unwound
 *                 ?catch$4@?0?objects_thrown_through@4HA  unwound
 *                     ??0Holder@@QEAA@J@Z
 *                     throw_long  unwound
 *                     ?catch$2@?0?objects_thrown_through@4HA  unwound
 *                         ??0Holder@@QEAA@J@Z
 *                         throw_char  unwound
 *                         ?dtor$6@?0?objects_thrown_through@4HA
 *                             ??1Holder@@QEAA@XZ
 *                                 add
 *                     ?dtor$7@?0?objects_thrown_through@4HA
 *                         ??1Holder@@QEAA@XZ
 *                             add
 *                 ?catch$8@?0?objects_thrown_through@4HA
 *                     add
 *                 add
 *         section
 *             recursion
 *                 again
 *                     throw_long  unwound
 *                     ?catch$5@?0?again@4HA
 *                         throw_long  unwound
 *                         ?catch$2@?0?again@4HA
 *                             again
 *                                 throw_long  unwound
 *                                 ?catch$5@?0?again@4HA
 *                                     throw_long  unwound
 *                                     ?catch$2@?0?again@4HA
 *                                         add
 *                                     add
 *                             add
 *                         add
 */
extern "C" int printf(const char *format, ...);
extern "C" int fflush(void *file);

#include "visual_cpp.h"

#define OWN extern "C" __attribute__((noinline))

static volatile long sum;

OWN void add(long value)
{
    sum += value;
}

OWN void throw_long(long value)
{
    if (value)
        throw value;
    add(1000000);
}

OWN void throw_char(char value)
{
    if (value)
        throw value;
    add(1000000);
}

struct Holder {
    long value;
    __attribute__((noinline)) explicit Holder(long value) : value(value)
    {
    }
    __attribute__((noinline)) ~Holder()
    {
        add(value);
    }
};

/* ---- three deep ---- */

OWN void three_deep()
{
    try {
        throw_long(1);
    } catch (long first) {
        add(first);
        try {
            throw_long(2);
        } catch (long second) {
            add(second + first);
            try {
                throw_long(3);
            } catch (long third) {
                add(third + second + first);
            }
            add(10);
        }
        add(20);
    }
    add(30);
}

/* ---- out of a nested handler ---- */

OWN void thrown_on()
{
    try {
        try {
            throw_long(1);
        } catch (long) {
            try {
                throw_char(2);
            } catch (char inner) {
                add(inner);
                throw;
            }
        }
    } catch (char outer) {
        add(outer + 10);
    }
    add(30);
}

OWN void thrown_anew()
{
    try {
        try {
            throw_long(1);
        } catch (long) {
            try {
                throw_long(2);
            } catch (long inner) {
                throw_char((char)inner);
            }
        }
    } catch (char outer) {
        add(outer + 10);
    }
    add(30);
}

OWN long returned()
{
    try {
        throw_long(1);
    } catch (long first) {
        try {
            throw_long(2);
        } catch (long second) {
            add(second);
            return first + second;
        }
        add(1000000);
    }
    return 0;
}

/* ---- in a loop, and in the second of two handlers ---- */

OWN void looped()
{
    for (long turn = 1; turn < 4; turn++) {
        try {
            if (turn == 2)
                throw_char(2);
            throw_long(turn);
        } catch (char) {
            add(1);
            continue;
        } catch (long) {
            try {
                throw_long(10);
            } catch (long inner) {
                add(inner);
                if (turn == 3)
                    break;
            }
            add(2);
        }
        add(3);
    }
    add(4);
}

/* ---- objects at each level ---- */

OWN void with_objects()
{
    Holder around(1);
    try {
        Holder guarded(2);
        throw_long(1);
    } catch (long) {
        Holder outer(4);
        try {
            Holder inner(8);
            throw_long(2);
        } catch (long) {
            Holder innermost(16);
            add(32);
        }
        add(64);
    }
    add(128);
}

OWN void objects_thrown_through()
{
    try {
        try {
            throw_long(1);
        } catch (long) {
            Holder outer(1);
            try {
                throw_long(2);
            } catch (long) {
                Holder inner(2);
                throw_char(4);
            }
        }
    } catch (char caught) {
        add(caught);
    }
    add(8);
}

/* ---- a function called again from its own nested handler ---- */

OWN void again(long depth)
{
    try {
        throw_long(depth);
    } catch (long) {
        try {
            throw_long(10);
        } catch (long inner) {
            if (depth > 1)
                again(depth - 1);
            add(inner);
        }
        add(depth);
    }
}

OWN void section(const char *name, void body())
{
    body();
    printf("%s %ld\n", name, sum);
    fflush(nullptr);
}

OWN void leave()
{
    thrown_on();
    thrown_anew();
    add(returned());
}

OWN void recursion()
{
    again(2);
}

int main()
{
    section("three deep", three_deep);
    section("left", leave);
    section("looped", looped);
    section("objects", with_objects);
    section("thrown through", objects_thrown_through);
    section("again", recursion);
    return 43;
}
