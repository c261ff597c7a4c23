/* What is used of x64dbg's plugin SDK, version 1. The names of its functions are its own; what they import is listed in
 * x64dbg.def and x64bridge.def, of which the import libraries are made. All text is UTF-8. */
#ifndef CALLTRACE_X64DBG_SDK_H
#define CALLTRACE_X64DBG_SDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <windows.h>

enum { PLUG_SDKVERSION = 1 };

typedef struct {
    int pluginHandle; /* given by the debugger; the rest is told to it */
    int sdkVersion;
    int pluginVersion;
    char pluginName[256];
} PLUG_INITSTRUCT;

typedef struct {
    HWND hwndDlg;
    int hMenu;
    int hMenuDisasm;
    int hMenuDump;
    int hMenuStack;
    int hMenuGraph;
    int hMenuMemmap;
    int hMenuSymmod;
} PLUG_SETUPSTRUCT;

typedef enum { CB_STOPDEBUG = 1, CB_PAUSEDEBUG = 12, CB_DEBUGEVENT = 17, CB_MENUENTRY = 18 } CBTYPE;
typedef void (*CBPLUGIN)(CBTYPE type, void *info);
typedef bool (*CBPLUGINCOMMAND)(int argc, char **argv);

typedef struct {
    DEBUG_EVENT *DebugEvent;
} PLUG_CB_DEBUGEVENT;

typedef struct {
    int hEntry;
} PLUG_CB_MENUENTRY;

typedef enum { GUI_DISASSEMBLY = 0 } GUISELECTIONTYPE;

typedef struct {
    uint64_t start, end; /* VA of the first and last byte */
} SELECTIONDATA;

typedef enum { bp_normal = 1 } BPXTYPE;

typedef struct {
    BPXTYPE type;
    uint64_t addr;
    bool enabled, singleshoot;
    bool active; /* its int3 is in the target */
    char name[256];
    char mod[256];
    unsigned short slot;
    unsigned char typeEx, hwSize;
    unsigned int hitCount;
    bool fastResume, silent;
    char breakCondition[256], logText[256], logCondition[256], commandText[256], commandCondition[256];
} BRIDGEBP;

typedef struct {
    int count;
    BRIDGEBP *bp; /* for BridgeFree */
} BPMAP;

typedef struct {
    int ThreadNumber;
    HANDLE Handle;
    DWORD ThreadId;
    uint64_t ThreadStartAddress, ThreadLocalBase;
    char threadName[256];
} THREADINFO;

typedef struct {
    THREADINFO BasicInfo;
    uint64_t ThreadCip;
    DWORD SuspendCount;
    int Priority, WaitReason;
    DWORD LastError;
    FILETIME UserTime, KernelTime, CreationTime;
    uint64_t Cycles;
} THREADALLINFO;

typedef struct {
    int count;
    THREADALLINFO *list; /* for BridgeFree */
    int CurrentThread;   /* the index of the one that its user has chosen */
} THREADLIST;

/* x64dbg.dll */
__declspec(dllimport) void _plugin_registercallback(int plugin, CBTYPE type, CBPLUGIN callback);
__declspec(dllimport) bool _plugin_registercommand(int plugin, const char *name, CBPLUGINCOMMAND command,
                                                   bool only_when_debugging);
__declspec(dllimport) void _plugin_logprint(const char *text);
__declspec(dllimport) bool _plugin_menuaddentry(int menu, int entry, const char *title);
__declspec(dllimport) bool _plugin_menuaddseparator(int menu);
__declspec(dllimport) void _plugin_menuentrysethotkey(int plugin, int entry, const char *keys);

/* Stop at the debug event of which a callback is told; it comes back when the target is to go on. */
__declspec(dllimport) void _plugin_debugpause(void);

/* x64bridge.dll */
__declspec(dllimport) void BridgeFree(void *memory);
__declspec(dllimport) bool DbgIsDebugging(void);
__declspec(dllimport) bool DbgIsRunning(void);
__declspec(dllimport) DWORD DbgGetThreadId(void); /* of the thread that its user has chosen */
__declspec(dllimport) void DbgGetThreadList(THREADLIST *list);
__declspec(dllimport) int DbgGetBpList(BPXTYPE type, BPMAP *list);
__declspec(dllimport) bool DbgCmdExecDirect(const char *command); /* at once, on this thread */
__declspec(dllimport) bool DbgCmdExec(const char *command);       /* by and by, on the debugger's command thread */
__declspec(dllimport) bool GuiSelectionGet(GUISELECTIONTYPE window, SELECTIONDATA *selection);

/* TitanEngine.dll, which x64dbg may have loaded under that name from one of several folders: its functions are looked
 * up when they are needed. X(result, name, parameters) */
#define TITAN_FUNCTIONS(X)                                                                                             \
    X(DEBUG_EVENT *, GetDebugData, (void)) /* the last event */                                                        \
    X(void, SetNextDbgContinueStatus, (DWORD status))                                                                  \
    X(bool, IsBPXEnabled, (uint64_t address)) /* is its int3 in the code? */                                           \
    X(bool, EnableBPX, (uint64_t address))                                                                             \
    X(bool, DisableBPX, (uint64_t address))                                                                            \
    X(bool, MemoryReadSafe, (HANDLE process, uint64_t address, void *data, size_t size, size_t *done))                 \
    X(bool, MemoryWriteSafe, (HANDLE process, uint64_t address, const void *data, size_t size, size_t *done))

#endif
