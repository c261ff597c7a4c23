// build: -O2 -fno-optimize-sibling-calls -lopengl32 -lgdi32
/* A renderer by OpenGL: the argument says how many frames it draws.
 *
 * owner draw_loop; frame function draw_frame, which draws 3 shapes (glBegin) and calls SwapBuffers. A sum over each
 * frame's pixels, read back before they are shown, is written to the standard output, and sums over its code. The
 * standard error output is told of frame_count.h.
 */
#include <GL/gl.h>
#include <stdio.h>
#include <stdlib.h>

#include "code_sum.h"
#include "frame_count.h"

#define APART __attribute__((noinline))

enum { SIDE = 64, SHAPES = 3 };

static HDC device;
static unsigned char pixels[SIDE * SIDE * 4];

static APART void draw_shape(unsigned number, unsigned turn)
{
    float left = (float)(turn % 8) / 8 - (float)number / 4;
    glBegin(GL_TRIANGLES);
    glColor3f(1, 0.25f * (float)number, 0);
    glVertex2f(left, -1);
    glVertex2f(left + 0.5f, 1);
    glVertex2f(left + 1, -1);
    glEnd();
}

static APART void draw_frame(unsigned turn)
{
    glClear(GL_COLOR_BUFFER_BIT);
    for (unsigned i = 0; i < SHAPES; i++)
        draw_shape(i, turn);
    glReadPixels(0, 0, SIDE, SIDE, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
    unsigned sum = 1;
    for (unsigned i = 0; i < sizeof pixels; i++)
        sum = sum * 31 + pixels[i];
    printf("%u\n", sum);
    count_frame((const void *)GetProcAddress(GetModuleHandleA("gdi32"), "SwapBuffers"));
    SwapBuffers(device);
}

static APART void draw_loop(unsigned count)
{
    for (unsigned turn = 0; turn < count; turn++) {
        MSG message;
        while (PeekMessageA(&message, NULL, 0, 0, PM_REMOVE))
            DispatchMessageA(&message);
        draw_frame(turn);
    }
}

int main(int argc, char **argv)
{
    WNDCLASSA class = {.lpfnWndProc = DefWindowProcA, .hInstance = GetModuleHandleA(NULL), .lpszClassName = "loop"};
    const PIXELFORMATDESCRIPTOR wanted = {.nSize = sizeof wanted,
                                          .nVersion = 1,
                                          .dwFlags = PFD_DRAW_TO_WINDOW | PFD_SUPPORT_OPENGL | PFD_DOUBLEBUFFER,
                                          .iPixelType = PFD_TYPE_RGBA,
                                          .cColorBits = 32};
    RegisterClassA(&class);
    HWND window =
        CreateWindowA("loop", "loop", WS_POPUP | WS_VISIBLE, 0, 0, SIDE, SIDE, NULL, NULL, class.hInstance, NULL);
    device = GetDC(window);
    if (!SetPixelFormat(device, ChoosePixelFormat(device, &wanted), &wanted) ||
        !wglMakeCurrent(device, wglCreateContext(device)))
        return 2;
    glViewport(0, 0, SIDE, SIDE);
    draw_loop(argc > 1 ? (unsigned)atoi(argv[1]) : 10);
    tell_frames();
    print_code_sums();
    return fflush(stdout);
}
