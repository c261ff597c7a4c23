// build: -O1 -fno-inline -fno-ipa-icf -Wl,--dynamicbase,--high-entropy-va -luser32 -lgdi32
/* A window with a menu of two actions, and a timer that never rests. What an action calls begins with its name; what
 * both call, with shared. The only imports of an action: draw LineTo and MoveToEx, count lstrlenA.
 *
 * It says `ready` when its window is there, and what it has done after each command; it ends with its window. */
#include <stdio.h>
#include <windows.h>

#define DRAW 101
#define COUNT 102

static HDC canvas;
static volatile unsigned ticks, pixels, sum;

static void tick(void)
{
    ticks++;
}

static unsigned shared_scale(unsigned value)
{
    return value * 3 + ticks % 2;
}

static void shared_tell(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
}

static void draw_point(int x)
{
    LineTo(canvas, x, (int)shared_scale((unsigned)x) % 100);
    pixels++;
}

static void draw_row(int row)
{
    MoveToEx(canvas, 0, row, NULL);
    for (int x = 0; x < 5; x++)
        draw_point(x);
}

static void draw_picture(void)
{
    for (int row = 0; row < 3; row++)
        draw_row(row);
}

static unsigned count_letters(const char *text)
{
    return (unsigned)lstrlenA(text);
}

static unsigned count_deep(unsigned level)
{
    return level ? count_deep(level - 1) + count_letters("seven") : shared_scale(1);
}

static void count_all(void)
{
    sum += count_deep(4);
}

static void command(WPARAM which)
{
    if (which == DRAW) {
        draw_picture();
        shared_tell("drawn");
    } else if (which == COUNT) {
        count_all();
        shared_tell("counted");
    }
}

static LRESULT CALLBACK window_procedure(HWND window, UINT message, WPARAM wide, LPARAM narrow)
{
    switch (message) {
    case WM_TIMER:
        tick();
        return 0;
    case WM_COMMAND:
        command(LOWORD(wide));
        return 0;
    case WM_DESTROY:
        PostQuitMessage(0);
        return 0;
    default:
        return DefWindowProcA(window, message, wide, narrow);
    }
}

int main(void)
{
    HINSTANCE module = GetModuleHandleA(NULL);
    WNDCLASSA class = {.lpfnWndProc = window_procedure, .hInstance = module, .lpszClassName = "two actions"};
    HMENU bar = CreateMenu(), actions = CreatePopupMenu();
    canvas = CreateCompatibleDC(NULL);
    AppendMenuA(actions, MF_STRING, DRAW, "&Draw");
    AppendMenuA(actions, MF_STRING, COUNT, "&Count");
    AppendMenuA(bar, MF_POPUP, (UINT_PTR)actions, "&Actions");
    RegisterClassA(&class);
    HWND window = CreateWindowA("two actions", "Two actions", WS_OVERLAPPEDWINDOW | WS_VISIBLE, 0, 0, 300, 200, NULL,
                                bar, module, NULL);
    SetTimer(window, 1, 10, NULL);
    printf("ready at %p\n", (void *)module);
    fflush(stdout);
    MSG message;
    while (GetMessageA(&message, NULL, 0, 0) > 0)
        DispatchMessageA(&message);
    return (int)sum;
}
