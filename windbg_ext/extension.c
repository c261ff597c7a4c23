/* calltrace_windbg.dll: `!calltrace` in WinDbg, cdb and whatever else is built on dbgeng.
 *
 * The command line goes to Python as it is; Python prints, and sees the target, through the functions exported here and
 * in engine.c. Only what works without Python is told from here.
 */
#include "extension.h"

#include "hosting/hosting.h"

/* What mingw's dbgeng.h does not have. */
static const ULONG OUTPUT_AS_DML = 0xfffffffe, OUTPUT_AS_TEXT = 0xffffffff, PREFERS_DML = 0x00040000;
DEFINE_GUID(IID_IDebugControl4, 0x94e60ce9, 0x9b41, 0x4b19, 0x9f, 0xc0, 0x6d, 0x9e, 0xb3, 0x52, 0x72, 0xb3);
typedef struct {
    IDebugControl3Vtbl control3;
    void *get_log_file, *open_log_file, *input, *return_input, *output, *output_va_list;
    HRESULT(WINAPIV *ControlledOutputWide)(IDebugControl3 *self, ULONG control, ULONG mask, PCWSTR format, ...);
} IDebugControl4Vtbl;

static const char usage[] = "calltrace " CALLTRACE_VERSION ": records every call of an x64 program at full speed\n"
                            "  !calltrace               lists its commands\n"
                            "  !calltrace help COMMAND  tells of one\n";

static HMODULE library;
static const char source_folder[] = "windbg_ext";
static IDebugClient *client;
static IDebugControl3 *control; /* an IDebugControl4; as long as `client` */
static IDebugClient *listener;  /* of our own, while Python is to be told of notifications; else NULL */

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        library = self;
        DisableThreadLibraryCalls(self);
    }
    return TRUE;
}

IDebugClient *ct_client(void)
{
    return client;
}

HRESULT ct_print(ULONG mask, const WCHAR *text, BOOL dml)
{
    const IDebugControl4Vtbl *methods = (const IDebugControl4Vtbl *)control->lpVtbl;
    return methods->ControlledOutputWide(control, dml ? OUTPUT_AS_DML : OUTPUT_AS_TEXT, mask, L"%ws", text);
}

BOOL ct_prefers_dml(void)
{
    ULONG options = 0;
    control->lpVtbl->GetEngineOptions(control, &options);
    return (options & PREFERS_DML) != 0;
}

BOOL ct_interrupted(void)
{
    return control->lpVtbl->GetInterrupt(control) == S_OK;
}

static void fail(const wchar_t *text)
{
    ct_print(DEBUG_OUTPUT_ERROR, text, FALSE);
}

/* Begin a command; commands may be nested, since one may let the engine execute another. */
static HRESULT enter(IDebugClient *new_client, IDebugClient **outer_client, IDebugControl3 **outer_control)
{
    IDebugControl3 *new_control;
    HRESULT result = new_client->lpVtbl->QueryInterface(new_client, &IID_IDebugControl4, (void **)&new_control);
    if (FAILED(result))
        return result;
    *outer_client = client, *outer_control = control;
    client = new_client, control = new_control;
    return S_OK;
}

static void leave(IDebugClient *outer_client, IDebugControl3 *outer_control)
{
    control->lpVtbl->Release(control);
    client = outer_client, control = outer_control;
}

CT_EXPORT HRESULT CALLBACK DebugExtensionInitialize(PULONG version, PULONG flags)
{
    *version = DEBUG_EXTENSION_VERSION(1, 0);
    *flags = 0;
    return S_OK;
}

HRESULT ct_listen(BOOL wanted)
{
    if (!wanted == !listener)
        return S_OK;
    if (wanted)
        return client ? client->lpVtbl->CreateClient(client, &listener) : E_UNEXPECTED;
    listener->lpVtbl->Release(listener);
    listener = NULL;
    return S_OK;
}

/* What a command of ours does to the target is no news. */
CT_EXPORT void CALLBACK DebugExtensionNotify(ULONG notification, ULONG64 argument)
{
    (void)argument;
    IDebugClient *of_notification = listener, *outer_client;
    IDebugControl3 *outer_control;
    if (!listener || client || FAILED(enter(of_notification, &outer_client, &outer_control)))
        return;
    of_notification->lpVtbl->AddRef(of_notification); /* Python may end the listening */
    WCHAR line[] = {(WCHAR)(L'0' + notification), 0};
    ct_plugin plugin = {library, CALLTRACE_VERSION, "calltrace_windbg.notifications", source_folder, fail};
    ct_host_line(&plugin, line);
    leave(outer_client, outer_control);
    of_notification->lpVtbl->Release(of_notification);
}

/* Once Python was loaded, it and this DLL stay (ct_host_line). */
CT_EXPORT void CALLBACK DebugExtensionUninitialize(void)
{
    ct_listen(FALSE);
}

CT_EXPORT HRESULT CALLBACK help(PDEBUG_CLIENT of_command, PCSTR arguments)
{
    (void)arguments;
    IDebugClient *outer_client;
    IDebugControl3 *outer_control;
    HRESULT result = enter(of_command, &outer_client, &outer_control);
    if (FAILED(result))
        return result;
    control->lpVtbl->ControlledOutput(control, OUTPUT_AS_TEXT, DEBUG_OUTPUT_NORMAL, "%s", usage);
    leave(outer_client, outer_control);
    return S_OK;
}

CT_EXPORT HRESULT CALLBACK calltrace(PDEBUG_CLIENT of_command, PCSTR arguments)
{
    IDebugClient *outer_client;
    IDebugControl3 *outer_control;
    HRESULT result = enter(of_command, &outer_client, &outer_control);
    if (FAILED(result))
        return result;
    int size = MultiByteToWideChar(CP_ACP, 0, arguments, -1, NULL, 0);
    WCHAR *line = HeapAlloc(GetProcessHeap(), 0, sizeof *line * (size_t)size);
    if (line) {
        MultiByteToWideChar(CP_ACP, 0, arguments, -1, line, size);
        ct_plugin plugin = {library, CALLTRACE_VERSION, "calltrace_windbg.host", source_folder, fail};
        ct_host_line(&plugin, line);
        HeapFree(GetProcessHeap(), 0, line);
    }
    leave(outer_client, outer_control);
    return line ? S_OK : E_OUTOFMEMORY;
}
