// build: -O2 loop_d3d11.c loop_d3d11_asm.S -ld3d11 -ldxgi -ld3dcompiler -ldxguid -luuid
/* loop_d3d11.c as it is released: functions end in jumps wherever they can, so that end_frame jumps to
 * IDXGISwapChain::Present, and frame to end_frame. */
