// build: -shared -O2 -Dmain=render loop_d3d11.c loop_d3d11_asm.S -ld3d11 -ldxgi -ldxguid -ld3dcompiler
/* loop_d3d11.c as a DLL, for loop_game.c to load: its loop lies in it. */
int render(int argc, char **argv);

__declspec(dllexport) int run_engine(int argc, char **argv)
{
    return render(argc, argv);
}
