// build: -O2 -fno-ipa-cp -fno-ipa-sra -fno-optimize-sibling-calls
/* C++ exceptions of every shape, each thrown through traced functions and caught in them: handlers chosen by type,
 * thrown on, thrown anew inside a handler, out of destructors and constructors, through a function of the C library,
 * and taken to another thread.
 *
 * exit: 22
 * output:
 *     handlers 5112
 *     nested 7227
 *     destructors 7273
 *     constructors 7504
 *     far away 7523
 *     through the library 7551
 *     threads 7651
 * tree:
 *     main
 *         section
 *             handlers
 *                 choose  x2
 *                     narrow  unwound
 *                         raise  unwound
 *                     add
 *                 choose
 *                     narrow
 *                         raise  unwound
 *                         add
 *                 choose
 *                     narrow  unwound
 *                         raise  unwound
 *                     add
 *             printf
 *         section
 *             nested
 *                 replace  unwound
 *                     rethrow  unwound
 *                         raise  unwound
 *                         add
 *                     handle_below
 *                         rethrow_from_below  unwound
 *                         add
 *                     raise  unwound
 *                 add
 *                 raise  unwound
 *                 add
 *             printf
 *         section
 *             destructors
 *                 thrown_by_destructor  unwound
 *                     Holder::Holder
 *                         add
 *                     add
 *                     Thrower::~Thrower  unwound
 *                         raise  unwound
 *                     Holder::~Holder
 *                         add
 *                 add
 *                 caught_in_destructor  unwound
 *                     raise  unwound
 *                     Careful::~Careful
 *                         raise  unwound
 *                         add
 *                 add
 *             printf
 *         section
 *             constructors
 *                 Halfway::Halfway  unwound
 *                     Holder::Holder  x3
 *                         add
 *                     raise  unwound
 *                     Holder::~Holder  x3
 *                         add
 *                 add
 *                 Holder::Holder
 *                     add
 *                 Holder::~Holder
 *                     add
 *                 Guarded::Guarded  unwound
 *                     Holder::Holder
 *                         add
 *                     raise  unwound
 *                     Holder::~Holder
 *                         add
 *                     add
 *                 add
 *                 function_try
 *                     raise  unwound
 *                     add
 *                 add
 *             printf
 *         section
 *             far_away
 *                 descend  unwound
 *                     Holder::Holder
 *                         add
 *                     descend  unwound
 *                         Holder::Holder
 *                             add
 *                         descend  unwound
 *                             Holder::Holder
 *                                 add
 *                             raise  unwound
 *                             Holder::~Holder
 *                                 add
 *                         Holder::~Holder
 *                             add
 *                     Holder::~Holder
 *                         add
 *                 add
 *             printf
 *         section
 *             through_the_library
 *                 [qsort]  unwound
 *                     compare  unwound
 *                         add
 *                 add
 *             printf
 *         section
 *             threads
 *                 on_a_thread  x2
 *             printf
 * thread:
 *     carry_out
 *         raise  unwound
 * thread:
 *     bring_back
 *         add
 */
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <windows.h>

#define OWN __attribute__((noinline))

static volatile long sum;

OWN static void add(long value)
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

OWN static void raise(int kind)
{
    if (kind == 0)
        throw 1L;
    if (kind == 1)
        throw Base{10};
    if (kind == 2)
        throw Derived{{100}};
    if (kind == 3)
        throw Stranger{1000};
}

/* ---- which handler takes it ---- */

OWN static void narrow(int kind)
{
    try {
        raise(kind);
    } catch (const Derived &caught) {
        add(caught.value + 1);
    }
}

OWN static void choose(int kind)
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

OWN static void handlers()
{
    for (int kind = 0; kind < 4; kind++)
        choose(kind);
}

/* ---- thrown on, and thrown anew ---- */

OWN static void rethrow()
{
    try {
        raise(1);
    } catch (const Base &) {
        add(2);
        throw;
    }
}

OWN static void rethrow_from_below()
{
    throw;
}

OWN static void handle_below()
{
    try {
        rethrow_from_below();
    } catch (const Base &caught) {
        add(caught.value + 3);
    }
}

OWN static void replace()
{
    try {
        rethrow();
    } catch (const Base &) {
        handle_below();
        raise(3);
    }
}

OWN static void nested()
{
    try {
        replace();
    } catch (const Stranger &caught) {
        add(caught.value);
        try {
            raise(2);
        } catch (const Base &inner) {
            add(inner.value + caught.value);
        }
    }
}

/* ---- destructors ---- */

struct Holder {
    long value;
    OWN explicit Holder(long value) : value(value)
    {
        add(1);
    }
    OWN ~Holder()
    {
        add(value);
    }
};

struct Careful {
    OWN ~Careful()
    {
        try {
            raise(0);
        } catch (long) {
            add(4);
        }
    }
};

struct Thrower {
    OWN ~Thrower() noexcept(false)
    {
        raise(0);
    }
};

OWN static void thrown_by_destructor()
{
    Holder holder(20);
    Thrower thrower;
    add(6);
}

OWN static void caught_in_destructor()
{
    Careful careful;
    raise(1);
}

OWN static void destructors()
{
    try {
        thrown_by_destructor();
    } catch (long) {
        add(7);
    }
    try {
        caught_in_destructor();
    } catch (const Base &) {
        add(8);
    }
}

/* ---- constructors ---- */

struct Halfway : Holder {
    Holder first, second;
    OWN explicit Halfway(int kind) : Holder(30), first(31), second(32)
    {
        raise(kind);
    }
};

struct Guarded {
    Holder member;
    OWN explicit Guarded(int kind)
    try : member(40) {
        raise(kind);
    } catch (const Base &caught) {
        add(caught.value); /* and is thrown on */
    }
};

OWN static int function_try(int kind)
try {
    raise(kind);
    return 0;
} catch (const Stranger &) {
    add(9);
    return 1;
}

OWN static void constructors()
{
    try {
        Halfway halfway(0);
    } catch (long) {
        add(11);
    }
    try {
        delete new Holder(50);
        delete new Guarded(1);
    } catch (const Base &) {
        add(12);
    }
    add(function_try(3));
}

/* ---- far away ---- */

OWN static void descend(int depth)
{
    Holder holder(depth);
    if (depth == 0)
        raise(0);
    else
        descend(depth - 1);
    add(1000000);
}

OWN static void far_away()
{
    try {
        descend(2);
    } catch (...) {
        add(13);
    }
}

OWN static int compare(const void *, const void *)
{
    add(14);
    throw Stranger{0};
}

OWN static void through_the_library()
{
    char text[] = "ba";
    try {
        std::qsort(text, 2, 1, compare);
    } catch (const Stranger &) {
        add(14);
    }
}

/* ---- taken to another thread ---- */

OWN static DWORD WINAPI carry_out(void *carried)
{
    try {
        raise(2);
    } catch (...) {
        *static_cast<std::exception_ptr *>(carried) = std::current_exception();
    }
    return 0;
}

OWN static DWORD WINAPI bring_back(void *carried)
{
    try {
        std::rethrow_exception(*static_cast<std::exception_ptr *>(carried));
    } catch (const Derived &caught) {
        add(caught.value);
    }
    return 0;
}

OWN static void on_a_thread(DWORD WINAPI entry(void *), std::exception_ptr *carried)
{
    HANDLE thread = CreateThread(nullptr, 0, entry, carried, 0, nullptr);
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

OWN static void threads()
{
    std::exception_ptr carried;
    on_a_thread(carry_out, &carried);
    on_a_thread(bring_back, &carried);
}

OWN static void section(const char *name, void body())
{
    body();
    std::printf("%s %ld\n", name, sum);
    std::fflush(stdout);
}

int main()
{
    section("handlers", handlers);
    section("nested", nested);
    section("destructors", destructors);
    section("constructors", constructors);
    section("far away", far_away);
    section("through the library", through_the_library);
    section("threads", threads);
    return 22;
}
