// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Loads and unloads a DLL again and again, at another base each time, and is called back by it.
 *
 * arguments: TARGET(plugin)
 * modules: plugin
 * exit: 41
 * output:
 *     sum 4, elsewhere
 *     sum 4, elsewhere
 *     sum 4, elsewhere
 * tree:
 *     main
 *         x3
 *             use
 *                 [LoadLibraryA]
 *                     DllMain
 *                         prepare
 *                 plugin_apply
 *                     visit  x3
 *                 [FreeLibrary]
 *                     DllMain
 *                         prepare
 *             occupy
 */
#include <stdio.h>
#include <windows.h>

static char *last;

static long visit(long number)
{
    return number;
}

/* Whether it came to lie elsewhere than the last time. */
static int use(const char *path, long *sum)
{
    HMODULE plugin = LoadLibraryA(path);
    long (*apply)(long (*)(long), long) =
        (long (*)(long (*)(long), long))(void *)GetProcAddress(plugin, "plugin_apply");
    int moved = (char *)plugin != last;
    last = (char *)plugin;
    *sum = apply(visit, 3);
    FreeLibrary(plugin);
    return moved;
}

/* So that the next one cannot be loaded there; if it is free, the DLL is gone. */
static int occupy(void)
{
    return VirtualAlloc(last, 0x1000, MEM_RESERVE, PAGE_NOACCESS) != NULL;
}

int main(int argc, char **argv)
{
    for (int i = 0; i < 3 && argc > 1; i++) {
        long sum;
        int moved = use(argv[1], &sum);
        int gone = occupy();
        printf("sum %ld, %s\n", sum, moved && gone ? "elsewhere" : "where it was");
    }
    return 41;
}
