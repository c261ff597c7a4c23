/* Loads the DLL that the first argument names and lets it run, with the other arguments: see loop_engine.c. */
#include <windows.h>

int main(int argc, char **argv)
{
    HMODULE engine = argc > 1 ? LoadLibraryA(argv[1]) : NULL;
    int (*run)(int, char **) = engine ? (int (*)(int, char **))(void *)GetProcAddress(engine, "run_engine") : NULL;
    return run ? run(argc - 1, argv + 1) : 3;
}
