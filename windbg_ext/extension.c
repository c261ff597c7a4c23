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
static IDebugClient *client;
static IDebugControl3 *control; /* an IDebugControl4; as long as `client` */

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

HRESULT STDMETHODCALLTYPE ct_callbacks_query(IDebugEventCallbacks *self, REFIID id, void **out)
{
    if (!IsEqualGUID(id, &IID_IUnknown) && !IsEqualGUID(id, &IID_IDebugEventCallbacks)) {
        *out = NULL;
        return E_NOINTERFACE;
    }
    *out = self;
    return S_OK;
}

ULONG STDMETHODCALLTYPE ct_callbacks_reference(IDebugEventCallbacks *self)
{
    (void)self;
    return 1;
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

HRESULT ct_enter(IDebugClient *new_client, struct ct_outer *outer)
{
    IDebugControl3 *new_control;
    HRESULT result = new_client->lpVtbl->QueryInterface(new_client, &IID_IDebugControl4, (void **)&new_control);
    if (FAILED(result))
        return result;
    *outer = (struct ct_outer){client, control};
    client = new_client, control = new_control;
    return S_OK;
}

void ct_leave(const struct ct_outer *outer)
{
    control->lpVtbl->Release(control);
    client = outer->client, control = outer->control;
}

CT_EXPORT HRESULT CALLBACK DebugExtensionInitialize(PULONG version, PULONG flags)
{
    *version = DEBUG_EXTENSION_VERSION(1, 0);
    *flags = 0;
    return S_OK;
}

CT_EXPORT HRESULT CALLBACK help(PDEBUG_CLIENT of_command, PCSTR arguments)
{
    (void)arguments;
    struct ct_outer outer;
    HRESULT result = ct_enter(of_command, &outer);
    if (FAILED(result))
        return result;
    control->lpVtbl->ControlledOutput(control, OUTPUT_AS_TEXT, DEBUG_OUTPUT_NORMAL, "%s", usage);
    ct_leave(&outer);
    return S_OK;
}

CT_EXPORT HRESULT CALLBACK calltrace(PDEBUG_CLIENT of_command, PCSTR arguments)
{
    int size = MultiByteToWideChar(CP_ACP, 0, arguments, -1, NULL, 0);
    WCHAR *line = HeapAlloc(GetProcessHeap(), 0, sizeof *line * (size_t)size);
    if (!line)
        return E_OUTOFMEMORY;
    MultiByteToWideChar(CP_ACP, 0, arguments, -1, line, size);
    struct ct_outer outer;
    HRESULT result = ct_enter(of_command, &outer);
    if (SUCCEEDED(result)) {
        ct_plugin plugin = {library, CALLTRACE_VERSION, "calltrace_windbg.host", "windbg_ext", fail};
        ct_host_line(&plugin, line);
        ct_leave(&outer);
    }
    HeapFree(GetProcessHeap(), 0, line);
    return result;
}
