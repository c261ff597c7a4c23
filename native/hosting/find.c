/* Which Python to host. Each is checked before it is loaded: a library once loaded cannot be taken back, and one
 * without its standard library ends the process as it starts.
 */
#include "hosting/hosting.h"

#include <psapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

enum { OLDEST_MINOR = 9, MOST_MODULES = 1024, MOST_VERSIONS = 64 };

typedef struct {
    ct_python *found;
    wchar_t *tried;
} search;

static const char *const needed[] = {
#define NAME(result, name, parameters) #name,
    CT_PYTHON_FUNCTIONS(NAME)
#undef NAME
};

static void join(wchar_t *path, const wchar_t *folder, const wchar_t *name)
{
    size_t length = wcslen(folder);
    bool ends = length && (folder[length - 1] == '\\' || folder[length - 1] == '/');
    _snwprintf(path, CT_PATH, ends ? L"%ls%ls" : L"%ls\\%ls", folder, name);
    path[CT_PATH - 1] = 0;
}

static bool exists(const wchar_t *folder, const wchar_t *name)
{
    wchar_t path[CT_PATH];
    join(path, folder, name);
    return GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES;
}

/* Cut the last name off a path; false if there is none to cut. */
static bool to_parent(wchar_t *path)
{
    wchar_t *end = path;
    for (wchar_t *at = path; *at; ++at)
        if (*at == '\\' || *at == '/')
            end = at;
    bool was_longer = end != path && *end && end[1];
    *end = 0;
    return was_longer;
}

static const wchar_t *name_of(const wchar_t *path)
{
    const wchar_t *name = path;
    for (; *path; ++path)
        if (*path == '\\' || *path == '/')
            name = path + 1;
    return name;
}

/* The version in a file name of the form pythonXY.dll, as 100 * X + Y; 0: another name. */
static int version_of(const wchar_t *name)
{
    wchar_t digits[8];
    if (_wcsnicmp(name, L"python", 6) != 0)
        return 0;
    size_t count = wcsspn(name + 6, L"0123456789");
    if (count < 2 || count > 4 || _wcsicmp(name + 6 + count, L".dll") != 0)
        return 0;
    wcsncpy(digits, name + 6, count);
    digits[count] = 0;
    return (digits[0] - '0') * 100 + (int)wcstol(digits + 1, NULL, 10);
}

static void note(search *search, const wchar_t *source, const wchar_t *path, const wchar_t *reason)
{
    size_t length = wcslen(search->tried);
    _snwprintf(search->tried + length, CT_TEXT - length, L"  %ls: %ls%ls%ls\n", source, path, *path ? L" " : L"",
               reason);
    search->tried[CT_TEXT - 1] = 0;
}

/* Whether an image exports a function. */
static bool exports(const BYTE *image, const IMAGE_OPTIONAL_HEADER64 *header, const char *function)
{
    DWORD size = header->SizeOfImage, rva = header->DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT].VirtualAddress;
    if (!rva || rva > size - sizeof(IMAGE_EXPORT_DIRECTORY))
        return false;
    const IMAGE_EXPORT_DIRECTORY *directory = (const IMAGE_EXPORT_DIRECTORY *)(image + rva);
    if (directory->AddressOfNames > size || directory->NumberOfNames > (size - directory->AddressOfNames) / 4)
        return false;
    const DWORD *names = (const DWORD *)(image + directory->AddressOfNames);
    for (DWORD i = 0; i < directory->NumberOfNames; ++i)
        if (names[i] < size && strncmp((const char *)image + names[i], function, size - names[i]) == 0)
            return true;
    return false;
}

/* Whether a mapped library has all that we call; `reason` (CT_PATH characters) tells what not. */
static bool image_fits(const BYTE *image, wchar_t *reason)
{
    const IMAGE_NT_HEADERS64 *headers =
        (const IMAGE_NT_HEADERS64 *)(image + ((const IMAGE_DOS_HEADER *)image)->e_lfanew);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i)
        if (!exports(image, &headers->OptionalHeader, needed[i])) {
            _snwprintf(reason, CT_PATH, L"lacks the function %hs", needed[i]);
            return false;
        }
    return true;
}

/* Whether a file begins as a library for this processor does. */
static bool head_fits(HANDLE file, wchar_t *reason)
{
    BYTE head[0x1000];
    DWORD size = 0;
    ReadFile(file, head, sizeof head, &size, NULL);
    const IMAGE_DOS_HEADER *dos = (const IMAGE_DOS_HEADER *)head;
    wcscpy(reason, L"is no Windows library, or damaged");
    if (size < sizeof *dos || dos->e_magic != IMAGE_DOS_SIGNATURE || dos->e_lfanew < 0 ||
        (size_t)dos->e_lfanew + sizeof(IMAGE_NT_HEADERS64) > size)
        return false;
    const IMAGE_NT_HEADERS64 *headers = (const IMAGE_NT_HEADERS64 *)(head + dos->e_lfanew);
    if (headers->Signature != IMAGE_NT_SIGNATURE)
        return false;
    if (headers->FileHeader.Machine == IMAGE_FILE_MACHINE_I386)
        wcscpy(reason, L"is a 32-bit Python: a 64-bit debugger needs a 64-bit one");
    else if (headers->FileHeader.Machine != IMAGE_FILE_MACHINE_AMD64)
        wcscpy(reason, L"is made for another processor than x64");
    return headers->FileHeader.Machine == IMAGE_FILE_MACHINE_AMD64;
}

/* Whether a file is a library that this process can use, found out without running any of it. */
static bool file_fits(const wchar_t *path, wchar_t *reason)
{
    HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_EXECUTE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    wcscpy(reason, L"cannot be opened");
    if (file == INVALID_HANDLE_VALUE)
        return false;
    bool fits = head_fits(file, reason);
    HANDLE mapping = fits ? CreateFileMappingW(file, NULL, PAGE_READONLY | SEC_IMAGE, 0, 0, NULL) : NULL;
    const BYTE *image = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (fits)
        fits = image && image_fits(image, reason);
    if (image)
        UnmapViewOfFile(image);
    if (mapping)
        CloseHandle(mapping);
    CloseHandle(file);
    return fits;
}

/* Whether Python's own library is there; its home, unless Python is set up already or finds the zip beside the DLL. */
static bool has_library(ct_python *python)
{
    wchar_t beside[CT_PATH];
    *python->home = 0;
    HMODULE loaded = GetModuleHandleW(python->path);
    if (loaded && ((int (*)(void))(uintptr_t)GetProcAddress(loaded, "Py_IsInitialized"))())
        return true;
    wcscpy(python->home, python->path);
    to_parent(python->home);
    if (exists(python->home, L"Lib\\os.py") && exists(python->home, L"Lib\\encodings\\__init__.py"))
        return true;
    wcscpy(beside, python->path);
    wcscpy(wcsrchr(beside, '.'), L".zip");
    bool zipped = GetFileAttributesW(beside) != INVALID_FILE_ATTRIBUTES;
    *python->home = 0;
    return zipped;
}

static bool try_library(search *search, const wchar_t *source, const wchar_t *path, const wchar_t *packages)
{
    wchar_t reason[CT_PATH];
    ct_python *found = search->found;
    int version = version_of(name_of(path));
    wcscpy(found->path, path);
    wcscpy(found->packages, packages);
    if (!version) {
        wcscpy(reason, L"is no pythonXY.dll");
    } else if (version < 300 + OLDEST_MINOR) {
        _snwprintf(reason, CT_PATH, L"is Python %d.%d: 3.%d or later is needed", version / 100, version % 100,
                   OLDEST_MINOR);
    } else if (file_fits(path, reason)) {
        if (!has_library(found)) {
            wcscpy(reason, L"has no standard library beside it (Lib\\os.py)");
        } else {
            found->library = LoadLibraryExW(path, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
            if (found->library)
                return true;
            _snwprintf(reason, CT_PATH, L"does not load: error %lu", GetLastError());
        }
    }
    note(search, source, path, reason);
    return false;
}

/* The newest pythonXY.dll in a folder. */
static bool library_in(const wchar_t *folder, wchar_t *path)
{
    wchar_t pattern[CT_PATH];
    WIN32_FIND_DATAW file;
    int newest = 0;
    join(pattern, folder, L"python*.dll");
    HANDLE files = FindFirstFileW(pattern, &file);
    if (files == INVALID_HANDLE_VALUE)
        return false;
    do {
        int version = version_of(file.cFileName);
        if (version > newest) {
            newest = version;
            join(path, folder, file.cFileName);
        }
    } while (FindNextFileW(files, &file));
    FindClose(files);
    return newest != 0;
}

/* The folder of the Python that a virtual environment was made from: `home` in its pyvenv.cfg, which is UTF-8. */
static bool base_of(const wchar_t *environment, wchar_t *base)
{
    wchar_t path[CT_PATH];
    char line[3 * CT_PATH];
    bool found = false;
    join(path, environment, L"pyvenv.cfg");
    FILE *file = _wfopen(path, L"rb");
    while (file && !found && fgets(line, sizeof line, file)) {
        size_t key = strspn(line, " \t"), after = key + 4 + strspn(line + key + 4, " \t");
        if (strncmp(line + key, "home", 4) != 0 || line[after] != '=')
            continue;
        char *value = line + after + 1;
        value += strspn(value, " \t");
        value[strcspn(value, "\r\n")] = 0;
        found = MultiByteToWideChar(CP_UTF8, 0, value, -1, base, CT_PATH) > 1;
    }
    if (file)
        fclose(file);
    return found;
}

/* Python in a folder: an installation's, a virtual environment's, or the one with python.exe of either. `quiet`: what
 * is no Python at all is not worth a word.
 */
static bool try_folder(search *search, const wchar_t *source, const wchar_t *folder, bool quiet)
{
    wchar_t path[CT_PATH], environment[CT_PATH], base[CT_PATH];
    if (wcslen(folder) >= CT_PATH)
        return false;
    if (library_in(folder, path))
        return try_library(search, source, path, L"");
    wcscpy(environment, folder);
    if (exists(environment, L"pyvenv.cfg") || (to_parent(environment) && exists(environment, L"pyvenv.cfg"))) {
        if (!base_of(environment, base) || !library_in(base, path)) {
            note(search, source, environment, L"is a virtual environment whose Python is gone");
            return false;
        }
        join(base, environment, L"Lib\\site-packages");
        return try_library(search, source, path, base);
    }
    if (exists(folder, L"python.exe"))
        note(search, source, folder, L"has python.exe, but no pythonXY.dll");
    else if (!quiet)
        note(search, source, folder, L"has no pythonXY.dll");
    return false;
}

/* Any of the three that a user may name: folder, python.exe, pythonXY.dll. */
static bool try_named(search *search, const wchar_t *source, const wchar_t *named)
{
    wchar_t path[CT_PATH];
    DWORD size = GetFullPathNameW(named, CT_PATH, path, NULL);
    DWORD attributes = size && size < CT_PATH ? GetFileAttributesW(path) : INVALID_FILE_ATTRIBUTES;
    if (attributes == INVALID_FILE_ATTRIBUTES) {
        note(search, source, named, L"does not exist");
        return false;
    }
    if (attributes & FILE_ATTRIBUTE_DIRECTORY)
        return try_folder(search, source, path, false);
    if (_wcsicmp(name_of(path), L"python.exe") != 0)
        return try_library(search, source, path, L"");
    to_parent(path);
    return try_folder(search, source, path, false);
}

/* A Python that another plugin may have brought: if it runs, it is shared. */
static bool try_loaded(search *search)
{
    HMODULE modules[MOST_MODULES];
    wchar_t path[CT_PATH];
    DWORD size = 0;
    if (!K32EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &size))
        return false;
    size_t count = size < sizeof modules ? size / sizeof *modules : MOST_MODULES;
    for (size_t i = 0; i < count; ++i)
        if (GetModuleFileNameW(modules[i], path, CT_PATH) && version_of(name_of(path)) &&
            try_library(search, L"loaded in this process", path, L""))
            return true;
    return false;
}

/* The Python that the plugin is part of: beside it, or up to its home, as in HOME\Lib\site-packages\calltrace\_native.
 */
void ct_origin(HMODULE plugin, wchar_t *path)
{
    wchar_t pointer[CT_PATH];
    char text[3 * CT_PATH] = "";
    DWORD size = 0;
    GetModuleFileNameW(plugin, path, CT_PATH);
    _snwprintf(pointer, CT_PATH, L"%ls.origin", path);
    pointer[CT_PATH - 1] = 0;
    HANDLE file = CreateFileW(pointer, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return;
    if (ReadFile(file, text, sizeof text - 1, &size, NULL) && size) {
        text[strcspn(text, "\r\n")] = 0;
        if (!MultiByteToWideChar(CP_UTF8, 0, text, -1, path, CT_PATH))
            GetModuleFileNameW(plugin, path, CT_PATH);
    }
    CloseHandle(file);
}

static bool try_around(search *search, HMODULE plugin)
{
    enum { LEVELS = 5 };
    wchar_t folder[CT_PATH], path[CT_PATH];
    ct_origin(plugin, folder);
    for (int level = 0; level < LEVELS && to_parent(folder); ++level)
        if (library_in(folder, path) || exists(folder, L"pyvenv.cfg"))
            return try_folder(search, L"around the extension", folder, false);
    return false;
}

typedef struct {
    HKEY root;
    int minor;
    wchar_t tag[32]; /* "3.12", "3.9-32" */
} registered;

static int newest_first(const void *left, const void *right)
{
    return ((const registered *)right)->minor - ((const registered *)left)->minor;
}

/* What installers have written, by PEP 514: SOFTWARE\Python\PythonCore\TAG\InstallPath. */
static bool try_registry(search *search)
{
    static const struct {
        HKEY root;
        const wchar_t *name;
    } roots[] = {{HKEY_CURRENT_USER, L"HKCU"}, {HKEY_LOCAL_MACHINE, L"HKLM"}};
    registered versions[MOST_VERSIONS], *end = versions;
    for (size_t i = 0; i < sizeof roots / sizeof *roots; ++i) {
        HKEY key;
        if (RegOpenKeyExW(roots[i].root, L"SOFTWARE\\Python\\PythonCore", 0, KEY_READ | KEY_WOW64_64KEY, &key))
            continue;
        for (DWORD index = 0; end < versions + MOST_VERSIONS; ++index, ++end) {
            DWORD size = sizeof end->tag / sizeof *end->tag;
            LSTATUS status = RegEnumKeyExW(key, index, end->tag, &size, NULL, NULL, NULL, NULL);
            if (status == ERROR_NO_MORE_ITEMS)
                break;
            if (status) /* a longer name than any version has */
                *end->tag = 0;
            end->root = roots[i].root;
            end->minor = wcsncmp(end->tag, L"3.", 2) == 0 ? (int)wcstol(end->tag + 2, NULL, 10) : 0;
        }
        RegCloseKey(key);
    }
    qsort(versions, (size_t)(end - versions), sizeof *versions, newest_first);
    for (const registered *version = versions; version < end; ++version) {
        wchar_t key[CT_PATH], source[CT_PATH], folder[CT_PATH];
        DWORD size = sizeof folder;
        _snwprintf(key, CT_PATH, L"SOFTWARE\\Python\\PythonCore\\%ls\\InstallPath", version->tag);
        _snwprintf(source, CT_PATH, L"registry, PythonCore\\%ls", version->tag);
        if (RegGetValueW(version->root, key, NULL, RRF_RT_REG_SZ | RRF_SUBKEY_WOW6464KEY, NULL, folder, &size) == 0 &&
            try_folder(search, source, folder, false))
            return true;
    }
    if (end == versions)
        note(search, L"registry", L"", L"names no Python");
    return false;
}

static bool try_path(search *search)
{
    wchar_t *path = _wgetenv(L"PATH") ? _wcsdup(_wgetenv(L"PATH")) : NULL;
    bool found = false;
    size_t noted = wcslen(search->tried);
    for (wchar_t *folder = path ? wcstok(path, L";") : NULL; folder && !found; folder = wcstok(NULL, L";"))
        found = try_folder(search, L"PATH", folder, true);
    free(path);
    if (!search->tried[noted] && !found)
        note(search, L"PATH", L"", L"leads to no Python");
    return found;
}

bool ct_find_python(HMODULE plugin, ct_python *found, wchar_t *tried)
{
    search search = {found, tried};
    const wchar_t *named = _wgetenv(L"CALLTRACE_PYTHON"), *environment = _wgetenv(L"VIRTUAL_ENV");
    *tried = 0;
    if (named && *named)
        return try_named(&search, L"CALLTRACE_PYTHON", named);
    return try_loaded(&search) ||
           (environment && *environment && try_folder(&search, L"VIRTUAL_ENV", environment, false)) ||
           try_around(&search, plugin) || try_registry(&search) || try_path(&search);
}
