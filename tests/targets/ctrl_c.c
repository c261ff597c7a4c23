/* Says that it is ready, then waits for Ctrl+C; its handler says so and ends the wait. */
#include <stdio.h>
#include <windows.h>

static HANDLE interrupted;

static BOOL WINAPI handler(DWORD event)
{
    if (event != CTRL_C_EVENT)
        return FALSE;
    SetEvent(interrupted);
    return TRUE;
}

int main(void)
{
    interrupted = CreateEventW(NULL, TRUE, FALSE, NULL);
    SetConsoleCtrlHandler(handler, TRUE);
    puts("ready");
    fflush(stdout);
    DWORD waited = WaitForSingleObject(interrupted, 30000);
    puts(waited == WAIT_OBJECT_0 ? "interrupted" : "not interrupted");
    return waited == WAIT_OBJECT_0 ? 3 : 4;
}
