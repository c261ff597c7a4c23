// build: -O1 -fno-inline
/* Does what the lines of its input say, and answers each with a line: "work" calls step three times and tells how
 * step's code begins; "load PATH" has a plugin (session_plugin.c) do its work, for two steps. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

static volatile unsigned steps;

static void step(unsigned n)
{
    steps += n ? 2 * n - 1 : 0;
}

static void (*volatile where)(unsigned) = step; /* a function that is seen to be read would be left alone */

static void work(void)
{
    const volatile unsigned char *code = (const volatile unsigned char *)(void *)where;
    for (unsigned i = 1; i <= 3; i++)
        step(i);
    for (int i = 0; i < 8; i++)
        printf("%02x", code[i]);
    printf(" %u\n", steps);
}

static void load(const char *path)
{
    HMODULE plugin = LoadLibraryA(path);
    unsigned (*plugin_work)(unsigned) = (unsigned (*)(unsigned))(void *)GetProcAddress(plugin, "plugin_work");
    printf("%u\n", plugin_work(2));
}

int main(void)
{
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strncmp(line, "load ", 5))
            load(line + 5);
        else
            work();
        fflush(stdout);
    }
    return 3;
}
