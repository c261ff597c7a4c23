/* A debugger without a window on the real dbgeng.dll, as cdb and WinDbg are: runs commands line by line.
 *
 *     debugger LOG SCRIPT -- COMMAND LINE     starts a program and breaks into it
 *     debugger LOG SCRIPT -p PID              attaches to a process
 *
 * Each line of SCRIPT is a command as a user types it; where one lets the target run, the next follows when it has
 * stopped again or is gone. The prompt, the command and all that the engine and its extensions print go to LOG, as
 * UTF-8: the standard output belongs to the target. Two commands are ours: `!break MILLISECONDS` presses Ctrl+Break
 * after that time, `!break-on TEXT` when such a text is printed in one piece. With SHOW_DML in the environment the log
 * has DML as it is; whether it is preferred is the engine's option, as ever (`.prefer_dml 1`).
 */
#include <windows.h>

#include <initguid.h> /* first, for the GUIDs to be defined */

#include <dbgeng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What mingw's dbgeng.h does not have yet. */
DEFINE_GUID(IID_IDebugOutputCallbacks2, 0x67721fe9, 0x56d2, 0x4a44, 0xa3, 0x25, 0x2b, 0x65, 0x51, 0x3c, 0xe6, 0xeb);
enum { DEBUG_OUTCBI_TEXT = 2, DEBUG_OUTCBI_DML = 4, DEBUG_OUTCB_TEXT = 0, DEBUG_OUTCB_DML = 1 };
typedef struct IDebugOutputCallbacks2 IDebugOutputCallbacks2;
typedef struct {
    HRESULT(STDMETHODCALLTYPE *QueryInterface)(IDebugOutputCallbacks2 *self, REFIID id, void **out);
    ULONG(STDMETHODCALLTYPE *AddRef)(IDebugOutputCallbacks2 *self);
    ULONG(STDMETHODCALLTYPE *Release)(IDebugOutputCallbacks2 *self);
    HRESULT(STDMETHODCALLTYPE *Output)(IDebugOutputCallbacks2 *self, ULONG mask, PCSTR text);
    HRESULT(STDMETHODCALLTYPE *GetInterestMask)(IDebugOutputCallbacks2 *self, PULONG mask);
    HRESULT(STDMETHODCALLTYPE *Output2)
    (IDebugOutputCallbacks2 *self, ULONG which, ULONG flags, ULONG64 arg, PCWSTR text);
} IDebugOutputCallbacks2Vtbl;
struct IDebugOutputCallbacks2 {
    IDebugOutputCallbacks2Vtbl *lpVtbl;
};

static FILE *log_file;
static IDebugClient *client;
static IDebugControl *control;
static BOOL links;          /* does this debugger show DML? */
static char break_on[4096]; /* a text that a user waits for to press Ctrl+Break; "": none */
static BOOL at_line_start = TRUE;

/* Text as UTF-8, or as the ANSI code page's, in the other; to be freed. */
static WCHAR *wide(UINT code_page, const char *text)
{
    int size = MultiByteToWideChar(code_page, 0, text, -1, NULL, 0);
    WCHAR *made = malloc(sizeof *made * (size_t)size);
    MultiByteToWideChar(code_page, 0, text, -1, made, size);
    return made;
}

static char *narrow(UINT code_page, const WCHAR *text)
{
    int size = WideCharToMultiByte(code_page, 0, text, -1, NULL, 0, NULL, NULL);
    char *made = malloc((size_t)size);
    WideCharToMultiByte(code_page, 0, text, -1, made, size, NULL, NULL);
    return made;
}

static void print(const WCHAR *text)
{
    char *bytes = narrow(CP_UTF8, text);
    if (*bytes) {
        fputs(bytes, log_file);
        fflush(log_file);
        at_line_start = bytes[strlen(bytes) - 1] == '\n';
    }
    if (*break_on && strstr(bytes, break_on)) {
        *break_on = 0;
        control->lpVtbl->SetInterrupt(control, DEBUG_INTERRUPT_ACTIVE);
    }
    free(bytes);
}

/* IDebugOutputCallbacks2: text, or DML where it is preferred. Other interfaces must be refused: the engine would call
 * past the end of this table. */
static HRESULT STDMETHODCALLTYPE query(IDebugOutputCallbacks2 *self, REFIID id, void **out)
{
    if (!IsEqualGUID(id, &IID_IUnknown) && !IsEqualGUID(id, &IID_IDebugOutputCallbacks) &&
        !IsEqualGUID(id, &IID_IDebugOutputCallbacks2)) {
        *out = NULL;
        return E_NOINTERFACE;
    }
    *out = self;
    return S_OK;
}

static ULONG STDMETHODCALLTYPE reference(IDebugOutputCallbacks2 *self)
{
    (void)self;
    return 1;
}

static HRESULT STDMETHODCALLTYPE output(IDebugOutputCallbacks2 *self, ULONG mask, PCSTR text)
{
    (void)self, (void)mask;
    WCHAR *wide_text = wide(CP_ACP, text);
    print(wide_text);
    free(wide_text);
    return S_OK;
}

static HRESULT STDMETHODCALLTYPE interest(IDebugOutputCallbacks2 *self, PULONG mask)
{
    (void)self;
    *mask = links ? DEBUG_OUTCBI_DML : DEBUG_OUTCBI_TEXT;
    return S_OK;
}

static HRESULT STDMETHODCALLTYPE output2(IDebugOutputCallbacks2 *self, ULONG which, ULONG flags, ULONG64 arg,
                                         PCWSTR text)
{
    (void)self, (void)flags, (void)arg;
    if (which == DEBUG_OUTCB_TEXT || which == DEBUG_OUTCB_DML)
        print(text);
    return S_OK;
}

static IDebugOutputCallbacks2Vtbl output_table = {query, reference, reference, output, interest, output2};
static IDebugOutputCallbacks2 output_callbacks = {&output_table};

static void fail(const char *what, HRESULT result)
{
    fprintf(stderr, "debugger: %s: %08lx\n", what, (unsigned long)result);
    exit(3);
}

static DWORD WINAPI interrupt(void *milliseconds)
{
    Sleep((DWORD)(UINT_PTR)milliseconds);
    control->lpVtbl->SetInterrupt(control, DEBUG_INTERRUPT_ACTIVE);
    return 0;
}

/* Until the target stops or is gone. */
static void wait(void)
{
    ULONG status = DEBUG_STATUS_NO_DEBUGGEE;
    control->lpVtbl->GetExecutionStatus(control, &status);
    while (status != DEBUG_STATUS_NO_DEBUGGEE && status != DEBUG_STATUS_BREAK &&
           SUCCEEDED(control->lpVtbl->WaitForEvent(control, 0, INFINITE)))
        control->lpVtbl->GetExecutionStatus(control, &status);
}

static void run(char *line)
{
    if (strncmp(line, "!break ", 7) == 0) {
        CreateThread(NULL, 0, interrupt, (void *)(UINT_PTR)atoi(line + 7), 0, NULL);
        return;
    }
    if (strncmp(line, "!break-on ", 10) == 0) {
        strcpy(break_on, line + 10);
        return;
    }
    ULONG process = 0, thread = 0;
    IDebugSystemObjects *objects;
    client->lpVtbl->QueryInterface(client, &IID_IDebugSystemObjects, (void **)&objects);
    objects->lpVtbl->GetCurrentProcessId(objects, &process);
    objects->lpVtbl->GetCurrentThreadId(objects, &thread);
    objects->lpVtbl->Release(objects);
    fprintf(log_file, "%s%lu:%03lu> %s\n", at_line_start ? "" : "\n", process, thread, line);
    fflush(log_file);
    at_line_start = TRUE;
    WCHAR *wide_line = wide(CP_UTF8, line);
    char *ansi_line = narrow(CP_ACP, wide_line);
    control->lpVtbl->Execute(control, DEBUG_OUTCTL_ALL_CLIENTS, ansi_line, DEBUG_EXECUTE_NOT_LOGGED);
    if (strncmp(line, ".create ", 8) == 0)
        control->lpVtbl->WaitForEvent(control, 0, INFINITE); /* the new target is there only then */
    free(ansi_line);
    free(wide_line);
}

int main(int argc, char **argv)
{
    if (argc < 5 || !(log_file = fopen(argv[1], "wb"))) {
        fprintf(stderr, "debugger LOG SCRIPT -- COMMAND LINE | -p PID\n");
        return 2;
    }
    FILE *script = fopen(argv[2], "rb");
    if (!script)
        return 2;
    links = getenv("SHOW_DML") != NULL;
    HRESULT result = DebugCreate(&IID_IDebugClient, (void **)&client);
    if (FAILED(result))
        fail("DebugCreate", result);
    client->lpVtbl->QueryInterface(client, &IID_IDebugControl, (void **)&control);
    client->lpVtbl->SetOutputCallbacks(client, (IDebugOutputCallbacks *)&output_callbacks);
    control->lpVtbl->AddEngineOptions(control, DEBUG_ENGOPT_INITIAL_BREAK);
    if (strcmp(argv[3], "-p") == 0) {
        result = client->lpVtbl->AttachProcess(client, 0, (ULONG)strtoul(argv[4], NULL, 10), DEBUG_ATTACH_DEFAULT);
    } else {
        char *line = strstr(GetCommandLineA(), " -- ");
        result = client->lpVtbl->CreateProcess(client, 0, line + 4, DEBUG_ONLY_THIS_PROCESS);
    }
    if (FAILED(result))
        fail("no target", result);
    result = control->lpVtbl->WaitForEvent(control, 0, INFINITE);
    if (FAILED(result))
        fail("no first event", result);
    char line[4096];
    while (fgets(line, sizeof line, script)) {
        line[strcspn(line, "\r\n")] = 0;
        run(line);
        wait();
    }
    ULONG status = DEBUG_STATUS_NO_DEBUGGEE;
    control->lpVtbl->GetExecutionStatus(control, &status);
    fprintf(log_file, "\n%s\n", status == DEBUG_STATUS_NO_DEBUGGEE ? "no target" : "end of script");
    fclose(log_file);
    client->lpVtbl->EndSession(client,
                               status == DEBUG_STATUS_NO_DEBUGGEE ? DEBUG_END_PASSIVE : DEBUG_END_ACTIVE_TERMINATE);
    return 0;
}
