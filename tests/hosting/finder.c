/* Looks for a Python to host, as a debugger's plugin does, and tells which was found and why not the others.
 *
 *     finder [load DLL]... [register TAG FOLDER]... find
 *
 * `load`: a library that is in the process already. `register`: in a registry that is this process's alone.
 * Standard output, in UTF-8: "found PATH|HOME|PACKAGES" or "none", and then what was tried, a line each.
 */
#include "hosting/hosting.h"

#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

static void print(const wchar_t *text)
{
    char bytes[3 * CT_TEXT];
    WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof bytes, NULL, NULL);
    fputs(bytes, stdout);
}

/* A key that is kept in memory only. */
static HKEY create(HKEY root, const wchar_t *path)
{
    HKEY key;
    LSTATUS status = RegCreateKeyExW(root, path, 0, NULL, REG_OPTION_VOLATILE, KEY_ALL_ACCESS, NULL, &key, NULL);
    if (status)
        exit(4);
    return key;
}

int wmain(int count, wchar_t **words)
{
    static ct_python found;
    static wchar_t tried[CT_TEXT];
    wchar_t ours[64];
    _snwprintf(ours, 64, L"Software\\calltrace test %lu", GetCurrentProcessId());
    HKEY registry = create(HKEY_CURRENT_USER, ours), machine = create(registry, L"machine");
    HKEY user = create(registry, L"user");
    RegOverridePredefKey(HKEY_LOCAL_MACHINE, machine);
    RegOverridePredefKey(HKEY_CURRENT_USER, user);
    for (int i = 1; i < count; ++i) {
        wchar_t key[CT_PATH];
        if (wcscmp(words[i], L"load") == 0) {
            if (!LoadLibraryExW(words[++i], NULL, LOAD_WITH_ALTERED_SEARCH_PATH))
                return 3;
        } else if (wcscmp(words[i], L"register") == 0) {
            _snwprintf(key, CT_PATH, L"SOFTWARE\\Python\\PythonCore\\%ls\\InstallPath", words[i + 1]);
            const wchar_t *folder = words[i + 2];
            RegSetValueExW(create(HKEY_CURRENT_USER, key), NULL, 0, REG_SZ, (const BYTE *)folder,
                           (DWORD)((wcslen(folder) + 1) * sizeof *folder));
            i += 2;
        }
    }
    if (ct_find_python(GetModuleHandleW(NULL), &found, tried)) {
        print(L"found ");
        print(found.path);
        print(L"|");
        print(found.home);
        print(L"|");
        print(found.packages);
        print(L"\n");
    } else {
        print(L"none\n");
    }
    print(tried);
    RegOverridePredefKey(HKEY_CURRENT_USER, NULL);
    RegDeleteTreeW(HKEY_CURRENT_USER, ours);
    return 0;
}
