// build: -O2 -fno-optimize-sibling-calls
/* An API with arguments of every kind, called in a loop (owner serve, frame function turn) as many times as ARGUMENT
 * says. In turn n: half = n / 2, count = n, whole = n * 1.25, color = GREEN in even turns, else BLUE; name = "even" or
 * "odd", wide the same; place = {n, -n, 7}; fifth and sixth are on the stack. It returns n * 0.75 - 1. */
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

#define APART __attribute__((noinline))

enum color { RED, GREEN = 4, BLUE };
struct place {
    int x, y, z;
};

static volatile double sum;

APART double api(float half, int count, double whole, enum color color, const char *name, const wchar_t *wide,
                 const struct place *place, float eighth, double ninth)
{
    sum += half + count + whole + color + name[0] + wide[0] + place->x * 3 + place->y + place->z + eighth + ninth;
    return count * 0.75 - 1;
}

APART int integer_api(long long wide, unsigned char byte)
{
    sum += (double)wide + byte;
    return -(int)byte;
}

static APART void turn(int n)
{
    struct place place = {n, -n, 7};
    int odd = n % 2;
    sum += api((float)n / 2, n, n * 1.25, odd ? BLUE : GREEN, odd ? "odd" : "even", odd ? L"odd" : L"even", &place,
               (float)-n, n * 1e100);
    sum += integer_api(-5000000000ll - n, (unsigned char)n);
}

static APART void serve(int count)
{
    for (int n = 0; n < count; n++)
        turn(n);
}

int main(int argc, char **argv)
{
    serve(argc > 1 ? atoi(argv[1]) : 20);
    printf("%g\n", sum);
    return 0;
}
