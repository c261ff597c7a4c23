/* Loads Python into the process and hands it command lines. The first Python code that runs is start.py beside this
 * file. */
#include "hosting/hosting.h"

#include <stdio.h>
#include <wchar.h>

enum { PY_FILE_INPUT = 257 };

extern const char ct_start_source[]; /* start.py */

static ct_python python; /* once found: as long as the process lives */
static PyObject *start;  /* the module made of start.py */

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    CT_PYTHON_FUNCTIONS(MEMBER)
#undef MEMBER
} py;

static bool load(const ct_plugin *plugin)
{
    static wchar_t tried[CT_TEXT], text[CT_TEXT];
    HMODULE self;
    if (!ct_find_python(plugin->library, &python, tried)) {
        _snwprintf(text, CT_TEXT,
                   L"calltrace: no 64-bit Python 3.9 or later to run in: install one, or name it in the environment "
                   L"variable CALLTRACE_PYTHON (folder, python.exe or pythonXY.dll)\n%ls",
                   tried);
        text[CT_TEXT - 1] = 0;
        plugin->fail(text);
        return false;
    }
#define RESOLVE(result, name, parameters) py.name = (void *)(uintptr_t)GetProcAddress(python.library, #name);
    CT_PYTHON_FUNCTIONS(RESOLVE)
#undef RESOLVE
    /* Python keeps addresses of the plugin's functions. */
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN, (LPCWSTR)plugin->library,
                       &self);
    if (!py.Py_IsInitialized()) {
        if (*python.home)
            py.Py_SetPythonHome(python.home);
        int *ignores_environment = (int *)GetProcAddress(python.library, "Py_IgnoreEnvironmentFlag");
        if (ignores_environment && ct_path_has_library())
            *ignores_environment = 1;
        ct_mend_streams();
        py.Py_InitializeEx(0);
        py.PyEval_SaveThread(); /* each line takes the interpreter's lock anew */
    }
    return true;
}

/* Make start.py a module. */
static bool begin(void)
{
    PyObject *code = py.Py_CompileString(ct_start_source, "start.py", PY_FILE_INPUT);
    if (code) {
        start = py.PyImport_ExecCodeModule("_calltrace_start", code);
        py.Py_DecRef(code);
    }
    return start != NULL;
}

static void run(const ct_plugin *plugin, const wchar_t *line)
{
    wchar_t path[CT_PATH];
    ct_origin(plugin->library, path);
    PyObject *failure = NULL;
    if (start || begin())
        failure =
            py.PyObject_CallMethod(start, "run", "sssuuuKu", plugin->version, plugin->module, plugin->folder, path,
                                   python.path, python.packages, (unsigned long long)(uintptr_t)plugin->library, line);
    wchar_t *text = failure ? py.PyUnicode_AsWideCharString(failure, NULL) : NULL;
    if (!text)
        plugin->fail(L"calltrace: Python cannot run the command\n");
    else if (*text)
        plugin->fail(text);
    if (text)
        py.PyMem_Free(text);
    else
        py.PyErr_Clear();
    if (failure)
        py.Py_DecRef(failure);
}

void ct_host_line(const ct_plugin *plugin, const wchar_t *line)
{
    if (!python.library && !load(plugin))
        return;
    int state = py.PyGILState_Ensure();
    run(plugin, line);
    py.PyGILState_Release(state);
}
