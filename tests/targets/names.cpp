// build: -O1 -std=c++17 -fno-inline -fno-optimize-sibling-calls -fno-exceptions -fno-rtti
/* Functions whose names only a program database tells, of all the shapes that C++ names have, called in a chain:
 * main > apply > zoo::Cage<zoo::Lion>::feed > zoo::Lion::eat > zoo::operator!= > (anonymous)::bottom > hidden. */
#include <stdio.h>
#include <stdlib.h>

static volatile int sink;

static int hidden(int n)
{
    sink += n;
    return n + sink;
}

namespace
{
int bottom(int n)
{
    return hidden(n) + 1;
}
} // namespace

namespace zoo
{
struct Lion {
    int hunger;
    int eat(int portion);
    explicit operator bool() const;
};

bool operator!=(const Lion &one, const Lion &other)
{
    return bottom(one.hunger) != other.hunger;
}

Lion::operator bool() const
{
    return sink + hunger != 0;
}

int Lion::eat(int portion)
{
    Lion fed = {hunger - portion};
    return (*this != fed) + (fed ? 1 : 2);
}

template <typename Animal> struct Cage {
    Animal animal;
    int feed(int portion);
};

template <typename Animal> int Cage<Animal>::feed(int portion)
{
    return animal.eat(portion) + 1;
}
} // namespace zoo

extern "C" int apply(int n)
{
    zoo::Cage<zoo::Lion> cage = {{n}};
    return cage.feed(3) + 1;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 1;
    for (int i = 0; i < 2; i++)
        printf("%d\n", apply(n + i));
    return 0;
}
