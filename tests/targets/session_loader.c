// build: -O2
/* Loads the DLL in its first argument on a second thread, while the first keeps computing, uses it, unloads it, and
 * does so again, as often as the second argument says. It begins when told to by a line of input. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static const char *path;
static int times;
static volatile LONG done;

static DWORD WINAPI load(void *unused)
{
    (void)unused;
    for (int i = 0; i < times; i++) {
        HMODULE plugin = LoadLibraryA(path);
        unsigned (*plugin_work)(unsigned) = (unsigned (*)(unsigned))(void *)GetProcAddress(plugin, "plugin_work");
        printf("%u\n", plugin_work(100));
        FreeLibrary(plugin);
    }
    InterlockedExchange(&done, 1);
    return 0;
}

__declspec(dllexport) __attribute__((noinline)) unsigned spin(unsigned n)
{
    return n * 5 + 3;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 1;
    path = argv[1];
    times = atoi(argv[2]);
    printf("process %lu\n", GetCurrentProcessId());
    fflush(stdout);
    getchar();
    HANDLE loader = CreateThread(NULL, 0, load, NULL, 0, NULL);
    static volatile unsigned n;
    while (!done) {
        n = spin(n);
        Sleep(1);
    }
    WaitForSingleObject(loader, INFINITE);
    return 9;
}
