// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 arguments_asm.S
/* Arguments and results of every shape: variadic, on the stack, structures by hidden pointer and in registers, reals,
 * vectors of 16 bytes, and, in assembly, six vectors of 32 bytes as __vectorcall passes them.
 *
 * output:
 *     variadic 136 4.5 end
 *     twelve 650, mixed 36.5
 *     small 7 9, large 0 99 4950, nested 5050
 *     complex 1.5 -2.5, vector 11 22, wide 21 42 63 84
 * tree:
 *     main
 *         variadic
 *             add_up
 *         twelve
 *         mixed
 *         small
 *         large
 *             fill
 *         nested
 *             large
 *                 fill
 *             total
 *         conjugate
 *         add_vectors
 *         wide_sum
 *             add_six
 */
#include <complex.h>
#include <emmintrin.h>
#include <stdarg.h>
#include <stdio.h>

#define APART __attribute__((noinline, noclone, noipa))

struct small {
    int first, second;
};

struct large {
    int values[100];
};

/* Adds up six vectors of four, in xmm or ymm registers. */
void wide_sum(double *result, const double *vectors, int avx);

static APART long long add_up(int count, va_list list, double *real)
{
    long long sum = 0;
    for (int i = 0; i < count; i++)
        sum += va_arg(list, int);
    *real = va_arg(list, double);
    return sum;
}

static APART const char *variadic(long long *sum, double *real, int count, ...)
{
    va_list list;
    va_start(list, count);
    va_list copy;
    va_copy(copy, list);
    *sum = add_up(count, copy, real);
    va_end(copy);
    for (int i = 0; i < count; i++)
        (void)va_arg(list, int);
    (void)va_arg(list, double);
    const char *last = va_arg(list, const char *);
    va_end(list);
    return last;
}

static APART int twelve(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, int l)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11 * k + 12 * l;
}

static APART double mixed(int a, double b, int c, float d, long long e, double f, short g, float h)
{
    return a + b + c + d + (double)e + f + g + h;
}

static APART struct small small(int first, int second)
{
    return (struct small){second, first};
}

static APART void fill(struct large *made, int step)
{
    for (int i = 0; i < 100; i++)
        made->values[i] = i * step;
}

static APART struct large large(int step)
{
    struct large made;
    fill(&made, step);
    return made;
}

static APART int total(struct large given, int more)
{
    int sum = more;
    for (int i = 0; i < 100; i++)
        sum += given.values[i];
    return sum;
}

static APART int nested(int more)
{
    return total(large(1), more);
}

static APART double complex conjugate(double complex value)
{
    return conj(value);
}

static APART __m128d add_vectors(__m128d a, __m128d b)
{
    return _mm_add_pd(a, b);
}

int main(void)
{
    long long sum;
    double real;
    const char *last = variadic(&sum, &real, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 4.5, "end");
    printf("variadic %lld %.1f %s\n", sum, real, last);
    int weighted = twelve(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    printf("twelve %d, mixed %.1f\n", weighted, mixed(1, 2.5, 3, 4, 5, 6, 7, 8));
    struct small pair = small(9, 7);
    struct large many = large(1);
    int all = 0;
    for (int i = 0; i < 100; i++)
        all += many.values[i];
    printf("small %d %d, large %d %d %d, nested %d\n", pair.first, pair.second, many.values[0], many.values[99], all,
           nested(100));
    double complex number = conjugate(1.5 + 2.5 * I);
    double added[2], wide[4], numbers[24];
    _mm_storeu_pd(added, add_vectors(_mm_set_pd(2, 1), _mm_set_pd(20, 10)));
    for (int i = 0; i < 24; i++)
        numbers[i] = (i / 4 + 1) * (i % 4 + 1);
    wide_sum(wide, numbers, __builtin_cpu_supports("avx") != 0);
    printf("complex %.1f %.1f, vector %.0f %.0f, wide %.0f %.0f %.0f %.0f\n", creal(number), cimag(number), added[0],
           added[1], wide[0], wide[1], wide[2], wide[3]);
    return 0;
}
