// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* longjmp over several frames, again and again, out of a callback, and with the C library's frames in between; a
 * context captured and restored.
 *
 * __builtin_setjmp stores an address inside its function, in the original body, where execution then goes on unrecorded
 * (whether such an address is one of code or of data, the planner cannot tell).
 *
 * exit: 26
 * output:
 *     over frames 3
 *     again 4
 *     from a callback 5
 *     restored 3
 *     builtin 1
 * tree:
 *     main
 *         over_frames
 *             descend  unwound
 *                 descend  unwound
 *                     descend  unwound
 *                         jump  unwound
 *             note
 *         again
 *             note
 *             descend  unwound
 *                 jump  unwound
 *             note
 *             descend  unwound
 *                 jump  unwound
 *             note
 *             descend  unwound
 *                 jump  unwound
 *             note
 *             descend  unwound
 *                 jump  unwound
 *             note
 *         from_a_callback
 *             [qsort]  unwound
 *                 compare  unwound
 *                     jump  unwound
 *             note
 *         restored
 *             note
 *             restore  unwound
 *             note
 *             restore  unwound
 *             note
 *         builtin  end not recorded
 *             builtin_descend  end not recorded
 *                 builtin_descend  end not recorded
 *                     builtin_jump  tail
 *                     note
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static jmp_buf place;
static void *builtin_place[5];
static CONTEXT context;
static volatile int noted;

static void note(int value)
{
    noted = value;
}

static void jump(int value)
{
    if (value)
        longjmp(place, value);
}

static void descend(int depth, int value)
{
    if (depth > 1)
        descend(depth - 1, value);
    else
        jump(value);
    note(1000);
}

static int over_frames(void)
{
    int value = setjmp(place);
    if (value == 0)
        descend(3, 3);
    note(value);
    return value;
}

static int again(void)
{
    int value = setjmp(place);
    note(value);
    if (value < 4)
        descend(1, value + 1);
    return value;
}

static int compare(const void *left, const void *right)
{
    jump(5);
    return *(const char *)left - *(const char *)right;
}

static int from_a_callback(void)
{
    char text[] = "ba";
    int value = setjmp(place);
    if (value == 0)
        qsort(text, 2, 1, compare);
    note(value);
    return value;
}

static void builtin_jump(void)
{
    if (noted)
        __builtin_longjmp(builtin_place, 1);
}

static void builtin_descend(int depth)
{
    if (depth > 1)
        builtin_descend(depth - 1);
    else
        builtin_jump();
    note(1000);
}

static int builtin(void)
{
    int value = __builtin_setjmp(builtin_place);
    if (value == 0)
        builtin_descend(2);
    note(value);
    return value;
}

static void restore(void)
{
    RtlRestoreContext(&context, NULL);
}

static int restored(void)
{
    static volatile int times;
    times = 0;
    RtlCaptureContext(&context);
    note(++times);
    if (times < 3)
        restore();
    return times;
}

int main(void)
{
    printf("over frames %d\n", over_frames());
    printf("again %d\n", again());
    printf("from a callback %d\n", from_a_callback());
    printf("restored %d\n", restored());
    printf("builtin %d\n", builtin());
    return 26;
}
