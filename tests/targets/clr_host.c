// build: -O2
/* A native program that hosts .NET: clr_host FOLDER, the folder of coreclr.dll and System.Private.CoreLib.dll.
 *
 * It calls managed code, which is compiled at run time, from frames of its own at several depths, and lets the
 * runtime walk the stack through them.
 */
#include <stdio.h>
#include <windows.h>

typedef int (*initialize_t)(const char *, const char *, int, const char **, const char **, void **, unsigned *);
typedef int (*create_delegate_t)(void *, unsigned, const char *, const char *, const char *, void **);
typedef int (*shutdown_t)(void *, unsigned);

static void *host;
static unsigned domain;
static create_delegate_t create_delegate;

static void *managed(const char *type, const char *method)
{
    void *function = NULL;
    int status = create_delegate(host, domain, "System.Private.CoreLib", type, method, &function);
    printf("%s.%s: %x\n", type, method, status);
    return function;
}

__declspec(noinline) static int call_at_depth(void (*function)(void), int depth)
{
    if (depth == 0) {
        function();
        return 0;
    }
    return call_at_depth(function, depth - 1) + depth;
}

int main(int argc, char **argv)
{
    char library[MAX_PATH], core[MAX_PATH];
    if (argc < 2)
        return 1;
    snprintf(library, sizeof library, "%s\\coreclr.dll", argv[1]);
    snprintf(core, sizeof core, "%s\\System.Private.CoreLib.dll", argv[1]);
    HMODULE runtime = LoadLibraryA(library);
    if (!runtime)
        return 2;
    initialize_t initialize = (initialize_t)(void *)GetProcAddress(runtime, "coreclr_initialize");
    shutdown_t shutdown = (shutdown_t)(void *)GetProcAddress(runtime, "coreclr_shutdown");
    create_delegate = (create_delegate_t)(void *)GetProcAddress(runtime, "coreclr_create_delegate");
    const char *names[] = {"TRUSTED_PLATFORM_ASSEMBLIES"}, *values[] = {core};
    printf("initialize: %x\n", initialize(argv[0], "host", 1, names, values, &host, &domain));
    void (*wait)(void) = (void (*)(void))managed("System.GC", "WaitForPendingFinalizers");
    char *(*trace)(void) = (char *(*)(void))managed("System.Environment", "get_StackTrace");
    int sum = 0;
    for (int i = 0; i < 200; i++)
        sum += call_at_depth(wait, i % 20);
    printf("sum %d\n%s\n", sum, trace());
    printf("shutdown: %x\n", shutdown(host, domain));
    return 7;
}
