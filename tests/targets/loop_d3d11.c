// build: -O2 -fno-optimize-sibling-calls loop_d3d11_asm.S -ld3d11 -ldxgi -ld3dcompiler -ldxguid -luuid
/* A renderer whose loop is known: the first argument chooses where that is, the second how many frames it draws.
 *
 *     main     owner render_loop on the first thread; frame function frame
 *     thread   the same on a second thread, while the first handles messages
 *     jobs     as main, but the passes are jobs of two workers, each of which serves its own queue
 *     tail     owner tail_loop; frame function tail_frame, which ends in a jump to end_frame
 *     apart    owner apart_loop, which calls update, the passes and end_frame by itself: there is no frame function
 *
 * In a frame: update, shadow_pass with 3 draw calls, scene_pass with 5 and ui_pass with 2, then end_frame, which calls
 * IDXGISwapChain::Present. A sum over each frame's pixels, read back before it is presented, is written to the
 * standard output; at the end sums over all code. The standard error output is told of frame_count.h. */
#define COBJMACROS
#include <d3d11.h>
#include <d3dcompiler.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code_sum.h"
#include "frame_count.h"

#define APART __attribute__((noinline))
#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        HRESULT result_ = (call);                                                                                      \
        if (FAILED(result_)) {                                                                                         \
            fprintf(stderr, "%s: %lx\n", #call, result_);                                                              \
            exit(2);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { WIDTH = 96, HEIGHT = 64, SHADOWS = 3, OBJECTS = 5, WIDGETS = 2, WORKERS = 2 };

typedef void (*Job)(void);
typedef struct {
    Job job;
    HANDLE wanted, done;
} Worker;

static IDXGISwapChain *chain;
static ID3D11Device *device;
static ID3D11DeviceContext *context;
static ID3D11Texture2D *back, *shadow, *readable;
static ID3D11RenderTargetView *back_view, *shadow_view;
static volatile unsigned moved;
static int with_jobs;
static Worker workers[WORKERS];

static const char shaders[] = "float4 vertex(float4 place : POSITION) : SV_POSITION { return place; }\n"
                              "float4 pixel() : SV_TARGET { return float4(1.0, 0.5, 0.25, 1.0); }\n";

static LRESULT CALLBACK window_procedure(HWND window, UINT message, WPARAM w, LPARAM l)
{
    return DefWindowProcA(window, message, w, l);
}

static void make_device(void)
{
    WNDCLASSA class = {.lpfnWndProc = window_procedure, .hInstance = GetModuleHandleA(NULL), .lpszClassName = "loop"};
    RegisterClassA(&class);
    HWND window = CreateWindowA("loop", "loop", WS_OVERLAPPEDWINDOW | WS_VISIBLE, 0, 0, 200, 150, NULL, NULL,
                                class.hInstance, NULL);
    DXGI_SWAP_CHAIN_DESC about = {
        .BufferDesc = {.Width = WIDTH, .Height = HEIGHT, .Format = DXGI_FORMAT_R8G8B8A8_UNORM},
        .SampleDesc.Count = 1,
        .BufferUsage = DXGI_USAGE_RENDER_TARGET_OUTPUT,
        .BufferCount = 1,
        .OutputWindow = window,
        .Windowed = TRUE};
    CHECK(D3D11CreateDeviceAndSwapChain(NULL, D3D_DRIVER_TYPE_HARDWARE, NULL, 0, NULL, 0, D3D11_SDK_VERSION, &about,
                                        &chain, &device, NULL, &context));
    CHECK(IDXGISwapChain_GetBuffer(chain, 0, &IID_ID3D11Texture2D, (void **)&back));
    CHECK(ID3D11Device_CreateRenderTargetView(device, (ID3D11Resource *)back, NULL, &back_view));
    D3D11_TEXTURE2D_DESC texture;
    ID3D11Texture2D_GetDesc(back, &texture);
    texture.BindFlags = D3D11_BIND_RENDER_TARGET;
    CHECK(ID3D11Device_CreateTexture2D(device, &texture, NULL, &shadow));
    CHECK(ID3D11Device_CreateRenderTargetView(device, (ID3D11Resource *)shadow, NULL, &shadow_view));
    texture.BindFlags = 0;
    texture.Usage = D3D11_USAGE_STAGING;
    texture.CPUAccessFlags = D3D11_CPU_ACCESS_READ;
    CHECK(ID3D11Device_CreateTexture2D(device, &texture, NULL, &readable));
}

static void make_pipeline(void)
{
    static const float places[][4] = {{-1, -1, 0, 1}, {0, 1, 0, 1}, {1, -1, 0, 1}};
    static const D3D11_INPUT_ELEMENT_DESC element = {
        "POSITION", 0, DXGI_FORMAT_R32G32B32A32_FLOAT, 0, 0, D3D11_INPUT_PER_VERTEX_DATA, 0};
    ID3DBlob *vertex, *pixel;
    ID3D11VertexShader *vertex_shader;
    ID3D11PixelShader *pixel_shader;
    ID3D11InputLayout *layout;
    ID3D11Buffer *buffer;
    CHECK(D3DCompile(shaders, sizeof shaders - 1, NULL, NULL, NULL, "vertex", "vs_4_0", 0, 0, &vertex, NULL));
    CHECK(D3DCompile(shaders, sizeof shaders - 1, NULL, NULL, NULL, "pixel", "ps_4_0", 0, 0, &pixel, NULL));
    CHECK(ID3D11Device_CreateVertexShader(device, ID3D10Blob_GetBufferPointer(vertex), ID3D10Blob_GetBufferSize(vertex),
                                          NULL, &vertex_shader));
    CHECK(ID3D11Device_CreatePixelShader(device, ID3D10Blob_GetBufferPointer(pixel), ID3D10Blob_GetBufferSize(pixel),
                                         NULL, &pixel_shader));
    CHECK(ID3D11Device_CreateInputLayout(device, &element, 1, ID3D10Blob_GetBufferPointer(vertex),
                                         ID3D10Blob_GetBufferSize(vertex), &layout));
    D3D11_BUFFER_DESC about = {sizeof places, D3D11_USAGE_DEFAULT, D3D11_BIND_VERTEX_BUFFER, 0, 0, 0};
    D3D11_SUBRESOURCE_DATA data = {places, 0, 0};
    CHECK(ID3D11Device_CreateBuffer(device, &about, &data, &buffer));
    UINT stride = sizeof *places, offset = 0;
    ID3D11DeviceContext_IASetVertexBuffers(context, 0, 1, &buffer, &stride, &offset);
    ID3D11DeviceContext_IASetInputLayout(context, layout);
    ID3D11DeviceContext_IASetPrimitiveTopology(context, D3D11_PRIMITIVE_TOPOLOGY_TRIANGLELIST);
    ID3D11DeviceContext_VSSetShader(context, vertex_shader, NULL, 0);
    ID3D11DeviceContext_PSSetShader(context, pixel_shader, NULL, 0);
}

static void begin_pass(ID3D11RenderTargetView *view, float shade, float width, float height)
{
    const float color[] = {shade, (float)(moved % 16) / 16, 0, 1};
    const D3D11_VIEWPORT port = {0, 0, width, height, 0, 1};
    ID3D11DeviceContext_OMSetRenderTargets(context, 1, &view, NULL);
    if (shade >= 0)
        ID3D11DeviceContext_ClearRenderTargetView(context, view, color);
    ID3D11DeviceContext_RSSetViewports(context, 1, &port);
}

static APART void shadow_pass(void)
{
    begin_pass(shadow_view, 1, WIDTH, HEIGHT);
    for (int i = 0; i < SHADOWS; i++)
        ID3D11DeviceContext_Draw(context, 3, 0);
}

static APART void scene_pass(void)
{
    begin_pass(back_view, 0.25f, (float)(16 + moved % 64), HEIGHT);
    for (int i = 0; i < OBJECTS; i++)
        ID3D11DeviceContext_Draw(context, 3, 0);
}

static APART void ui_pass(void)
{
    begin_pass(back_view, -1, 8, 8);
    for (int i = 0; i < WIDGETS; i++)
        ID3D11DeviceContext_Draw(context, 3, 0);
}

static APART void update(void)
{
    moved++;
}

static APART void sum_pixels(void)
{
    D3D11_MAPPED_SUBRESOURCE map;
    unsigned sum = 1;
    ID3D11DeviceContext_CopyResource(context, (ID3D11Resource *)readable, (ID3D11Resource *)back);
    CHECK(ID3D11DeviceContext_Map(context, (ID3D11Resource *)readable, 0, D3D11_MAP_READ, 0, &map));
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH * 4; x++)
            sum = sum * 31 + ((unsigned char *)map.pData)[y * map.RowPitch + x];
    ID3D11DeviceContext_Unmap(context, (ID3D11Resource *)readable, 0);
    printf("%u\n", sum);
}

APART void end_frame(void)
{
    sum_pixels();
    count_frame((const void *)chain->lpVtbl->Present);
    IDXGISwapChain_Present(chain, 0, 0);
}

static DWORD WINAPI serve_jobs(void *queue)
{
    Worker *worker = queue;
    while (WaitForSingleObject(worker->wanted, INFINITE) == WAIT_OBJECT_0) {
        worker->job();
        SetEvent(worker->done);
    }
    return 0;
}

static void start_workers(void)
{
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (Worker){NULL, CreateEventA(NULL, FALSE, FALSE, NULL), CreateEventA(NULL, FALSE, FALSE, NULL)};
        CreateThread(NULL, 0, serve_jobs, &workers[i], 0, NULL);
    }
}

/* The context serves one thread at a time. */
static APART void pass(Worker *worker, Job job)
{
    if (!with_jobs) {
        job();
        return;
    }
    worker->job = job;
    SetEvent(worker->wanted);
    WaitForSingleObject(worker->done, INFINITE);
}

APART void draw_all(void)
{
    update();
    pass(&workers[0], shadow_pass);
    pass(&workers[1], scene_pass);
    pass(&workers[0], ui_pass);
}

static APART void frame(void)
{
    draw_all();
    end_frame();
}

void tail_frame(void);

static void handle_messages(void)
{
    MSG message;
    while (PeekMessageA(&message, NULL, 0, 0, PM_REMOVE))
        DispatchMessageA(&message);
}

static APART void render_loop(unsigned count)
{
    while (moved < count) {
        handle_messages();
        frame();
    }
}

static APART void tail_loop(unsigned count)
{
    while (moved < count) {
        handle_messages();
        tail_frame();
    }
}

static APART void apart_loop(unsigned count)
{
    while (moved < count) {
        update();
        shadow_pass();
        scene_pass();
        ui_pass();
        end_frame();
    }
}

static DWORD WINAPI renderer(void *count)
{
    render_loop((unsigned)(size_t)count);
    return 0;
}

int main(int argc, char **argv)
{
    const char *variant = argc > 1 ? argv[1] : "main";
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 10;
    make_device();
    make_pipeline();
    with_jobs = !strcmp(variant, "jobs");
    if (with_jobs)
        start_workers();
    if (!strcmp(variant, "thread")) {
        HANDLE thread = CreateThread(NULL, 0, renderer, (void *)(size_t)count, 0, NULL);
        while (MsgWaitForMultipleObjects(1, &thread, FALSE, INFINITE, QS_ALLINPUT) != WAIT_OBJECT_0)
            handle_messages();
    } else if (!strcmp(variant, "tail"))
        tail_loop(count);
    else if (!strcmp(variant, "apart"))
        apart_loop(count);
    else
        render_loop(count);
    tell_frames();
    print_code_sums();
    return fflush(stdout);
}
