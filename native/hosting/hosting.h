/* Hosting Python inside a debugger: finds one, loads it once, and hands it command lines.
 *
 * For plugins of any debugger; nothing here knows which. All is called on the debugger's own command thread.
 */
#ifndef CALLTRACE_HOSTING_H
#define CALLTRACE_HOSTING_H

#include <stdbool.h>
#include <windows.h>

enum { CT_PATH = 1024, CT_TEXT = 8192 }; /* characters, with the end */

/* What a plugin tells of itself. */
typedef struct {
    HMODULE library;                   /* the plugin: in calltrace/_native of its package, or a copy (ct_origin) */
    const char *version;               /* of calltrace */
    const char *module;                /* the Python module that answers: its run(library, line) */
    const char *folder;                /* where that lies in a source tree, beside core/ */
    void (*fail)(const wchar_t *text); /* shows why a line could not be run; the line end is in it */
} ct_plugin;

/* A Python that was found, checked and loaded. */
typedef struct {
    HMODULE library;
    wchar_t path[CT_PATH];     /* of pythonXY.dll */
    wchar_t home[CT_PATH];     /* for Py_SetPythonHome; "" where Python finds its library alone */
    wchar_t packages[CT_PATH]; /* a virtual environment's site-packages; "" without one */
} ct_python;

/* The functions of Python's C API that are used: X(result, name, parameters). What objects are is Python's business. */
typedef struct PyObject PyObject;
#define CT_PYTHON_FUNCTIONS(X)                                                                                         \
    X(int, Py_IsInitialized, (void))                                                                                   \
    X(void, Py_SetPythonHome, (const wchar_t *home))                                                                   \
    X(void, Py_InitializeEx, (int signal_handlers))                                                                    \
    X(void *, PyEval_SaveThread, (void))                                                                               \
    X(int, PyGILState_Ensure, (void))                                                                                  \
    X(void, PyGILState_Release, (int state))                                                                           \
    X(PyObject *, Py_CompileString, (const char *source, const char *file, int start))                                 \
    X(PyObject *, PyImport_ExecCodeModule, (const char *name, PyObject *code))                                         \
    X(PyObject *, PyObject_CallMethod, (PyObject * object, const char *name, const char *format, ...))                 \
    X(wchar_t *, PyUnicode_AsWideCharString, (PyObject * text, intptr_t * size))                                       \
    X(void, PyMem_Free, (void *memory))                                                                                \
    X(void, PyErr_Clear, (void))                                                                                       \
    X(void, Py_DecRef, (PyObject * object))

/* Find the Python to host and load it. False: none can be; `tried` (CT_TEXT characters) has a line for each, and why.
 *
 * Looked at in this order: CALLTRACE_PYTHON (a folder, python.exe or pythonXY.dll, and then no other); a Python loaded
 * in this process already; VIRTUAL_ENV; the Python that the plugin was installed in, or that lies beside it; those in
 * the registry (PEP 514), the newest first; PATH.
 */
bool ct_find_python(HMODULE plugin, ct_python *found, wchar_t *tried);

/* The path of the plugin in the package that it belongs to (CT_PATH characters). A copy of it elsewhere has that path
 * in the file NAME.origin beside it, as UTF-8.
 */
void ct_origin(HMODULE plugin, wchar_t *path);

/* Whether PYTHONPATH leads to the library of a Python, perhaps of another version: one that takes it for its own ends
 * the process as it starts.
 */
bool ct_path_has_library(void);

/* Python ends the process as it starts if a standard stream is open, but of no use: such ones lead nowhere afterwards.
 * Called once Python is loaded.
 */
void ct_mend_streams(void);

/* Run a command line, after loading Python if that was not done before. The plugin and Python stay loaded from then on:
 * Python cannot be started twice in a process, and what it holds (a recording, for one) outlives an unloaded plugin.
 */
void ct_host_line(const ct_plugin *plugin, const wchar_t *line);

#endif
