// build: clang --target=x86_64-pc-windows-msvc -O1 -fno-inline
/* Virtual functions of all kinds of classes, each called once through its vtable. Its name says where it lies there:
 * slotN in the vtable of the class, otherN in that of Other, the second base of Both. */
#ifdef _MSC_VER
#include "visual_cpp.h"
#else
#define OWN extern "C" __attribute__((noinline))
#endif

static volatile int sum;

#define VIRTUAL(name, value)                                                                                           \
    virtual int name()                                                                                                 \
    {                                                                                                                  \
        return sum += value;                                                                                           \
    }

struct Shape {
    VIRTUAL(slot0, 1)
    virtual int slot1() = 0;
    VIRTUAL(slot2, 2)
};

namespace zoo
{
struct Circle : Shape {
    VIRTUAL(slot1, 3)
    VIRTUAL(slot2, 4)
    VIRTUAL(slot3, 5)
};

template <typename Animal, int Count> struct Cage : Shape {
    VIRTUAL(slot1, sizeof(Animal) + Count)
    struct Door {
        VIRTUAL(slot0, 6)
    };
    Door door;
};
} // namespace zoo

namespace
{
struct Disc : zoo::Circle {
    VIRTUAL(slot0, 7)
    VIRTUAL(slot4, 8)
};
} // namespace

struct Other {
    VIRTUAL(other0, 9)
    VIRTUAL(other1, 10)
};

struct Both : Shape, Other {
    VIRTUAL(slot1, 11)
    VIRTUAL(other1, 12)
    VIRTUAL(slot3, 13)
};

/* As a linker leaves them that makes one function of equal ones. */
struct One {
    virtual int slot0() __asm__("folded");
};

struct Two {
    virtual int slot0() __asm__("folded");
};

OWN int folded(void *)
{
    return sum += 14;
}

/* Of which object it is the compiler must not know. */
template <typename Class> static Class &unknown(Class &object)
{
    Class *volatile hidden = &object;
    return *hidden;
}

static int call(Shape &shape)
{
    return shape.slot0() + shape.slot1() + shape.slot2();
}

extern "C" int main()
{
    zoo::Circle circle;
    zoo::Cage<int, 3> cage;
    Disc disc;
    Other other;
    Both both;
#ifdef _MSC_VER
    One one;
    Two two;
    unknown(one).slot0();
    unknown(two).slot0();
#endif
    call(unknown<Shape>(circle));
    call(unknown<Shape>(cage));
    call(unknown<Shape>(disc));
    call(unknown<Shape>(both));
    unknown(circle).slot3();
    unknown(disc).slot4();
    unknown(cage.door).slot0();
    unknown(other).other0();
    unknown(other).other1();
    unknown<Other>(both).other0();
    unknown<Other>(both).other1();
    unknown(both).slot3();
    return 0;
}
