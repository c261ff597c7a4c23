// build: -O2 -Wno-array-bounds
/* Tells what a program started under a debugger could notice: its command line, environment, heap flags and
 * whether it is debugged; copies its input to its output; ends with the exit code in its first argument. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

int main(int argc, char **argv)
{
    const char *peb = (const char *)__readgsqword(0x60);
    char text[64];
    printf("command line: %s\n", GetCommandLineA());
    printf("heap variable: %s\n", GetEnvironmentVariableA("_NO_DEBUG_HEAP", text, sizeof text) ? text : "none");
    printf("given variable: %s\n", GetEnvironmentVariableA("PORT_CHILD", text, sizeof text) ? text : "none");
    printf("debugged: %d %d, global flags: %lx\n", peb[2], IsDebuggerPresent(), *(const unsigned long *)(peb + 0xbc));
    int count = 0;
    while (getchar() != EOF)
        count++;
    printf("input: %d bytes\n", count);
    fprintf(stderr, "to the error output\n");
    return argc > 1 ? (int)strtoul(argv[1], NULL, 0) : 0;
}
