/* python.exe for the Windows Python in the cache: panda3d's wheel brings python39.dll without one.
 *
 * Wine (8 at least) refuses GetFileInformationByHandle for a standard handle that is a file inherited from Unix,
 * as in `calltrace run ... > out.txt`. Python asks that of each standard handle and does not start without an
 * answer; so python39.dll is given one.
 */
#include <stdint.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

__declspec(dllimport) int Py_Main(int argc, wchar_t **argv);

static BOOL WINAPI file_information(HANDLE file, BY_HANDLE_FILE_INFORMATION *information)
{
    if (GetFileInformationByHandle(file, information))
        return TRUE;
    if (GetLastError() != ERROR_INVALID_HANDLE || GetFileType(file) != FILE_TYPE_DISK)
        return FALSE;
    LARGE_INTEGER size = {0};
    GetFileSizeEx(file, &size);
    memset(information, 0, sizeof *information);
    information->dwFileAttributes = FILE_ATTRIBUTE_NORMAL;
    information->nFileSizeLow = size.LowPart;
    information->nFileSizeHigh = (DWORD)size.HighPart;
    information->nNumberOfLinks = 1;
    return TRUE;
}

/* Redirect what `module` imports under `name` to `replacement`. */
static void replace_import(HMODULE module, const char *name, uintptr_t replacement)
{
    uint8_t *base = (uint8_t *)module;
    IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)(base + ((IMAGE_DOS_HEADER *)base)->e_lfanew);
    IMAGE_DATA_DIRECTORY imports = headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    IMAGE_IMPORT_DESCRIPTOR *library = (IMAGE_IMPORT_DESCRIPTOR *)(base + imports.VirtualAddress);
    for (; library->FirstThunk; ++library) {
        IMAGE_THUNK_DATA *wanted = (IMAGE_THUNK_DATA *)(base + library->OriginalFirstThunk);
        IMAGE_THUNK_DATA *bound = (IMAGE_THUNK_DATA *)(base + library->FirstThunk);
        for (; wanted->u1.AddressOfData; ++wanted, ++bound) {
            if (IMAGE_SNAP_BY_ORDINAL(wanted->u1.Ordinal) ||
                strcmp(((IMAGE_IMPORT_BY_NAME *)(base + wanted->u1.AddressOfData))->Name, name) != 0)
                continue;
            DWORD protection;
            VirtualProtect(bound, sizeof *bound, PAGE_READWRITE, &protection);
            bound->u1.Function = replacement;
            VirtualProtect(bound, sizeof *bound, protection, &protection);
        }
    }
}

int wmain(int argc, wchar_t **argv)
{
    replace_import(GetModuleHandleW(L"python39.dll"), "GetFileInformationByHandle", (uintptr_t)file_information);
    return Py_Main(argc, argv);
}
