/* Ends with the exit code that its argument says. */
#include <stdlib.h>
#include <windows.h>

int main(int argc, char **argv)
{
    ExitProcess(argc > 1 ? strtoul(argv[1], NULL, 0) : 0);
}
