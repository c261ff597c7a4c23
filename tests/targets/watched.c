// build: -O2
/* Watches itself while others look at it, until its input ends: threads that were started in it, debuggers, changes to
 * its code. */
#include <stdio.h>
#include <windows.h>

extern IMAGE_DOS_HEADER __ImageBase;
static volatile LONG threads, debugged, stop;

static void NTAPI notice(void *module, DWORD reason, void *reserved)
{
    (void)module;
    (void)reserved;
    if (reason == DLL_THREAD_ATTACH)
        InterlockedIncrement(&threads);
}
/* The linker puts this into the list of TLS callbacks. */
__attribute__((section(".CRT$XLD"), used)) static PIMAGE_TLS_CALLBACK on_thread = notice;

static unsigned sum_of_code(void)
{
    const unsigned char *base = (const unsigned char *)&__ImageBase;
    const IMAGE_NT_HEADERS *headers = (const IMAGE_NT_HEADERS *)(base + __ImageBase.e_lfanew);
    const IMAGE_SECTION_HEADER *text = IMAGE_FIRST_SECTION(headers);
    unsigned sum = 0;
    for (DWORD i = 0; i < text->Misc.VirtualSize; i++)
        sum = sum * 31 + base[text->VirtualAddress + i];
    return sum;
}

static DWORD WINAPI watch(void *unused)
{
    (void)unused;
    while (!stop) {
        BOOL remote = FALSE;
        CheckRemoteDebuggerPresent(GetCurrentProcess(), &remote);
        if (IsDebuggerPresent() || remote)
            debugged = 1;
    }
    return 0;
}

int main(void)
{
    unsigned before = sum_of_code();
    HANDLE watcher = CreateThread(NULL, 0, watch, NULL, 0, NULL);
    printf("ready %lu\n", GetCurrentProcessId());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    stop = 1;
    WaitForSingleObject(watcher, INFINITE);
    printf("threads %ld, debugged %ld, code %s\n", threads, debugged, sum_of_code() == before ? "same" : "changed");
    return 4;
}
