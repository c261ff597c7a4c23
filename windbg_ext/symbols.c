/* The engine's symbols: see symbols.h. */
#include "symbols.h"

#include <dbghelp.h>

/* What mingw's dbgeng.h does not have. */
DEFINE_GUID(IID_IDebugSymbols3, 0xf02fbecc, 0x50ac, 0x4f36, 0x9a, 0xd9, 0xc9, 0x75, 0xe8, 0xf3, 0x2f, 0xf8);
typedef struct IDebugSymbols3 IDebugSymbols3;
typedef struct {
    IDebugSymbols2Vtbl symbols2;
    HRESULT(STDMETHODCALLTYPE *GetNameByOffsetWide)
    (IDebugSymbols3 *self, ULONG64 offset, PWSTR name, ULONG room, PULONG size, PULONG64 displacement);
    void *others_before_lines[2];
    HRESULT(STDMETHODCALLTYPE *GetLineByOffsetWide)
    (IDebugSymbols3 *self, ULONG64 offset, PULONG line, PWSTR file, ULONG room, PULONG size, PULONG64 displacement);
    void *others_before_strings[25];
    HRESULT(STDMETHODCALLTYPE *GetModuleNameStringWide)
    (IDebugSymbols3 *self, ULONG which, ULONG index, ULONG64 base, PWSTR name, ULONG room, PULONG size);
    void *others_before_modules[7];
    HRESULT(STDMETHODCALLTYPE *AddSyntheticModuleWide)
    (IDebugSymbols3 *self, ULONG64 base, ULONG size, PCWSTR path, PCWSTR name, ULONG flags);
    HRESULT(STDMETHODCALLTYPE *RemoveSyntheticModule)(IDebugSymbols3 *self, ULONG64 base);
    void *GetCurrentScopeFrameIndex;
    HRESULT(STDMETHODCALLTYPE *SetScopeFrameByIndex)(IDebugSymbols3 *self, ULONG index);
    void *others_before_symbols[7];
    HRESULT(STDMETHODCALLTYPE *AddSyntheticSymbolWide)
    (IDebugSymbols3 *self, ULONG64 offset, ULONG size, PCWSTR name, ULONG flags, void *id);
} IDebugSymbols3Vtbl;
struct IDebugSymbols3 {
    const IDebugSymbols3Vtbl *lpVtbl;
};

enum { ANY_INDEX = -1, MODNAME_IMAGE = 0, MODNAME_SYMBOL_FILE = 3 };

static HRESULT get(IDebugSymbols3 **symbols)
{
    IDebugClient *client = ct_client();
    return client ? client->lpVtbl->QueryInterface(client, &IID_IDebugSymbols3, (void **)symbols) : E_UNEXPECTED;
}

static void release(IDebugSymbols3 *symbols)
{
    symbols->lpVtbl->symbols2.Release((IDebugSymbols2 *)symbols);
}

HRESULT ct_name(ULONG64 address, WCHAR *name, ULONG room, ULONG64 *displacement)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->GetNameByOffsetWide(symbols, address, name, room, NULL, displacement);
    release(symbols);
    return result;
}

HRESULT ct_line(ULONG64 address, WCHAR *file, ULONG room, ULONG *line)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    ULONG options = 0;
    result = symbols->lpVtbl->symbols2.GetSymbolOptions((IDebugSymbols2 *)symbols, &options);
    if (SUCCEEDED(result))
        result = options & SYMOPT_LOAD_LINES
                     ? symbols->lpVtbl->GetLineByOffsetWide(symbols, address, line, file, room, NULL, NULL)
                     : E_NOTIMPL;
    release(symbols);
    return result;
}

HRESULT ct_symbol_file(ULONG64 base, WCHAR *file, ULONG room)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    DEBUG_MODULE_PARAMETERS about;
    result = symbols->lpVtbl->symbols2.GetModuleParameters((IDebugSymbols2 *)symbols, 1, &base, 0, &about);
    if (SUCCEEDED(result)) {
        switch (about.SymbolType) {
        case DEBUG_SYMTYPE_CODEVIEW:
        case DEBUG_SYMTYPE_PDB:
        case DEBUG_SYMTYPE_SYM:
        case DEBUG_SYMTYPE_DIA:
            result = symbols->lpVtbl->GetModuleNameStringWide(symbols, MODNAME_SYMBOL_FILE, (ULONG)ANY_INDEX, base,
                                                              file, room, NULL);
            break;
        default:
            result = S_FALSE;
        }
    }
    release(symbols);
    return result;
}

HRESULT ct_names(ULONG64 base, const ULONG *rvas, ULONG count, WCHAR *names, ULONG room, ULONG *done)
{
    static WCHAR name[4096];
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    ULONG used = 0;
    for (*done = 0; *done < count; ++*done) {
        ULONG64 displacement;
        const WCHAR *function = NULL;
        /* S_FALSE: the name was cut. */
        if (symbols->lpVtbl->GetNameByOffsetWide(symbols, base + rvas[*done], name, ARRAYSIZE(name), NULL,
                                                 &displacement) == S_OK &&
            !displacement)
            function = wcschr(name, L'!');
        function = function ? function + 1 : L"";
        ULONG size = (ULONG)wcslen(function) + 1;
        if (size > room - used)
            break;
        memcpy(names + used, function, size * sizeof *function);
        used += size;
    }
    release(symbols);
    return S_OK;
}

HRESULT ct_image_name(ULONG64 base, WCHAR *name, ULONG room)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->GetModuleNameStringWide(symbols, MODNAME_IMAGE, (ULONG)ANY_INDEX, base, name, room, NULL);
    release(symbols);
    return result;
}

HRESULT ct_reset_scope(void)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->SetScopeFrameByIndex(symbols, 0);
    release(symbols);
    return result;
}

HRESULT ct_scope(ULONG64 *address)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    DEBUG_STACK_FRAME frame;
    result = symbols->lpVtbl->symbols2.GetScope((IDebugSymbols2 *)symbols, address, &frame, NULL, 0);
    release(symbols);
    return result;
}

/* The engine's scope itself must stay what it is, or the registers of the frame are lost. What variables are found by
 * is told to DbgHelp, which knows the process by the engine's handle. */
HRESULT ct_set_scope(ULONG64 address)
{
    IDebugSystemObjects *objects;
    IDebugClient *client = ct_client();
    HRESULT result =
        client ? client->lpVtbl->QueryInterface(client, &IID_IDebugSystemObjects, (void **)&objects) : E_UNEXPECTED;
    if (FAILED(result))
        return result;
    ULONG64 process = 0;
    result = objects->lpVtbl->GetCurrentProcessHandle(objects, &process);
    objects->lpVtbl->Release(objects);
    HMODULE dbghelp = GetModuleHandleA("dbghelp.dll");
    BOOL(WINAPI * set)
    (HANDLE process, IMAGEHLP_STACK_FRAME * frame, void *context) =
        dbghelp ? (void *)GetProcAddress(dbghelp, "SymSetContext") : NULL;
    if (FAILED(result) || !set)
        return FAILED(result) ? result : E_NOTIMPL;
    IMAGEHLP_STACK_FRAME frame = {.InstructionOffset = address};
    return set((HANDLE)(UINT_PTR)process, &frame, NULL) ? S_OK : S_FALSE;
}

HRESULT ct_add_module(ULONG64 base, ULONG size, const WCHAR *path, const WCHAR *name)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->AddSyntheticModuleWide(symbols, base, size, path, name, 0);
    release(symbols);
    return result;
}

HRESULT ct_remove_module(ULONG64 base)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->RemoveSyntheticModule(symbols, base);
    release(symbols);
    return result;
}

HRESULT ct_add_symbol(ULONG64 address, const WCHAR *name)
{
    IDebugSymbols3 *symbols;
    HRESULT result = get(&symbols);
    if (FAILED(result))
        return result;
    result = symbols->lpVtbl->AddSyntheticSymbolWide(symbols, address, 1, name, 0, NULL);
    release(symbols);
    return result;
}
