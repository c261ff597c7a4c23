// build: -O2 -mno-stack-arg-probe -fno-inline -shared -nostdlib -Wl,--entry=0 -lgcc
/* Functions with every kind of frame gcc makes, for runs without a system around them. */
#include <stdarg.h>

#define EXPORT __declspec(dllexport)

EXPORT volatile unsigned char scratch[4096];
EXPORT unsigned long long run(unsigned long long seed);

typedef unsigned long long word;

static word mix(word a, word b)
{
    return (a ^ b >> 7) * 0x9E3779B97F4A7C15u + (a << 3);
}

static word many_registers(word a, word b, word c, word d, word e, word f)
{
    word g = mix(a, b), h = mix(c, d), i = mix(e, f), j = mix(g, h), k = mix(i, a);
    return mix(a + g, b + h) + mix(c + i, d + j) + mix(e + k, f + g) + h + i + j + k;
}

static double vectors(double a, double b, int times)
{
    double c = a * 3, d = b - 1, e = a + b, f = a * b;
    for (int i = 0; i < times; i++) {
        word turned = mix((word)i, 3);
        a = b + c * d + (double)(turned & 7);
        b = c - e * f;
        c = d + a;
        d = e - b;
        e = f * 0.5;
        f = a + 1;
    }
    return a + b + c + d + e + f;
}

static word large_frame(word seed)
{
    volatile word table[2000];
    for (int i = 0; i < 40; i++) {
        table[i * 50] = mix(seed, (word)i);
    }
    return mix(table[50], table[1950]);
}

static word dynamic_frame(word seed, unsigned count)
{
    volatile word *space = __builtin_alloca(count * sizeof *space);
    for (unsigned i = 0; i < count; i++) {
        space[i] = mix(seed, i);
    }
    return space[count / 2];
}

static word variadic(int count, ...)
{
    va_list list;
    word sum = 0;
    va_start(list, count);
    while (count-- > 0) {
        sum = mix(sum, va_arg(list, word));
    }
    va_end(list);
    return sum;
}

static word chosen(word what, word value)
{
    switch (what & 7) {
    case 0:
        return mix(value, 1);
    case 1:
        return value + 5;
    case 2:
        return large_frame(value);
    case 3:
        return dynamic_frame(value, 9);
    case 4:
        return variadic(3, value, what, 7ull);
    case 5:
        return value ^ what;
    case 6:
        return many_registers(value, 1, 2, 3, 4, what);
    default:
        return ~value;
    }
}

static word recursive(word depth, word value)
{
    return depth == 0 ? value : mix(recursive(depth - 1, value + depth), depth);
}

word run(word seed)
{
    word sum = many_registers(seed, 2, 3, 4, 5, 6);
    for (word i = 0; i < 8; i++) {
        sum += chosen(i, seed + i);
    }
    sum += (word)vectors(1.5, 2.5, 3) + recursive(4, seed);
    scratch[seed & 4095] = (unsigned char)sum;
    return sum;
}
